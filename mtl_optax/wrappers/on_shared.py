"""on_shared: the method on shared parameters, each owner's own gradient elsewhere."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.leaf_groups import groups_of_labels
from mtl_optax.core.arguments.masks import some_shared
from mtl_optax.core.arguments.names import Names, named
from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.chains.state_parts import check_keeps_no_optimiser
from mtl_optax.core.readings import task_weights
from mtl_optax.core.state_guard import check_keys
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.leaves import only
from mtl_optax.core.weighting import check_transformation

_SHARED = ""  # the one group of a mask; its state is not put into a dict


def on_shared(
    tx: optax.GradientTransformation,
    shared: optax.Params | Callable[[optax.Params], Any] | None = None,
    *,
    labels: optax.Params | Callable[[optax.Params], Any] | None = None,
    rest: str = "sum",
) -> optax.GradientTransformationExtraArgs:
    r"""Applies a method to the shared parameters only.

    .. math::
      d = \begin{cases} \text{tx}(g_1 \ldots g_T) & \text{on shared leaves} \\
      \sum_t g_t \text{ or } \sum_t w_t g_t & \text{elsewhere} \end{cases}

    On a leaf that one task owns the gradients of the others are zero, so the plain sum
    is its owner's own gradient. Where some leaves are shared by some of the tasks only,
    `labels` names the tasks of each leaf: the leaves of each subset of two or more
    tasks form a group, and `tx` runs on every group by itself, with the tasks outside
    the subset inactive.

    Args:
      tx: an aggregator for all T tasks; or a chain in which something stands before it,
        or multiplies its update by numbers of at least zero. An optimiser goes behind
        `on_shared`: inside it would act on shared leaves only, and the others climb.
      shared: tree of bools like the parameters (or a prefix of it), True where shared;
        or a function from parameters to such a tree, as in `optax.masked`.
      labels: instead of `shared`, such a tree or function with tuples of tasks, by name
        or by index in sorted order of names, that share the leaf: `{"trunk": ("a", "b",
        "c"), "mid": ("a", "b"), "head_a": "a"}`. A tuple of names is one label, also
        where the parameters are a tuple: there write `(("a",), ("b",))`.
      rest: "sum" for the plain sum on the other leaves; "weights" to multiply by the
        task weights of `tx`, as papers on loss weighting do (with `shared` only).

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, with the
      extra arguments of `tx`. Its state is that of `tx`; with `labels` a dict of one
      for each group, `{"a,b": ..., "a,b,c": ...}`, so that `task_weights(state["a,b"])`
      reads one group (random methods draw the same numbers in each).

    Raises:
      ValueError: unless exactly one of `shared` and `labels` is given; for an unknown
        `rest`, or "weights" with `labels`; in `init` if `tx` keeps state for each
        parameter as optimisers do, or is a method that contains its optimiser (what has
        no state, such as a negative scale or clipping,
        :func:`mtl_optax.check_chain` finds); in `init` or `update` for a label that is
        no tuple of different tasks, or tasks by name on some leaves and by index on
        others; in `update` for a name that is no task's, or labels that do not name all
        tasks where neither gradients nor losses have names; if gradients are not
        stacked, if `tx` holds no method, or if `rest="weights"` and it records no
        single vector of weights.

    Cost: that of `tx` on the shared leaves (of each group on its own leaves), one more
    read of the others; with lazy gradients one more backward pass down to the lowest of
    the other leaves (T more where `active` leaves out a task whose NaN got into it).
    Under `jax.jit` groups share the backward passes of lazy gradients.

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
      >>> labels = {"trunk": (0, 1), "head_a": (0,), "head_b": (1,)}
      >>> same = mtl.on_shared(mtl.mgda(num_tasks=2), labels=labels)
      >>> update, state = same.update(grads, same.init(params), params)
      >>> np.asarray(mtl.task_weights(state["0,1"])).round(4)
      array([0.6, 0.4], dtype=float32)

    References:
      Sener and Koltun 2018 aggregate shared parameters only; so do the official codes
      of CAGrad, Nash-MTL and Aligned-MTL.
    """
    if (shared is None) == (labels is None):
        raise ValueError(
            "on_shared takes exactly one of shared= (a mask: True on shared leaves) "
            "and labels= (on each leaf a tuple of the tasks that share it); got "
            f"{'neither' if shared is None else 'both'}."
        )
    checks.one_of("rest", rest, ("sum", "weights"))
    if labels is not None and rest == "weights":
        raise ValueError(
            'on_shared: rest="weights" needs one vector of weights, but with labels= '
            "each group of leaves has its own. Use shared=, or leave rest out."
        )
    check_transformation("on_shared", tx)
    inner = inside(tx, "on_shared")

    def groups_of(
        tree: optax.Params, num_tasks: int | None = None, names: Names | None = None
    ) -> dict[str, Any]:
        if labels is not None:
            return groups_of_labels(labels, tree, num_tasks, names)
        return {_SHARED: (None, some_shared(shared, tree))}

    def init(params: optax.Params) -> Any:
        check_params("tx.init", params)
        groups = groups_of(params).items()
        states = {name: inner.init(only(params, kept)) for name, (_, kept) in groups}
        for state in states.values():
            check_keeps_no_optimiser("on_shared", state, params)
        return states[_SHARED] if labels is None else states

    def update(
        updates: Any,
        state: Any,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        gradients = as_task_grads(updates, None, params, losses=losses, active=active)
        num_tasks, present = gradients.num_tasks, gradients.active
        names, like = gradients.names, gradients.like()
        groups = groups_of(like if params is None else params, num_tasks, names)

        states = {_SHARED: state} if labels is None else dict(state)
        check_keys(states, groups if labels is not None else states)
        leaves: list[Any] = [None] * len(jax.tree.leaves(like))
        for name, (tasks, kept) in groups.items():
            own = None if params is None else only(params, kept)
            those = _among(tasks, num_tasks, present)
            part = gradients.select(kept).as_updates()
            about = {"losses": losses, "active": named(those, names)}
            new, states[name] = inner.update(
                part, states[name], own, **about, **extra_args
            )
            _place(leaves, kept, new, like)
        state = states[_SHARED] if labels is None else states

        weights = jnp.ones(num_tasks) if rest == "sum" else _one_vector(state)
        if present is not None:
            weights = jnp.where(present, weights, 0)
        others = tuple(leaf is None for leaf in leaves)
        if any(others):
            _place(leaves, others, gradients.select(others).pull(weights), like)
        return jax.tree.unflatten(jax.tree.structure(like), leaves), state

    return placed(init, update, WRAPPER)


def _place(leaves: list[Any], kept: tuple[bool, ...], part: Any, like: Any) -> None:
    """Puts the leaves of `part` where they were kept."""
    where = [i for i, keep in enumerate(kept) if keep]
    shapes = [x.shape for x in jax.tree.leaves(like)]
    for i, leaf in zip(where, jax.tree.leaves(part), strict=True):
        if leaf.shape != shapes[i]:
            raise ValueError(
                f"on_shared: what is inside gives an update of shape {leaf.shape} for "
                f"a gradient of shape {shapes[i]}: there is no method in it that takes "
                "the tasks together, such as mtl_optax.cagrad(num_tasks). It comes "
                "first, and the optimiser behind on_shared: "
                "optax.chain(mtl_optax.on_shared(method, mask), optax.adam(...))."
            )
        leaves[i] = leaf


def _among(
    tasks: tuple[int, ...] | None, num_tasks: int, present: jax.Array | None
) -> jax.Array | None:
    """`active` of a group; None, which costs no masking, where it holds every task."""
    if tasks is None or len(tasks) == num_tasks:
        return present
    those = jnp.array([t in tasks for t in range(num_tasks)])
    return those if present is None else those & present


def _one_vector(state: Any) -> jax.Array:
    weights = task_weights(state)
    if weights.ndim > 1:
        raise ValueError(
            'on_shared(rest="weights"): the method has weights of its own on each '
            'leaf (granularity="leaf"), so there is no one vector for the rest.'
        )
    return weights
