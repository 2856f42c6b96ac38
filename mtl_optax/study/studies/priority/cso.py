"""Connection strength on digits: which channels belong to whom, and what that is worth.

The sum, PCGrad, each phase of CSO alone, and both.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import optax

import mtl_optax as mtl
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part
from mtl_optax.study.engine.transformations import Ingredients
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.studies.priority.cso_problem import problem
from mtl_optax.study.studies.priority.cso_rule import EPOCHS, RULE, channels, judge

BATCH = 64


def cso(
    of: Ingredients, total_epochs: Any = 1.0, uniform: float | None = None
) -> optax.GradientTransformation:
    """CSO, which counts its epochs itself; `uniform` in place of its draws."""
    assert of.problem.strength_fn is not None
    updates_an_epoch = len(of.problem.splits["train"].images) // BATCH
    method = mtl.cso(
        of.num_tasks,
        of.optimizer,
        strength_fn=of.problem.strength_fn,
        total_epochs=total_epochs,
        key=of.key,
        owner=of.problem.owner,
    )

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), method.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        step, inner = state
        epoch = step // updates_an_epoch
        updates, inner = method.update(
            *(updates, inner, params), epoch=epoch, uniform=uniform, **extra
        )
        return updates, (step + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


_SETTINGS = Settings(
    ("unitary", "pcgrad", "cso_phase_1", "cso_phase_2", "cso"),
    steps=400,
    learning_rates=(3e-3,),
    # On shared parameters phase 1 counts a step a task: a schedule would end early.
    schedule="constant",
    batch_size=BATCH,
    points=40,
    grids={"cso": {"total_epochs": (EPOCHS,)}},
)

PART = Part(
    name="cso",
    title="Channels and their tasks",
    question="Two digits overlap in each image; four tasks share two convolutions. "
    "First each task steps in turn, later each channel keeps what the task learned "
    "that depends on it most. What is each phase worth, and who owns which channels?",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(
        methods=("unitary", "cso"),
        seeds=2,
        steps=40,
        points=4,
        grids={"cso": {"total_epochs": (1.0,)}},
        quick=True,
    ),
    figures=(accuracy, differences, channels),
    rules=(RULE,),
    judge=judge,
    has_single_task=False,
    methods={
        "cso": cso,
        "cso_phase_1": partial(cso, uniform=1.0),
        "cso_phase_2": partial(cso, uniform=-1.0),
    },
)
