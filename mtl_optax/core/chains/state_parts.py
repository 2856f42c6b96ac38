"""What the classes in an optimizer state tell about the parts of a chain."""

from typing import Any

import jax
import jax.numpy as jnp

_Shapes = dict[str, tuple[int, ...]]  # of the parameters, by path


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
                "their length and step the wrong way. (mconfig has Adam inside: put "
                "optax.scale_by_learning_rate behind it.) Give the optimiser to the "
                "method as in "
                "mtl_optax.selective_groups(num_tasks, optax.adam(1e-3), ...) or "
                "mtl_optax.cso(num_tasks, optax.adam(1e-3), ...); what follows may act "
                "on displacements only, such as optax.scale."
            )


def check_keeps_no_optimiser(wrapper: str, state: Any, params: Any) -> None:
    """Raises if the state of what a wrapper applies to gradients is an optimiser's.

    Methods come first in a chain and keep what they like; what follows must not keep
    anything like the parameters. A method that contains its optimiser is none of these.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    shapes = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
    found = _optimiser_in(state, shapes)
    if found is not None:
        raise ValueError(f"{wrapper}: the state {found}. {only_methods(wrapper)}")


def only_methods(wrapper: str) -> str:
    """Why an optimiser inside is wrong, and where it goes."""
    rest = {"on_shared": "mask", "flat_mtl": "...", "samo": "key=0"}[wrapper]
    on_some = "would act on shared leaves only, and the others would climb"
    why = {
        "on_shared": on_some,
        "flat_mtl": "would act on each of the two gradients that are added",
        "samo": on_some,
    }
    return (
        f"{wrapper} gives a gradient, and hands leaves that the method does not see "
        "theirs as it is. So what is inside must give a gradient too: what makes a "
        "step of it, or changes its length (an optimiser, its learning rate with the "
        f"sign, clipping, weight decay), {why[wrapper]}. Put it behind: "
        f"optax.chain(mtl_optax.{wrapper}(method, {rest}), optax.adam(...))."
    )


def _optimiser_in(state: Any, shapes: _Shapes) -> str | None:
    if getattr(type(state), "contains_optimizer", False):
        return f"{type(state).__name__} is of a method that contains its optimiser"
    if _is_ours(state):
        return _optimiser_in(getattr(state, "inner", ()), shapes)
    for place, part in enumerate(_parts(state)):
        found = _optimiser_in(part, shapes)
        if found is None and type(state) is tuple and place:
            found = _moments_in(part, shapes)
        if found is not None:
            return found
    return None


def _moments_in(state: Any, shapes: _Shapes) -> str | None:
    """The first leaf that is like a parameter: in place and shape."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state, is_leaf=_is_ours):
        if _is_ours(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            continue
        name, shape = jax.tree_util.keystr(path), jnp.shape(leaf)
        if any(name.endswith(at) and shape == s for at, s in shapes.items() if at or s):
            return f"{name} of shape {shape} is that of an optimiser"
    return None


def _is_ours(state: Any) -> bool:
    return type(state).__module__.startswith("mtl_optax")
