"""What the study of repairs says of all arms together."""

from functools import partial

import jax
import numpy as np
import pandas as pd
from flax import nnx

from benchmarks.studies.repairs import claim
from benchmarks.studies.repairs.arms import DAMAGED, LONGER, STEPS
from benchmarks.studies.repairs.figures import given_back
from benchmarks.studies.repairs.rule import FIXED, Parts, Share, Tried, tried
from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.data.regularised import GroupedMLP
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import claims, parts
from mtl_optax.study.report import document as blocks
from mtl_optax.study.report.document import Document, Points, Table
from mtl_optax.study.report.paired import change, minus

VIEWS = {f"all at the rate {FIXED:g}": FIXED, "each at its best rate": None}
HEAD = ["arm", "what", "rate", *DAMAGED, "digits", "given back", "size", "passes"]
NOTE = (
    f"Test accuracy in points from a network for each task, tuned, with the usual "
    f"{STEPS:,} steps; digits: mean over the other two tasks. Then the share of the "
    f"lost points of {BASELINE} at {FIXED:g} that is given back, in percent. Costs: "
    f"parameters over those of the usual network; backward passes a step."
)


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """The verdicts, the figure, the claims, and two tables of all arms."""
    common = parts.document(result, documents)
    found = claim.of_parts(result.parts)
    views = {name: tried(result.parts, rate) for name, rate in VIEWS.items()}
    lines = [f"{own.title}: {claims.verdict(x)}." for own, x in found]
    return common._replace(
        summary=[Points(lines), *common.summary],
        body=[
            *blocks.figures((given_back,), views),
            *(claims.shown(*own) for own in found),
            *(table(name, own) for name, own in views.items()),
            alike(result.parts),
            *common.body,
        ],
        files=claims.files_of(found) | {"arms.csv": arms(views)},
    )


def table(title: str, every: list[Tried]) -> Table:
    """A row an arm."""
    size = parameters(every[0])
    rows = []
    for own in every:
        digits = np.delete(own.change, own.damaged, axis=1).mean(axis=1)
        rows.append(
            [
                *(own.name, own.arm.kind, str(own.candidate)),
                *(change(own.change[:, t]) for t in own.damaged),
                *(change(digits), said(own.share)),
                *(f"{parameters(own) / size:.1f}", str(own.arm.passes)),
            ]
        )
    return Table(
        title.capitalize(), f"{NOTE} {LONGER} has four times the steps.", HEAD, rows
    )


def alike(every: Parts) -> Table:
    """Single tasks with the steps, width or dropout of the arm beside them."""
    rows = []
    for own in tried(every, None):
        if own.alike is not None:
            apart = minus(own.score, own.alike), minus(own.alike, own.single)
            rows.append(
                [own.name, *(change(own.of_damaged(x)) for x in (*apart, own.change))]
            )
    return Table(
        "Single tasks given the same",
        f"Mean over {' and '.join(DAMAGED)} in points, each at its best rate: the arm "
        "minus single tasks with its steps, width or dropout; these minus the usual "
        "single tasks; the arm minus the usual ones.",
        ["arm", "minus those", f"{SINGLE_TASK} gains", "minus the usual"],
        rows,
    )


def parameters(own: Tried) -> int:
    """Of the network of an arm, all tasks together."""
    build = partial(GroupedMLP, TASKS, **own.arm.network)
    made = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(made)))


def said(own: Share) -> str:
    """In percent, with its interval."""
    return f"{own.mean:.0f} [{own.low:.0f}, {own.high:.0f}]"


def arms(views: dict[str, list[Tried]]) -> pd.DataFrame:
    """A row an arm and choice of rates."""
    return pd.DataFrame(
        [
            {
                "rates": title,
                "arm": own.name,
                "kind": own.arm.kind,
                "candidate": str(own.candidate),
                "parameters": parameters(own),
                "passes": own.arm.passes,
                "steps": STEPS * (4 if own.name == LONGER else 1),
                **{f"share_{k}": x for k, x in own.share._asdict().items()},
                **_changes(own),
            }
            for title, every in views.items()
            for own in every
        ]
    )


def _changes(own: Tried) -> dict[str, str]:
    return {task: change(own.change[:, t]) for t, task in enumerate(TASKS)}
