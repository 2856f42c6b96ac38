"""Task gradients that have not been computed yet: losses and one linear map.

A from_losses method needs one backward pass, not T; a from_gramian method needs T
gradients but no stack of them. Neither is known before the method runs, so the
gradients travel as the linearised losses and are pulled back on demand.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial

from mtl_optax.core.arguments.losses import loss_of, stack_losses
from mtl_optax.core.task_rows import TaskRows
from mtl_optax.core.trees.leaves import only


class Features(NamedTuple):
    """The representation z between parameters and losses; internal to the library."""

    value: Any  # z
    gradients: "LazyTaskGrads"  # of the losses with respect to z
    trunk: Any  # tangent of the parameters -> tangent of z
    heads: Any  # tangent of the parameters -> tangent of the losses, z held still


_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LazyTaskGrads:
    r"""Per-task gradients, pulled back when a method asks for them.

    Made by :func:`mtl_optax.lazy_task_grads` and :func:`mtl_optax.feature_task_grads`;
    every method takes one in place of stacked gradients. With the losses
    :math:`L(\theta)\in R^T` linearised as :math:`J`, `row(t)` is :math:`J^\top e_t` and
    `pull(w)` is :math:`J^\top w`, each one backward pass.

    It is a pytree, so it may cross `jax.jit`, but it is not a tree *of gradients*: a
    transformation that stands before the method (scaling, clipping, Adam) has nothing
    to map over, and raises a TypeError about `key<...>` dtypes or a tree mismatch.

    Attributes (the others are internal to the library):
      losses: `[T]`, the task losses (means over `axis_name`, where one was given).
      gramian: `[T, T]` to use in place of the parameter Gramian, or None.
      features: for `graddrop(at="features")`; None but from `feature_task_grads`.
      num_tasks: T.
    """

    # Arithmetic on a typed key raises: whoever maps over this tree as if its leaves
    # were gradients finds out at once, for it comes first.
    seal: jax.Array = dataclasses.field(default_factory=lambda: jax.random.key(0))
    losses: jax.Array
    gramian: jax.Array | None = None
    features: Features | None = None
    primal: Any  # the losses as the user's function returned them
    pushforward: Any  # tangent of the parameters -> tangent of `primal`
    params: optax.Params
    axis_name: Any = dataclasses.field(default=None, metadata=_STATIC)
    chunk_size: int | None = dataclasses.field(default=None, metadata=_STATIC)
    # Leaves that `select` left; None: all.
    kept: tuple[bool, ...] | None = dataclasses.field(default=None, metadata=_STATIC)

    @property
    def num_tasks(self) -> int:
        """T."""
        return self.losses.shape[0]

    def row(self, task: int) -> optax.Updates:
        """Gradient of one task: `[*param]` leaves; one backward pass."""
        return self._finish(self._transpose(lambda out: loss_of(out, task)))

    def rows(self) -> TaskRows:
        """All T gradients as T trees; T backward passes, no stack."""
        num_tasks, size = self.num_tasks, self.chunk_size or 1
        if size == 1:
            return TaskRows(tuple(self.row(t) for t in range(num_tasks)))
        one_hot = jnp.eye(num_tasks, dtype=self.losses.dtype)
        trees: list[optax.Updates] = []
        for start in range(0, num_tasks, size):
            chunk = jax.vmap(self.pull)(one_hot[start : start + size])
            length = min(size, num_tasks - start)
            trees += [jax.tree.map(lambda x, i=i: x[i], chunk) for i in range(length)]
        return TaskRows(tuple(trees))

    def stack(self) -> optax.Updates:
        """All T gradients as one tree of `[T, *param]` leaves; T backward passes."""
        return jax.tree.map(lambda *rows: jnp.stack(rows), *self.rows().trees)

    def pull(self, weights: jax.Array) -> optax.Updates:
        """Weighted sum of the T gradients; one backward pass."""
        # Without this cast a float64 weight would promote the whole backward pass.
        weights = weights.astype(self.losses.dtype)
        return self._finish(
            self._transpose(lambda out: jnp.sum(stack_losses(out) * weights))
        )

    def pull_features(self, cotangent: Any) -> optax.Updates:
        """Gradient for a cotangent of the features; one backward pass of the trunk."""
        assert self.features is not None
        (gradient,) = jax.linear_transpose(self.features.trunk, self.params)(cotangent)
        return self._finish(gradient)

    def heads(self) -> "LazyTaskGrads":
        """The part of the gradients that does not go through the features."""
        assert self.features is not None
        return dataclasses.replace(
            self, pushforward=self.features.heads, gramian=None, features=None
        )

    def select(self, kept: tuple[bool, ...]) -> "LazyTaskGrads":
        """The same gradients on the kept leaves only; others become MaskedNode.

        `kept` has one bool for each leaf of `like()`.
        """
        if self.kept is not None:
            rest = iter(kept)
            kept = tuple(keep and next(rest) for keep in self.kept)
        return dataclasses.replace(self, kept=kept)

    def onto(self, params: optax.Params) -> "LazyTaskGrads":
        """The same gradients as trees like `params`, whose leaves are the same."""
        grow = partial(_in_the_old_tree, jax.tree.structure(self.params))
        features = self.features
        if features is not None:
            features = features._replace(
                trunk=Partial(grow, features.trunk), heads=Partial(grow, features.heads)
            )
        return dataclasses.replace(
            self,
            pushforward=Partial(grow, self.pushforward),
            params=params,
            features=features,
        )

    def mean(self, tree: Any) -> Any:
        """Mean over `axis_name`, or the tree as it is without one."""
        return mean_over(tree, self.axis_name)

    def like(self) -> optax.Params:
        """A tree of arrays shaped like one row; nothing is computed."""
        return self._keep(self.params)

    def _transpose(self, scalar_of: Any) -> optax.Updates:
        # Transposing one output, rather than feeding a vector of cotangents with zeros
        # in it, never touches the other tasks: neither their heads' cost nor a NaN.
        def tangent(params: optax.Params) -> jax.Array:
            return scalar_of(self.pushforward(params))

        # Made from the loss itself, so that inside jax.shard_map it varies like it.
        like = scalar_of(self.primal)
        one = jnp.where(like == like, jnp.ones_like(like), 1)
        (gradient,) = jax.linear_transpose(tangent, self.params)(one)
        return gradient

    def _finish(self, gradient: optax.Updates) -> optax.Updates:
        return self.mean(self._keep(gradient))

    def _keep(self, tree: Any) -> Any:
        return tree if self.kept is None else only(tree, self.kept)


def _in_the_old_tree(treedef: Any, pushforward: Any, tangent: Any) -> Any:
    return pushforward(jax.tree.unflatten(treedef, jax.tree.leaves(tangent)))


def as_stacked(task_gradients: Any) -> optax.Updates:
    """Stacked gradients `[T, *param]`; lazy ones are pulled back and stacked."""
    lazy = isinstance(task_gradients, LazyTaskGrads)
    return task_gradients.stack() if lazy else task_gradients


def one_tree(task_gradients: Any) -> optax.Updates:
    """A tree with the leaves of one task's gradients, or of the stack."""
    lazy = isinstance(task_gradients, LazyTaskGrads)
    return task_gradients.like() if lazy else task_gradients


def mean_over(tree: Any, axis_name: Any) -> Any:
    """Mean over a mapped axis (data parallelism), or the tree as it is for None."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)
