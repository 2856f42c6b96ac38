"""Guards of `update`: the gradients and extra arguments that a user hands over.

Shapes and dtypes are checked while tracing, so a guard costs nothing in the compiled
step. Each error names the cause and the cure.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.losses import stack_losses
from mtl_optax.core.lazy import LazyTaskGrads


def losses_vector(losses: Any, updates: Any, num_tasks: int) -> jax.Array | None:
    """The extra argument `losses` as `[T]`; lazy gradients bring theirs; else None."""
    if losses is None and isinstance(updates, LazyTaskGrads):
        losses = updates.losses
    if losses is None:
        return None
    stacked = stack_losses(losses)
    if stacked.shape != (num_tasks,):
        raise ValueError(
            f"losses= has {stacked.shape[0]} entries, but num_tasks={num_tasks}. Pass "
            "one loss a task; for a task absent from this batch pass any number and "
            "set its entry of active= to False."
        )
    return stacked.astype(jnp.result_type(float))


def gramian_like(name: str, value: Any, recorded: jax.Array | None) -> jax.Array | None:
    """An extra argument in place of the Gramian, shaped like the one in the state."""
    if value is None or recorded is None:
        return None
    gramian = jnp.asarray(value)
    if gramian.shape != recorded.shape:
        raise ValueError(
            f"{name}= must have shape {recorded.shape}, inner products of all pairs of "
            f"task gradients; got shape {gramian.shape}."
        )
    return gramian.astype(recorded.dtype)


def active_mask(active: Any, num_tasks: int) -> jax.Array | None:
    """Returns `active` as a boolean vector `[T]`, or None."""
    if active is None:
        return None
    mask = jnp.asarray(active)
    if mask.shape != (num_tasks,) or mask.dtype != jnp.bool_:
        raise ValueError(
            f"active= must be a boolean vector of shape ({num_tasks},), True for the "
            f"tasks present in this step; got shape {mask.shape} and dtype "
            f"{mask.dtype}. Use for example active=jnp.array(present, dtype=bool)."
        )
    return mask


def task_gradients(updates: Any, num_tasks: int, params: optax.Params | None) -> None:
    """Raises unless every leaf of `updates` is `[num_tasks, *param.shape]`.

    Gradients that are not stacked are the field's commonest silent bug: an aggregator
    would average over a parameter axis and train nonsense.
    """
    lead: tuple[int, ...] = (num_tasks,)
    if isinstance(updates, LazyTaskGrads):
        if updates.num_tasks != num_tasks:
            raise ValueError(
                f"Lazy task gradients carry {updates.num_tasks} tasks, but the method "
                f"was built with num_tasks={num_tasks}: make both agree."
            )
        updates, lead = updates.like(), ()
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    shapes: list[Any] = [None] * len(leaves)
    if params is not None:
        _same_leaves(updates, params)
        shapes = [jnp.shape(p) for p in jax.tree.leaves(params)]
    for (path, leaf), shape in zip(leaves, shapes, strict=True):
        name = jax.tree_util.keystr(path) or "updates"
        _real_floating(name, leaf)
        _leading_axis(name, jnp.shape(leaf), lead, shape)


def _same_leaves(updates: optax.Updates, params: optax.Params) -> None:
    # MaskedNode (optax.partition) and None have no leaves, so leaves decide.
    ours, theirs = len(jax.tree.leaves(updates)), len(jax.tree.leaves(params))
    if ours != theirs:
        raise ValueError(
            f"Task gradients have {ours} leaves, params {theirs}. Both must be one "
            "tree; the gradients carry a leading task axis on every leaf. Gradients: "
            f"{jax.tree.structure(updates)}. Params: {jax.tree.structure(params)}."
        )


def _real_floating(path: str, leaf: Any) -> None:
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"Task gradients must be real floating point numbers, but leaf {path} has "
            f"dtype {dtype}. Keep integer and complex leaves out of the optimised "
            "parameters (optax.partition), or split complex ones into two real leaves "
            "(optax.contrib.split_real_and_imaginary)."
        )


def _leading_axis(
    name: str, shape: tuple[int, ...], lead: tuple[int, ...], param_shape: Any
) -> None:
    if param_shape is None:
        if shape[: len(lead)] == lead:
            return
        expected, beside = f"({lead[0]}, *param.shape)", ""
    else:
        if shape == (*lead, *param_shape):
            return
        expected, beside = f"{(*lead, *param_shape)}", f"; its parameter {param_shape}"
    if not lead:
        raise ValueError(
            f"Lazy task gradients of {name} have shape {shape}{beside}: they were made "
            "for other parameters."
        )
    raise ValueError(
        f"Leaf {name} of the task gradients has shape {shape}{beside}. Expected "
        f"{expected} with num_tasks={lead[0]}. {_cause(shape, lead[0], param_shape)}"
    )


def _cause(shape: tuple[int, ...], num_tasks: int, param_shape: Any) -> str:
    if param_shape is not None and shape[1:] == tuple(param_shape) and shape:
        return (
            f"The gradients were stacked over {shape[0]} tasks, the method was built "
            f"for {num_tasks}: make both agree. (A task absent from a batch stays in "
            "the stack and is switched off with active=.)"
        )
    return (
        "Likely causes: (1) the gradients are not stacked: make one gradient a task "
        "with mtl_optax.task_grads, or jax.vmap of jax.grad; (2) another task count; "
        "(3) optax.MultiSteps, or another wrapper around this method, handed over "
        "gradients that are not stacked: accumulate with mtl_optax.accumulate_tasks "
        "instead, or put MultiSteps after the method."
    )
