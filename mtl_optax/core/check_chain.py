"""check_chain: finds a misplaced aggregator by shapes alone, before any training."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.checks import static_int

# Wrappers that compare or select between what goes in and what comes out, so that an
# aggregator inside, which removes the task axis, cannot work. State class -> cure.
_CANNOT_WRAP = {
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
    tx = optax.with_extra_args_support(tx)
    state = jax.eval_shape(tx.init, params)
    stacked = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct((num_tasks, *jnp.shape(p)), jnp.result_type(p)),
        params,
    )
    wrapper = _wrapper_of_everything(state)

    def one_update(stacked: Any, state: Any, params: Any) -> Any:
        return tx.update(stacked, state, params, **extra_args)

    try:
        # Adam before the aggregator broadcasts; we want to see it do so.
        with jax.numpy_rank_promotion("allow"):
            updates, new_state = jax.eval_shape(one_update, stacked, state, params)
    except (TypeError, ValueError) as error:
        if wrapper is None:
            raise
        raise ValueError(f"check_chain: {_CANNOT_WRAP[wrapper]}") from error
    _check_updates(updates, params)
    _check_state(state, new_state)
    _contains_optimizer(state)


def _wrapper_of_everything(state: Any) -> str | None:
    """The class of a wrapping state above any other in the tree, outermost first."""
    name = type(state).__name__
    if name in _CANNOT_WRAP:
        return name
    if isinstance(state, dict):
        children: Any = state.values()
    elif isinstance(state, (tuple, list)):
        children = state
    else:
        return None
    found = [_wrapper_of_everything(child) for child in children]
    return next((name for name in found if name is not None), None)


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


def _contains_optimizer(state: Any) -> bool:
    """Whether a method in it contains its optimiser; raises if another one follows."""
    if getattr(type(state), "contains_optimizer", False):
        return True
    if isinstance(state, dict):
        children: Any = state.values()
    elif isinstance(state, (tuple, list)):
        children = state
    else:
        return False
    found = False
    for child in children:
        # A chain's state is a plain tuple, in order; fields of a state have no order.
        if found and type(state) is tuple:
            _check_keeps_no_moments(child)
        found |= _contains_optimizer(child)
    return found


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
