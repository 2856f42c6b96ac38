"""Methods with an order of tasks or of channels, as studies train them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import optax

import mtl_optax as mtl
from mtl_optax.study.parts import Parts, among_tasks

UPDATES_AN_EPOCH = 4000 // 64  # of Multi-digits


def _nmt(
    parts: Parts, multiplier_lr: Any = 1e-3, stage_steps: Any = 250.0
) -> optax.GradientTransformation:
    """In the order of the tasks; heads move with the weights of their losses."""
    rule = mtl.nmt(
        parts.num_tasks,
        range(parts.num_tasks),
        multiplier_lr=multiplier_lr,
        stage_steps=stage_steps,
    )
    rule = among_tasks(rule, parts.shared, rest="weights")
    return optax.chain(rule, parts.optimizer)


def _weighted(parts: Parts, later: Any = 1.0) -> optax.GradientTransformation:
    """The sum, with this weight for the second half of the tasks."""
    is_later = jnp.arange(parts.num_tasks) >= parts.num_tasks / 2
    rule = mtl.constant(parts.num_tasks, weights=jnp.where(is_later, later, 1.0))
    return optax.chain(among_tasks(rule, parts.shared), parts.optimizer)


def _cso(
    parts: Parts, total_epochs: Any = 1.0, uniform: float | None = None
) -> optax.GradientTransformation:
    """CSO, which counts its epochs itself; `uniform` in place of its draws."""
    if parts.strength_fn is None:
        raise ValueError("cso needs a problem with connection strengths.")
    method = mtl.cso(
        parts.num_tasks,
        parts.optimizer,
        strength_fn=parts.strength_fn,
        total_epochs=total_epochs,
        key=parts.key,
        owner=parts.owner,
    )

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), method.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        step, inner = state
        epoch = step // UPDATES_AN_EPOCH
        updates, inner = method.update(
            *(updates, inner, params), epoch=epoch, uniform=uniform, **extra
        )
        return updates, (step + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


ORDERED: dict[str, Callable[..., optax.GradientTransformation]] = {
    "nmt": _nmt,
    "weighted": _weighted,
}

# Those of a problem with connection strengths, known to its study only.
OF_CHANNELS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "cso": _cso,
    "cso_phase_1": partial(_cso, uniform=1.0),
    "cso_phase_2": partial(_cso, uniform=-1.0),
}

# The sum again, for losses with a setting of their own: known to its study only.
OF_TOWERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "self_auxiliary": _weighted,
}
