"""Checks of gradients that a user hands over. Each error names the cause and the cure.

Gradients that are not stacked are the field's commonest silent bug: an aggregator would
average over a parameter axis and train nonsense.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

KEEP_OUT = (
    "Give losses_fn, tx.init and tx.update only what is trained, real floating point "
    "arrays, and hold the rest aside: for a dict of parameters trained = {'w': "
    "params['w']}, with losses_fn(trained) putting both together again, {**params, "
    "**trained}; with Equinox eqx.partition(model, eqx.is_inexact_array) and "
    "eqx.combine; with Flax NNX nnx.split(model, nnx.Param, ...), nnx.merge and "
    "nnx.Optimizer(..., wrt=nnx.Param). (optax.partition and optax.masked come too "
    "late: they still differentiate the leaf. Complex leaves may be split into two "
    "real ones, optax.contrib.split_real_and_imaginary.)"
)


def check_params(caller: str, params: Any, *, complex_too: bool = False) -> None:
    """Raises for a leaf of the parameters that has no gradient of real numbers.

    `complex_too` where a part of a chain may split complex ones.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        kind = _kind(leaf)
        if kind is not None and not (complex_too and kind.startswith("of dtype c")):
            name = jax.tree_util.keystr(path)
            where = f"leaf {name} of the parameters is" if name else "params is"
            raise ValueError(f"{caller}: {where} {kind}. {KEEP_OUT}")


def _kind(leaf: Any) -> str | None:
    """What a leaf is that cannot be trained; None for real floating point numbers."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None and isinstance(leaf, (bool, int, float, complex)):
        dtype = jnp.result_type(leaf)
    if dtype is None:
        named = getattr(leaf, "__name__", "")
        return f"no array but a {type(leaf).__name__} {named}".rstrip()
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return f"a random key of dtype {dtype}"
    return None if jnp.issubdtype(dtype, jnp.floating) else f"of dtype {dtype}"


def check_stacked(updates: Any, num_tasks: int, params: optax.Params | None) -> None:
    """Raises unless every leaf is `[num_tasks, *param.shape]`."""
    _check_leaves(updates, (num_tasks,), params)


def check_lazy(
    like: Any, carried: int, num_tasks: int, params: optax.Params | None
) -> None:
    """Raises unless gradients `like` this row, of so many tasks, are of `params`."""
    if carried != num_tasks:
        raise ValueError(
            f"Lazy task gradients carry {carried} tasks, but the method was built with "
            f"num_tasks={num_tasks}: make both agree."
        )
    _check_leaves(like, (), params)


def _check_leaves(
    updates: Any, lead: tuple[int, ...], params: optax.Params | None
) -> None:
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
            f"dtype {dtype}. {KEEP_OUT}"
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
