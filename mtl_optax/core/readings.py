"""What a method did, read from the optimizer state through any chain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.solvers import linalg


def task_weights(opt_state: Any) -> jax.Array:
    """Task weights `[T]` of the last update, read through any chain.

    Args:
      opt_state: state of any transformation that holds one method, also inside
        `optax.chain`, `optax.partition`, `optax.inject_hyperparams`, ...

    Returns:
      `[T]`, zeros before the first update; `[L, T]` for a method with weights of its
      own on each of L leaves. At a Pareto-stationary point the weights are the
      method's, though the update was exactly zero.

    Raises:
      ValueError: if the state holds no weights (graddrop and trimmed_mean, which work
        coordinate by coordinate, have none), or several, with their paths.

    Cost: none; the method recorded them.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = optax.chain(mtl.unitary(num_tasks=2), optax.adam(1e-3))
      >>> mtl.task_weights(tx.init(jnp.zeros(3)))
      Array([0., 0.], dtype=float32)
    """
    return _the_one(opt_state, "task_weights")


def conflicts(opt_state: Any) -> jax.Array:
    r"""Cosines between the task gradients of the last update, read through any chain.

    .. math:: C_{ts} = K_{ts} / \sqrt{K_{tt} K_{ss}}

    Args:
      opt_state: as in :func:`task_weights`.

    Returns:
      `[T, T]` with unit diagonal, negative where two tasks conflict, 0 for a task
      without gradient; `[L, T, T]` for a method with a Gramian for each of L leaves.
      Those between two batches where a cross Gramian was given.
      Axes before these, of seeds or of steps that a scan recorded, stay.

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
      >>> mtl.conflicts(state).round(3)
      Array([[ 1.   , -0.707],
             [-0.707,  1.   ]], dtype=float32)
    """
    cosines = jnp.vectorize(
        lambda gramian: linalg.cosine_matrix(gramian)[0], signature="(t,t)->(t,t)"
    )
    return cosines(_the_one(opt_state, "task_gramian"))


def _the_one(opt_state: Any, name: str) -> jax.Array:
    found = [
        (jax.tree_util.keystr(path), value)
        for path, value in optax.tree.get_all_with_path(opt_state, name)
        if value is not None
    ]
    if len(found) == 1:
        return jnp.asarray(found[0][1])  # NNX wraps its state in variables
    if found:
        paths = ", ".join(path for path, _ in found)
        raise ValueError(
            f"The optimizer state holds {len(found)} values of {name}: {paths}. Pass "
            "the part of the state that belongs to one method."
        )
    families = {
        "task_weights": "all methods but graddrop and trimmed_mean, which work "
        "coordinate by coordinate and have no task weights",
        "task_gramian": "the from_gramian methods; those of the other families never "
        "form one of the task gradients",
    }
    raise ValueError(
        f"The optimizer state holds no {name}. They are recorded by {families[name]}."
    )
