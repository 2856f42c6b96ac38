"""on_shared: the method on shared parameters, each owner's own gradient elsewhere."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core import checks, products
from mtl_optax.core.lazy import LazyTaskGrads
from mtl_optax.core.weighting import task_weights


def on_shared(
    tx: optax.GradientTransformation,
    shared: optax.Params | Callable[[optax.Params], Any],
    *,
    rest: str = "sum",
) -> optax.GradientTransformationExtraArgs:
    r"""Applies a method to the shared parameters only.

    .. math::
      d = \begin{cases} \text{tx}(g_1 \ldots g_T) & \text{on shared leaves} \\
      \sum_t g_t \text{ or } \sum_t w_t g_t & \text{elsewhere} \end{cases}

    On a leaf that one task owns the gradients of the others are zero, so the plain sum
    is its owner's own gradient.

    Args:
      tx: an aggregator, or a chain that begins with one.
      shared: tree of bools like the parameters (or a prefix of it), True where shared;
        or a function from parameters to such a tree, as in `optax.masked`.
      rest: "sum" for the plain sum on the other leaves; "weights" to multiply by the
        task weights of `tx`, as papers on loss weighting do.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, with the
      extra arguments of `tx`.

    Raises:
      ValueError: for an unknown `rest`; in `update` if gradients are not stacked, or
        if `rest="weights"` and `tx` records no single vector of weights.

    Cost: that of `tx` on the shared leaves, one more read of the others; with lazy
    gradients one more backward pass down to the lowest of the other leaves (T passes
    there if `active` is passed, so that a NaN task stays isolated).

    When not to use it: to treat every leaf alike, leave it out; for other optimisers
    on heads use `optax.partition` with stacked gradients, which gives the same updates
    with :func:`mtl_optax.unitary` for the heads.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> params = {"trunk": jnp.zeros(2),
      ...           "head_a": jnp.zeros(1), "head_b": jnp.zeros(1)}
      >>> grads = {"trunk": jnp.array([[1.0, 0.0], [-1.0, 1.0]]),
      ...          "head_a": jnp.array([[5.0], [0.0]]),
      ...          "head_b": jnp.array([[0.0], [7.0]])}
      >>> mask = {"trunk": True, "head_a": False, "head_b": False}
      >>> tx = mtl.on_shared(mtl.mgda(num_tasks=2), mask)
      >>> update, state = tx.update(grads, tx.init(params), params)
      >>> np.asarray(update["trunk"]).round(4)
      array([0.2, 0.4], dtype=float32)
      >>> update["head_a"], update["head_b"]
      (Array([5.], dtype=float32), Array([7.], dtype=float32))

    References:
      Sener and Koltun 2018, and every official code since, aggregate shared parameters
      only.
    """
    checks.one_of("rest", rest, ("sum", "weights"))
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> Any:
        return inner.init(_only(params, _mask(shared, params)))

    def update(
        updates: Any,
        state: Any,
        params: optax.Params | None = None,
        *,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        lazy = isinstance(updates, LazyTaskGrads)
        like = updates.like() if lazy else updates
        mask = _mask(shared, like if params is None else params)
        kept = tuple(mask)
        others = tuple(not m for m in mask)
        num_tasks = updates.num_tasks if lazy else _num_tasks(updates)
        checks.task_gradients(updates, num_tasks, params)

        part = updates.select(kept) if lazy else _only(updates, kept)
        own = None if params is None else _only(params, kept)
        new, state = inner.update(part, state, own, active=active, **extra_args)

        present = checks.active_mask(active, num_tasks)
        weights = jnp.ones(num_tasks) if rest == "sum" else task_weights(state)
        if weights.ndim > 1:
            raise ValueError(
                'on_shared(rest="weights"): the method has weights of its own on each '
                'leaf (granularity="leaf"), so there is no one vector for the rest.'
            )
        if present is not None:
            weights = jnp.where(present, weights, 0)
        part = updates.select(others) if lazy else _only(updates, others)
        if lazy and present is not None:
            part = part.rows()
        plain = products.combine(part, weights, present)
        return _merge(like, mask, new, plain), state

    return optax.GradientTransformationExtraArgs(init, update)


def _mask(shared: Any, tree: Any) -> tuple[bool, ...]:
    """One bool a leaf of `tree`, from a mask tree, a prefix of one, or a function."""
    mask = shared(tree) if callable(shared) else shared
    spread = jax.tree.map(
        lambda m, part: jax.tree.map(lambda _: bool(m), part), mask, tree
    )
    return tuple(jax.tree.leaves(spread))


def _only(tree: Any, kept: tuple[bool, ...]) -> Any:
    """The tree with MaskedNode, which has no leaves, in place of those not kept."""
    leaves, treedef = jax.tree.flatten(tree)
    chosen = zip(leaves, kept, strict=True)
    return jax.tree.unflatten(
        treedef, [leaf if k else optax.MaskedNode() for leaf, k in chosen]
    )


def _merge(like: Any, mask: tuple[bool, ...], yes: Any, no: Any) -> Any:
    """Leaves of `yes` where the mask is true, of `no` elsewhere."""
    some, others = iter(jax.tree.leaves(yes)), iter(jax.tree.leaves(no))
    chosen = [next(some) if m else next(others) for m in mask]
    return jax.tree.unflatten(jax.tree.structure(like), chosen)


def _num_tasks(updates: Any) -> int:
    leaves = jax.tree.leaves(updates)
    shape = jnp.shape(leaves[0]) if leaves else ()
    return shape[0] if shape else 1
