"""Whether an optimizer state belongs to these tasks and gradients, told by its shapes.

A state of another number of tasks would broadcast in silence where it can. Shapes are
compared while tracing, so that the check costs nothing in the compiled step.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_CURE = (
    "Carry the state over with mtl_optax.resize_tasks(opt_state, old_names, new_names, "
    "fresh=tx.init(params)), which keeps what belongs to the tasks that stay, or begin "
    "anew with tx.init(params)."
)


def check_state(state: Any, wanted: Any, num_tasks: int) -> None:
    """Raises unless each leaf has the shape of that in `wanted`, what `init` gives."""
    have = jax.tree_util.tree_leaves_with_path(state)
    shapes = [leaf.shape for leaf in jax.tree.leaves(wanted)]
    if len(have) != len(shapes):
        raise ValueError(
            f"The optimizer state has {len(have)} arrays, where this, built for "
            f"num_tasks={num_tasks}, keeps {len(shapes)}: it belongs to another "
            f"method, to other arguments, or to other tasks. {_CURE}"
        )
    for (path, leaf), shape in zip(have, shapes, strict=True):
        if jnp.shape(leaf) != shape:
            name = jax.tree_util.keystr(path) or "The only array"
            _raise(name, jnp.shape(leaf), shape, num_tasks)


def check_keys(states: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises unless the states of groups of tasks are those of the groups there are."""
    if states.keys() != wanted.keys():
        raise ValueError(
            f"The optimizer state holds one for each of {list(states)}, but the labels "
            f"of the leaves now ask for {list(wanted)}: it belongs to other tasks. "
            + _CURE
        )


def batched(shapes: Any, *lead: int) -> Any:
    """The same tree of shapes with axes before all."""

    def wider(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *jnp.shape(x)), jnp.result_type(x))

    return jax.tree.map(wider, shapes) if lead else shapes


def _raise(
    name: str, have: tuple[int, ...], wanted: tuple[int, ...], num_tasks: int
) -> None:
    found = f"{name} of the optimizer state has shape {have}"
    count = _count(have, wanted, num_tasks)
    if count is not None:
        raise ValueError(
            f"{found}, which is that of {count} tasks, but this was built for "
            f"num_tasks={num_tasks}. {_CURE}"
        )
    raise ValueError(
        f"{found}, but {num_tasks} task gradients of these shapes ask for {wanted}. "
        "Likely causes: (1) the gradients are not stacked: make one gradient a task "
        "with mtl_optax.task_grads, or jax.vmap of jax.grad, and pass params to "
        "update, so that this is seen at once; (2) the state was made for other "
        f"parameters, other arguments or another method, or for other tasks. {_CURE}"
    )


def _count(
    have: tuple[int, ...], wanted: tuple[int, ...], num_tasks: int
) -> int | None:
    """The number of tasks of a state that differs in nothing else; None if it does."""
    if len(have) != len(wanted):
        return None
    pairs = {(a, b) for a, b in zip(have, wanted, strict=True) if a != b}
    if len(pairs) != 1 or (pair := pairs.pop())[1] != num_tasks:
        return None
    return pair[0]
