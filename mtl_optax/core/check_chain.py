"""check_chain: finds a misplaced aggregator by shapes alone, before any training."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.checks import static_int
from mtl_optax.core.chain_parts import (
    CANNOT_WRAP,
    check_nothing_optimises_twice,
    wrapper_of_everything,
)
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.weighting import check_transformation


def check_chain(
    tx: optax.GradientTransformation,
    params: optax.Params,
    num_tasks: int,
    **extra_args: Any,
) -> None:
    """Raises if an aggregator stands in the wrong place of a chain.

    Traces `tx.init` and one `tx.update` on stacked gradients of the parameters' shapes
    (`jax.eval_shape`: nothing is computed) and looks at what no aggregator can see from
    inside: state whose shape changes, updates that come out stacked, wrappers around, a
    second optimiser after a method that contains its own.

    Args:
      tx: the whole transformation, as it will be given to the training loop.
      params: the parameters, or a tree of `jax.ShapeDtypeStruct` like them.
      num_tasks: T, a Python int.
      **extra_args: whatever `tx.update` will get, for example `losses=jnp.ones(T)`.

    Returns:
      None, if it found nothing.

    Raises:
      ValueError: naming the misplaced part and the cure.

    Cost: one trace, no computation. Call it once, before training.

    When not to use it: it cannot see a *stateless* transformation before the
    aggregator, such as `optax.clip_by_global_norm`, which then clips one norm joint
    over all tasks; nor a stateless optimiser, such as `optax.sgd` without momentum,
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
    check_params("check_chain", params)
    check_transformation("check_chain", tx)
    tx = optax.with_extra_args_support(tx)
    state = jax.eval_shape(tx.init, params)
    stacked = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct((num_tasks, *jnp.shape(p)), jnp.result_type(p)),
        params,
    )
    wrapper = wrapper_of_everything(state)

    def one_update(stacked: Any, state: Any, params: Any) -> Any:
        return tx.update(stacked, state, params, **extra_args)

    try:
        # Adam before the aggregator broadcasts; we want to see it do so.
        with jax.numpy_rank_promotion("allow"):
            updates, new_state = jax.eval_shape(one_update, stacked, state, params)
    except (TypeError, ValueError) as error:
        if wrapper is None:
            raise
        raise ValueError(f"check_chain: {CANNOT_WRAP[wrapper]}") from error
    _check_updates(updates, params)
    _check_state(state, new_state)
    check_nothing_optimises_twice(state)


def _check_updates(updates: Any, params: Any) -> None:
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(updates),
        jax.tree.leaves(params),
        strict=True,
    )
    wrong = [
        jax.tree_util.keystr(path)
        for (path, update), param in pairs
        if update.shape != jnp.shape(param)
    ]
    if not wrong:
        return
    if len(wrong) == len(jax.tree.leaves(params)):
        raise ValueError(
            "check_chain: the updates come out stacked on every leaf: there is no "
            "aggregator in this transformation. optax.apply_updates would broadcast "
            "every parameter to [T, ...] in silence. Put one first: "
            "optax.chain(mtl_optax.mgda(num_tasks), ...)."
        )
    raise ValueError(
        f"check_chain: the updates of {', '.join(wrong)} come out stacked, the others "
        "do not: optax.masked around the aggregator passes the leaves outside its mask "
        "through, and optax.apply_updates would broadcast them to [T, ...] in silence. "
        "Use mtl_optax.on_shared(aggregator, mask) instead; or optax.partition, with "
        "mtl_optax.unitary(num_tasks) for the remaining leaves."
    )


def _check_state(before: Any, after: Any) -> None:
    old = jax.tree_util.tree_leaves_with_path(before)
    new = jax.tree.leaves(after)
    if len(old) != len(new):
        raise ValueError(
            "check_chain: the optimizer state changes its structure in one update, so "
            "jax.lax.scan and jit cannot carry it."
        )
    for (path, was), now in zip(old, new, strict=True):
        if was.shape != now.shape:
            raise ValueError(
                f"check_chain: the state {jax.tree_util.keystr(path)} changes shape in "
                f"one update, from {was.shape} to {now.shape}: a stateful "
                "transformation (Adam, trace, ema, ...) stands before the aggregator "
                "and mixes the tasks' gradients by broadcasting. Put the aggregator "
                "first, optax.chain(aggregator, optax.adam(...)); to run a "
                "transformation on each task's gradient use mtl_optax.per_task."
            )
        if was.dtype != now.dtype:
            raise ValueError(
                f"check_chain: the state {jax.tree_util.keystr(path)} changes dtype in "
                f"one update, from {was.dtype} to {now.dtype}, so jax.lax.scan cannot "
                "carry it. Under optax.inject_hyperparams pass "
                "hyperparam_dtype=jnp.float32."
            )
