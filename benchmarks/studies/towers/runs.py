"""The chosen runs of all widths as one table, and what auxiliary towers change."""

import pandas as pd

from benchmarks.studies.towers.rule import AUXILIARY, PLAIN, measured
from mtl_optax.study.engine.study import StudyResult

FRONT = "front"  # the part in which weights of tasks are varied
# Of the measures in tables, in which losses are times 100
FACTORS = pd.Series({"train loss": 100, "test loss": 100, "gap": 100, "accuracy": 1})


def chosen(result: StudyResult) -> pd.DataFrame:
    """A row a run and task of the parts by width, a column a measure."""
    tables = {}
    for part in (x for name, x in result.parts.items() if name != FRONT):
        facts, seeds = part.problem.facts, range(part.settings.seeds)
        axes = {"seed": seeds, "task": part.tasks}
        index = pd.MultiIndex.from_product(axes.values(), names=axes)
        for method, own in part.methods.items():
            gamma = f"{part.chosen(method)[0].settings.get('gamma', 0):g}"
            values = {name: x.ravel() for name, x in measured(own).items()}
            key = facts["condition"], facts["tower_width"], method, gamma
            tables[key] = pd.DataFrame(values, index)
    return pd.concat(tables, names=["condition", "width", "method", "gamma"])


def minus_plain(runs: pd.DataFrame) -> pd.DataFrame:
    """Of `chosen`: with auxiliary towers minus without."""
    ours, others = (runs.xs(x, level="method") for x in (AUXILIARY, PLAIN))
    return ours - others.to_numpy()  # in the same order, but gamma is another
