"""Digits first: the NMT-style method against fixed weightings, tuned as one would.

Four tasks of Multi-digits; parity and comparison are subordinate to the two digits. The
method claims to need no tuning: it trains task after task and holds the digits where
their stages left them. A fixed weighting has the weight of the subordinate tasks to be
chosen, from a grid of seven.
"""

import jax
import jax.numpy as jnp
import optax

from mtl_optax.study.compare import Results, Shown, Study
from mtl_optax.study.data import TASKS, Split
from mtl_optax.study.figures.tradeoff import tradeoff
from mtl_optax.study.model import MultiTaskMLP, digits_problem, functions
from mtl_optax.study.problem import Metric, Problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.verdicts.subordinate import (
    FIRST,
    FIXED,
    NMT,
    RATE,
    RULE,
    STAGE,
    WEIGHTS,
    judge,
    primary_and_later,
)


def problem() -> Problem:
    """Multi-digits with four tasks; losses too, and on training images too."""
    plain = digits_problem(4)
    _, logits = functions(MultiTaskMLP, {task: TASKS[task] for task in plain.tasks})

    def evaluate(params: jax.Array, split: Split) -> dict[str, jax.Array]:
        pairs = zip(logits(params, split.images), split.labels.T, strict=True)
        losses = [
            jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, y))
            for z, y in pairs
        ]
        return {**plain.evaluate(params, split), "loss": jnp.stack(losses)}

    return plain._replace(
        splits={**plain.splits, "all training images": plain.splits["train"]},
        metrics=(*plain.metrics, Metric("loss", "", higher_is_better=False)),
        evaluate=evaluate,
        chosen_by=FIRST,
    )


def grid_table(results: Results) -> Shown:
    """All candidates of all methods, chosen or not."""
    rows = []
    for method, outcome in results.outcomes.items():
        values = zip(*primary_and_later(outcome), strict=True)
        candidates = results.settings.candidates(method)
        for r, (candidate, own) in enumerate(zip(candidates, values, strict=True)):
            cells = [f"{x.mean():.2f} ± {x.std(ddof=1):.2f}" for x in own]
            mark = "chosen" if r == outcome.chosen[0] else ""
            rows.append((method, [candidate.more(), *cells, mark]))
    head = ["method", "settings", "digits", "parity and greater", ""]
    note = "Test accuracy in percent, mean ± sd over seeds."
    return Shown("All settings", note, head, rows)


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

STUDY = Study(
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
)
