"""Means over seeds, in one table: what summary.csv holds, and parts side by side.

Intervals are Student's t. With 5 seeds the percentile bootstrap covers 83 % where it
says 95; it stands beside them in summary.csv, and needs 20 seeds to be as good.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from mtl_optax.analysis.comparison import (
    mean_and_sd,
    paired_bootstrap,
    paired_t,
)
from mtl_optax.study.engine import tidy
from mtl_optax.study.engine.study import PartResult, StudyResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.paired import CONFIDENCE, bracket, interval, minus
from mtl_optax.study.report.styles import styles

KEY = ["part", "method", "scale", "candidate", "task", "split", "metric"]
PAIR = ["part", "scale", "seed", "task", "split", "metric"]
SIDE_BY_SIDE = (
    "{split} {metric}, mean over tasks and seeds; behind it the {percent:g} % interval "
    "of the paired difference from {baseline}."
)


def summary(parts: Collection[PartResult]) -> pd.DataFrame:
    """A row a mean of the chosen runs on the reported split, of all parts.

    Blank where there is nothing to say: the baseline has no difference from itself, and
    one seed no sd.
    """
    tables = [
        table[table["chosen"] & (table["split"] == part.problem.reported_on)]
        for part in parts
        for table in [tidy.of_part(part)]
    ]
    table = pd.concat(tables, ignore_index=True)
    baselines = {part.part.name: part.part.baseline for part in parts}
    return means(table, table["part"].map(baselines))


def means(table: pd.DataFrame, baseline: Any) -> pd.DataFrame:
    """A row a mean over seeds, with its difference from that of a baseline.

    Args:
      table: tidy.
      baseline: the method that all are paired with, or one a row.
    """
    base = table[[*PAIR, "method", "value"]].rename(columns={"method": "baseline"})
    paired = table.assign(baseline=baseline).merge(
        base,
        how="left",
        on=[*PAIR, "baseline"],
        suffixes=("", "_of_baseline"),
        indicator="has",
    )
    alone = (paired["method"] == paired["baseline"]) | (paired["has"] != "both")
    paired.loc[alone, "baseline"] = None
    paired.loc[alone, "value_of_baseline"] = np.nan
    rows = [
        {**dict(zip(KEY, key, strict=True)), **_numbers(own)}
        for key, own in paired.groupby(KEY, sort=False)
    ]
    return pd.DataFrame(rows)


def _numbers(rows: pd.DataFrame) -> dict[str, Any]:
    """Mean, sd, difference, and both intervals, of the seeds of one key."""
    ours, others = (rows[x].to_numpy(float) for x in ("value", "value_of_baseline"))
    several, base = len(ours) > 1, rows["baseline"].iloc[0]
    is_paired = isinstance(base, str)
    sure: Any = (np.nan, np.nan)
    drawn: Any = sure
    if is_paired and several:
        sure = paired_t(ours, others, CONFIDENCE)[1:3]
        drawn = paired_bootstrap(ours, others, 2000, confidence=CONFIDENCE)[1:3]
    return {
        "seeds": len(ours),
        "mean": ours.mean(),
        "sd": float(mean_and_sd(ours).sd) if several else np.nan,
        "baseline": base if is_paired else "",
        "difference": minus(ours, others).mean(),
        **dict(zip(("t_low", "t_high"), map(float, sure), strict=True)),
        **dict(
            zip(("bootstrap_low", "bootstrap_high"), map(float, drawn), strict=True)
        ),
    }


def side_by_side(result: StudyResult) -> Table:
    """A row a method, a column a part: mean score, and its interval to the baseline."""
    every = result.parts.values()
    methods = dict.fromkeys(method for part in every for method in part.methods)
    problem = result.first.problem
    note = SIDE_BY_SIDE.format(
        split=problem.reported_on.capitalize(),
        metric=problem.metrics[0],
        percent=100 * CONFIDENCE,
        baseline=result.first.part.baseline,
    )
    return Table(
        problem.metrics[0].name.capitalize(),
        note,
        ["method", *result.parts],
        [[method, *(_score(x, method) for x in every)] for method in methods],
        styles(methods),
    )


def _score(result: PartResult, method: str) -> str:
    means = {name: x.score[0].mean(axis=-1) for name, x in result.methods.items()}
    base = means.get(result.part.baseline)
    if method not in means:
        return "-"
    own = means[method]
    if base is None or own is base or len(own) < 2:
        return f"{own.mean():.1f}"
    found = interval(minus(own, base))
    return f"{own.mean():.1f} {bracket(found.low, found.high)}"
