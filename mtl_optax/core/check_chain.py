"""check_chain: finds a misplaced part of a chain before any training."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.checks import static_int
from mtl_optax.core.chains import messages
from mtl_optax.core.chains.asked import Asked
from mtl_optax.core.chains.probing import CannotTell
from mtl_optax.core.chains.state_parts import (
    check_nothing_optimises_twice,
    only_methods,
)
from mtl_optax.core.task_grads.as_task_grads import as_task_grads, is_lazy
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.weighting import check_transformation


def check_chain(
    tx: optax.GradientTransformation,
    params: optax.Params,
    num_tasks: int,
    *,
    gradients: Any = None,
    **extra_args: Any,
) -> None:
    """Raises if a part of a chain stands in the wrong place.

    It traces `tx.init` and one `tx.update` on gradients of the right shapes
    (`jax.eval_shape`), and looks at what no method can see from inside: state whose
    shape changes, updates that come out stacked, wrappers around, a second optimiser.
    Then it tries what stands before each method, and behind one inside
    :func:`mtl_optax.on_shared`, on a few numbers: all that may stand there multiplies
    each entry by a number that depends neither on other entries nor on the parameters.
    Clipping, weight decay, noise or normalisation before a method do not, and act on
    all tasks at once.

    Args:
      tx: the whole transformation, as it will be given to the training loop.
      params: the parameters, or a tree of `jax.ShapeDtypeStruct` like them.
      num_tasks: T, a Python int.
      gradients: what the training loop will pass to `tx.update`, stacked or lazy, or a
        tree of `jax.ShapeDtypeStruct` like it. Give it to have its shapes compared with
        those of the parameters: where each leaf begins with an axis of length T anyway
        (layers stacked for `jax.lax.scan`), gradients that are not stacked go through
        any method that gets no `params`. None: stacked gradients of the right shapes.
      **extra_args: whatever else `tx.update` will get. What is missing of `losses`,
        `losses_fn`, `validation_losses_fn`, `epoch`, and `value`, `grad`, `value_fn`,
        `grad_fn` of optax is made up where the chain asks for it; so are names of
        tasks.

    Returns:
      None, if it found nothing. It warns if a wrapper calls a method without `params`,
      so that this cannot tell gradients that are not stacked.

    Raises:
      ValueError: naming the misplaced part and the cure.

    Cost: two traces, and one small program for each chain that holds a method: it has
    only what stands before the methods, at the parameters' shapes, or at axes cut to
    three where there are more than 100,000 numbers. Call it once, before training.

    When not to use it: in the training step. It cannot see what acts from the third
    step on only; nor what stands before a method that runs neither on other parameters
    nor on cut ones; nor a stateless optimiser, such as `optax.sgd` without momentum,
    after a method that contains its own: it looks like `optax.scale`, which may stand
    there.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> params = {"w": jnp.zeros(3)}
      >>> mtl.check_chain(optax.chain(mtl.mgda(2), optax.adam(1e-3)), params, 2)
      >>> mtl.check_chain(optax.adam(1e-3), params, 2)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: check_chain: the updates come out stacked ... no aggregator ...
    """
    num_tasks = static_int("num_tasks", num_tasks)
    check_params("check_chain", params, complex_too=True)
    check_transformation("check_chain", tx)
    if gradients is None:
        gradients = _stacked(params, num_tasks)
    else:
        _check_gradients(gradients, params, num_tasks)
    asked = Asked(optax.with_extra_args_support(tx), params, num_tasks, extra_args)
    state = jax.eval_shape(tx.init, params)
    updates, new_state = asked.trace(state, gradients)
    _check_updates(asked, updates)
    _check_state(state, new_state)
    check_nothing_optimises_twice(state)
    _check_places(asked)
    if asked.params_dropped:
        warnings.warn(messages.PARAMS_DROPPED, stacklevel=2)


def _stacked(params: Any, num_tasks: int) -> Any:
    def shape(p: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num_tasks, *jnp.shape(p)), jnp.result_type(p))

    return jax.tree.map(shape, params)


def _check_gradients(gradients: Any, params: Any, num_tasks: int) -> None:
    def check(gradients: Any) -> None:
        as_task_grads(gradients, num_tasks, params)

    try:
        if is_lazy(gradients):
            check(gradients)
        else:
            jax.eval_shape(check, gradients)
    except ValueError as error:
        raise ValueError(f"check_chain: gradients= do not fit. {error}") from error


def _check_places(asked: Asked) -> None:
    """Probes the chain, and then whatever wrappers of ours hold."""
    try:
        seen = asked.probe()
    except CannotTell:
        return
    if not seen.before:
        raise ValueError(messages.before(asked.names_of_parts()))
    if asked.within is not None and not seen.behind:
        raise ValueError(messages.behind(asked.within, only_methods(asked.within)))
    for inner, within, shapes in seen.inner:
        _check_places(asked.of(inner, within, shapes))


def _check_updates(asked: Asked, updates: Any) -> None:
    found = jax.tree_util.tree_leaves_with_path(updates)
    leaves = jax.tree.leaves(asked.params)
    if len(found) != len(leaves):
        raise ValueError(messages.leaves(len(found), len(leaves)))
    wrong = [
        jax.tree_util.keystr(path)
        for (path, update), param in zip(found, leaves, strict=True)
        if update.shape != jnp.shape(param)
    ]
    if not wrong:
        return
    try:
        seen = asked.probe(look_behind=True)
    except CannotTell:
        seen = None
    zero = [path for path in wrong if seen and not jnp.any(seen.updates[path])]
    same = [path for path in wrong if seen and seen.passes(path)]
    if len(wrong) == len(leaves) and len(zero) < len(leaves) and not asked.methods:
        raise ValueError(messages.NO_METHOD)
    raise ValueError(messages.come_out_stacked(wrong, zero, same))


def _check_state(before: Any, after: Any) -> None:
    old = jax.tree_util.tree_leaves_with_path(before)
    new = jax.tree.leaves(after)
    if len(old) != len(new):
        raise ValueError(
            "check_chain: the optimizer state changes its structure in one update, so "
            "jax.lax.scan and jit cannot carry it."
        )
    for (path, was), now in zip(old, new, strict=True):
        name = jax.tree_util.keystr(path)
        if was.shape != now.shape:
            raise ValueError(messages.state_grows(name, was.shape, now.shape))
        if was.dtype != now.dtype:
            raise ValueError(messages.state_changes_dtype(name, was.dtype, now.dtype))
