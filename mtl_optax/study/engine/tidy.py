"""The numbers of results as one tidy table, of which files and summaries are made."""

import pandas as pd

from mtl_optax.study.engine.study import MethodResult, PartResult, StudyResult

COLUMNS = (
    *("study", "part", "method", "candidate", "scale", "seed", "task", "split"),
    *("metric", "value", "chosen"),  # chosen: of its scale, on validation data
)


def of_part(result: PartResult) -> pd.DataFrame:
    """All that was measured: a row a number, with COLUMNS."""
    frames = [
        _one(result, own, split, metric).assign(method=method)
        for method, own in result.methods.items()
        for split, named in own.metrics.items()
        for metric in named
    ]
    table = pd.concat(frames, ignore_index=True)
    return table.assign(study=result.study, part=result.part.name)[list(COLUMNS)]


def of_study(result: StudyResult) -> pd.DataFrame:
    """That of all parts."""
    return pd.concat(map(of_part, result.parts.values()), ignore_index=True)


def _one(
    result: PartResult, own: MethodResult, split: str, metric: str
) -> pd.DataFrame:
    scales, values = result.part.scales, own.metrics[split][metric]
    axes = {
        "candidate": list(map(str, own.candidates)),
        "scale": scales,
        "seed": range(values.shape[2]),
        "task": result.tasks,
    }
    index = pd.MultiIndex.from_product(axes.values(), names=axes)
    table = pd.DataFrame({"value": values.ravel()}, index).reset_index()
    best = [str(own.candidates[c]) for c in own.chosen]
    chosen = set(zip(best, scales, strict=True))
    pairs = zip(table["candidate"], table["scale"], strict=True)
    return table.assign(split=split, metric=metric, chosen=[x in chosen for x in pairs])
