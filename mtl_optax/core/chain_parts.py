"""What the classes in an optimizer state tell about the parts of a chain."""

from typing import Any

import jax
import jax.numpy as jnp

# Wrappers that compare or select between what goes in and what comes out, so that an
# aggregator inside, which removes the task axis, cannot work. State class -> cure.
CANNOT_WRAP = {
    "MultiStepsState": (
        "optax.MultiSteps around the aggregator accumulates gradients of the "
        "parameters' shapes. Use mtl_optax.accumulate_tasks(chain, num_tasks, every_k) "
        "around the whole chain instead; or put optax.MultiSteps after the aggregator, "
        "which then aggregates every micro-batch."
    ),
    "ApplyIfFiniteState": (
        "optax.apply_if_finite around the aggregator selects between stacked gradients "
        "and an update. Use mtl_optax.skip_nonfinite_tasks, which drops only the task "
        "that is not finite; or put apply_if_finite after the aggregator."
    ),
}


def wrapper_of_everything(state: Any) -> str | None:
    """The class of a wrapping state above any other in the tree, outermost first."""
    name = type(state).__name__
    if name in CANNOT_WRAP:
        return name
    found = map(wrapper_of_everything, _parts(state))
    return next((name for name in found if name is not None), None)


def check_nothing_optimises_twice(state: Any) -> bool:
    """Whether a method in it contains its optimiser; raises if another one follows."""
    if getattr(type(state), "contains_optimizer", False):
        return True
    found = False
    for part in _parts(state):
        # A chain's state is a plain tuple, in order; fields of a state have no order.
        if found and type(state) is tuple:
            _check_keeps_no_moments(part)
        found |= check_nothing_optimises_twice(part)
    return found


def _parts(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return list(state.values())
    return list(state) if isinstance(state, (tuple, list)) else []


def _check_keeps_no_moments(state: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.ndim and jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"check_chain: the state {jax.tree_util.keystr(path)} of shape "
                f"{leaf.shape} belongs to an optimiser (Adam, momentum, ...) after a "
                "method that already contains its optimiser. That method's updates are "
                "the displacement of all its steps, not a gradient: Adam would undo "
                "their length and step the wrong way. Give the optimiser to the method "
                "as in mtl_optax.selective_groups(num_tasks, optax.adam(1e-3), ...) or "
                "mtl_optax.cso(num_tasks, optax.adam(1e-3), ...); what follows may act "
                "on displacements only, such as optax.scale."
            )
