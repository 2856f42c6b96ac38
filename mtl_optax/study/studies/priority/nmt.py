"""Digits first: the NMT-style method against fixed weightings, tuned as one would.

Four tasks of Multi-digits; parity and comparison are subordinate to the two digits. The
method claims to need no tuning: it trains task after task and holds the digits where
their stages left them. A fixed weighting has the weight of the subordinate tasks to be
chosen, from a grid of seven.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.problem import Metric, Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, PartResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.paired import mean_sd
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.priority.nmt_rule import (
    FIRST,
    FIXED,
    NMT,
    RATE,
    RULE,
    STAGE,
    WEIGHTS,
    judge,
    primary_and_later,
    tradeoff,
)


def problem() -> Problem:
    """Multi-digits with four tasks; losses too, and on training images too."""
    plain = digits_problem(4)

    def evaluate(params: Any, state: Any, split: Any, key: Any) -> dict[str, jax.Array]:
        losses, _ = plain.losses(params, state, split, None)
        found = plain.evaluate(params, state, split, key)
        return {**found, "loss": jnp.stack(losses)}

    return plain._replace(
        splits={**plain.splits, "all training images": plain.splits["train"]},
        metrics=(*plain.metrics, Metric("loss", "", higher_is_better=False)),
        evaluate=evaluate,
        chosen_by=FIRST,
    )


def grid_table(result: PartResult) -> Table:
    """All candidates of all methods, chosen or not."""
    rows = []
    for method, own in result.methods.items():
        values = zip(own.candidates, *primary_and_later(own), strict=True)
        for c, (candidate, primary, later) in enumerate(values):
            mark = "chosen" if c == own.chosen[0] else ""
            cells = mean_sd(primary, 2), mean_sd(later, 2), mark
            rows.append([method, candidate.more(), *cells])
    head = ["method", "settings", "digits", "parity and greater", ""]
    note = "Test accuracy in percent, mean ± sd over seeds."
    return Table("All settings", note, head, rows, styles(result.methods))


_SETTINGS = Settings(
    (NMT, FIXED),
    tuning_seeds=5,
    steps=4 * int(STAGE),
    learning_rates=(RATE,),
    schedule="constant",
    points=100,
    grids={
        NMT: {"multiplier_lr": (RATE, 0.1, 1.0), "stage_steps": (STAGE,)},
        FIXED: {"later": WEIGHTS},
    },
)

PART = Part(
    name="nmt",
    title="Digits first",
    question="Two digits overlap in each image. Naming them comes first; whether their "
    "sum is odd and whether the left one is greater is subordinate. Does a method with "
    "multipliers hold the digits as well as the best of seven fixed weightings does, "
    "without tuning?",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(
        seeds=2,
        tuning_seeds=1,
        steps=80,
        points=8,
        grids={NMT: {"stage_steps": (20.0,)}, FIXED: {"later": (0.1, 1.0)}},
        quick=True,
    ),
    figures=(tradeoff,),
    rules=(RULE,),
    judge=judge,
    baseline=FIXED,
    has_single_task=False,
    tables=(grid_table,),
    readings=("targets",),
)
