"""Tables of the study beside success: at any step, returns, and what a step costs."""

import pandas as pd

from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.paired import mean_sd
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.rl.cost import Cost, measured

COST = {
    "flops": "MFLOPs an update",
    "update": "ms an update",
    "step": "ms a step of a run",
}
NOTE = (
    "An update of actor, critics and temperatures, compiled alone for one seed: FLOPs "
    "as XLA counts them, a loop once, and the fastest of rounds in turn. A step of a "
    "run acts and moves the masses too, several seeds at a time, with its share of the "
    f"evaluations, beside other methods. Behind each its ratio to {BASELINE}."
)


def any_success(result: PartResult) -> Table:
    """Episodes that come to the goal at some step."""
    return _beside(result, "any success", 1, "the goal was reached at some step")


def returns(result: PartResult) -> Table:
    """Sums of rewards, which have a scale of their own in each task."""
    note = "sum of the rewards of an episode, at the scale of the task"
    return _beside(result, "return", 2, note)


def _beside(result: PartResult, metric: str, digits: int, note: str) -> Table:
    split, rows = result.problem.reported_on, []
    for method, own in result.methods.items():
        values = own.metrics[split][metric][own.chosen[0], 0]  # [seeds, T]
        rows.append([method, *(mean_sd(x, digits) for x in values.T)])
    return Table(
        metric.capitalize(),
        f"Mean ± sd over {result.settings.seeds} seed(s): {note}. Decides nothing.",
        ["method", *result.tasks],
        rows,
        styles(result.methods),
    )


def costs(result: PartResult) -> dict[str, Cost]:
    """Of each method; only from its runs if this is a smoke run."""
    recipe = result.settings.recipe()
    if result.settings.quick:
        alone = dict.fromkeys(result.methods, Cost())
    else:
        chosen = ((x, *result.chosen(x)[0].settings.items()) for x in result.methods)
        alone = measured(tuple(chosen), recipe)
    found = {}
    for method, own in result.methods.items():
        lanes = len(own.candidates) * result.settings.every_seed
        step = 1000 * own.run_seconds / recipe.steps / lanes
        found[method] = alone[method]._replace(step=step)
    return found


def cost(result: PartResult) -> Table:
    """Each beside its ratio to the sum."""
    found = costs(result)
    names = [x for x in COST if getattr(found[next(iter(found))], x) is not None]
    base = found.get(BASELINE)
    rows = []
    for method, own in found.items():
        cells = [method]
        for name in names:
            value = getattr(own, name)
            cells.append(f"{value:.2f}")
            cells.append("-" if base is None else f"{value / getattr(base, name):.2f}")
        rows.append(cells)
    return Table(
        "Cost",
        NOTE,
        ["method", *(x for name in names for x in (COST[name], "ratio"))],
        rows,
        styles(result.methods),
    )


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """cost.csv."""
    rows = [{"method": x, **own._asdict()} for x, own in costs(result).items()]
    return {"cost.csv": pd.DataFrame(rows)}
