"""A study that compiles in a blink: each task pulls three parameters elsewhere."""

import jax.numpy as jnp

from mtl_optax.study.engine.problem import Metric, stateless
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.figures.shares import shares
from mtl_optax.study.report.rules import against, judge_against

SETTINGS = Settings(("unitary", "mean"), seeds=2, steps=4, learning_rates=(0.1,))
LOSS = Metric("loss", "", higher_is_better=False)


def problem(tasks=("a", "b"), metric=LOSS, **changes):
    def apart(params, batch):
        return tuple(jnp.mean((params - 1 - t) ** 2) for t in range(len(tasks)))

    fields = {
        "name": "tiny",
        "tasks": tasks,
        "splits": {"end": None},
        "init": lambda seed: jnp.full(3, 0.1 * seed),
        "losses": apart,
        "metrics": (metric,),
        "evaluate": lambda params, split: {metric.name: jnp.stack(apart(params, None))},
        "owner": lambda params: None,
        "chosen_on": "end",
        "reported_on": "end",
        "credits": "By <i>nobody & co</i>.",
    }
    return stateless(**fields | changes)


def part(problem=problem, **changes):
    fields = {
        "name": "tiny",
        "title": "Tiny [red]study[/red]",
        "question": "Why?",
        "problem": problem,
        "settings": SETTINGS,
        "quick": SETTINGS._replace(quick=True),
        "judge": judge_against,
        "rules": (against(),),
        "figures": (accuracy, differences, shares, losses),
    }
    return Part(**fields | changes)
