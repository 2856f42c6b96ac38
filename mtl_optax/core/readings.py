"""What a method did, read from the optimizer state through any chain."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.names import sorted_names
from mtl_optax.core.solvers import linalg
from mtl_optax.core.task_grads.as_task_grads import is_lazy

# What records each reading.
FAMILIES = {
    "task_weights": "the from_losses and from_gramian methods, db_mtl, excess_mtl, "
    "moco, auto_lambda, moml and forum; graddrop, sam_gs, trimmed_mean and cso_project "
    "work coordinate by coordinate, cso and selective_groups group by group, and have "
    "no task weights",
    "task_gramian": "the from_gramian methods; those of the other families never form "
    "one of the task gradients",
}


def task_weights(opt_state: Any) -> jax.Array:
    """Task weights `[T]` of the last update, read through any chain.

    Args:
      opt_state: state of any transformation that holds one method, also inside
        `optax.chain`, `optax.partition`, `optax.inject_hyperparams`, ...

    Returns:
      `[T]` in sorted order of names, zeros before the first update; `[B, T]` for a
      method with weights of its own on each of B blocks of leaves. At a
      Pareto-stationary point the weights are the method's, though the update was
      exactly zero.

    Raises:
      ValueError: if the state holds no weights (graddrop, sam_gs, trimmed_mean,
        cso_project, cso and selective_groups have none), or several, with their paths.

    Cost: none; the method recorded them.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = optax.chain(mtl.unitary(num_tasks=2), optax.adam(1e-3))
      >>> mtl.task_weights(tx.init(jnp.zeros(3)))
      Array([0., 0.], dtype=float32)
    """
    return _the_one(opt_state, "task_weights")


def task_cosines(opt_state: Any) -> jax.Array:
    r"""Cosines between the task gradients of the last update, read through any chain.

    .. math:: C_{ts} = K_{ts} / \sqrt{K_{tt} K_{ss}}

    Args:
      opt_state: as in :func:`task_weights`.

    Returns:
      `[T, T]` in sorted order of names, with unit diagonal, negative where two tasks
      conflict, 0 for a task without gradient; `[B, T, T]` for a method with a Gramian
      for each of B blocks of leaves. Those between two batches where a Gramian of two
      batches was given. Axes before these, of seeds or of steps that a scan recorded,
      stay.

    Raises:
      ValueError: if the state holds no Gramian (only from_gramian methods form one),
        or several, with their paths.

    Cost: T x T numbers; the method recorded the Gramian.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.mgda(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> mtl.task_cosines(state).round(3)
      Array([[ 1.   , -0.707],
             [-0.707,  1.   ]], dtype=float32)
    """
    cosines = jnp.vectorize(
        lambda gramian: linalg.cosine_matrix(gramian)[0], signature="(t,t)->(t,t)"
    )
    return cosines(_the_one(opt_state, "task_gramian"))


def conflicts(opt_state: Any) -> jax.Array:
    """The former name of :func:`task_cosines`, which says what it returns.

    Args:
      opt_state: as in :func:`task_cosines`.

    Returns:
      What :func:`task_cosines` returns.

    Raises:
      ValueError: as :func:`task_cosines` does.

    Cost: that of :func:`task_cosines`.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> mtl.conflicts(mtl.mgda(num_tasks=1).init(jnp.zeros(2)))
      Array([[0.]], dtype=float32)
    """
    return task_cosines(opt_state)


def task_names(losses: Any) -> tuple[Any, ...]:
    """Names of the tasks, in the order in which every `[T]` value holds them.

    Args:
      losses: what holds one value for each task: a dict by name (of losses, say), lazy
        task gradients, or a tuple, list or array `[T]`, which has no names.

    Returns:
      The sorted names of a dict, and of lazy gradients whose losses were one; else the
      indices, `(0, 1, ...)`. Names sort as Python does: "task10" before "task2".

    Raises:
      ValueError: for names of types that do not sort together; for anything that does
        not hold one value a task.

    Cost: none; nothing is computed.

    Example:
      >>> import mtl_optax as mtl
      >>> mtl.task_names({"task2": 0.1, "task10": 0.3, "lm": 2.0})
      ('lm', 'task10', 'task2')
      >>> mtl.task_names((0.1, 0.3))
      (0, 1)
    """
    if is_lazy(losses):
        return losses.names or tuple(range(losses.num_tasks))
    if isinstance(losses, Mapping):
        return sorted_names(losses)
    if isinstance(losses, (tuple, list)):
        return tuple(range(len(losses)))
    if jnp.ndim(losses) != 1:
        raise ValueError(
            "task_names: one value a task is a dict by name, a tuple, a list or an "
            f"array [T]; got an array of shape {jnp.shape(losses)}."
        )
    return tuple(range(jnp.shape(losses)[0]))


def _the_one(opt_state: Any, name: str) -> jax.Array:
    value = at_most_one(opt_state, name)
    if value is None:
        raise ValueError(
            f"The optimizer state holds no {name}. They are recorded by "
            f"{FAMILIES[name]}."
        )
    return value


def at_most_one(opt_state: Any, name: str) -> jax.Array | None:
    """The value of this name in the state, None without one; several are an error."""
    found = [
        (jax.tree_util.keystr(path), value)
        for path, value in optax.tree.get_all_with_path(opt_state, name)
        if value is not None
    ]
    if len(found) > 1:
        paths = ", ".join(path for path, _ in found)
        raise ValueError(
            f"The optimizer state holds {len(found)} values of {name}: {paths}. Pass "
            "the part of the state that belongs to one method."
        )
    # NNX wraps its state in variables.
    return jnp.asarray(found[0][1]) if found else None
