"""Methods about groups of tasks, as studies train them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import optax

import mtl_optax as mtl
from mtl_optax.study.halves import joint_against_halves
from mtl_optax.study.parts import Parts, among_tasks

LOOK_AHEAD = 0.01  # of the studies, see benchmarks/groups_tuning.py


def _selective_groups(parts: Parts, **settings: Any) -> optax.GradientTransformation:
    return mtl.selective_groups(
        parts.num_tasks,
        parts.optimizer,
        owner=parts.owner,
        key=parts.key,
        **settings,
    )


def _watch(
    parts: Parts, ahead: Any, every_k: int
) -> optax.GradientTransformationExtraArgs:
    """TAG: plain steps of the rate `ahead`, or with None the steps of the training."""
    return mtl.task_affinity(
        parts.num_tasks,
        owner=parts.owner,
        learning_rate=ahead,
        optimizer=parts.optimizer if ahead is None else None,
        every_k=every_k,
    )


def tag(
    parts: Parts, ahead: Any = None, every_k: int = 10
) -> optax.GradientTransformation:
    """The plain sum, watched by TAG."""
    joint = among_tasks(mtl.unitary(parts.num_tasks), parts.shared)
    return optax.chain(_watch(parts, ahead, every_k), joint, parts.optimizer)


def _joint(parts: Parts, ahead: Any = LOOK_AHEAD) -> optax.GradientTransformation:
    """`tag`, measured at every step, and what steps of halves would have done.

    Under `jax.vmap` over runs a step that is not measured costs as much.
    """
    step = joint_against_halves(parts.num_tasks, parts.optimizer, parts.owner)
    return optax.chain(_watch(parts, ahead, every_k=1), step)


GROUPS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "selective_groups": _selective_groups,
    # The same with a preference that is a number, not the median.
    "selective_preference": partial(_selective_groups, preference=0.0),
    "joint": _joint,
    "tag": tag,
}
