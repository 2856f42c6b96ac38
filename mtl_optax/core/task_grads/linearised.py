"""Task gradients that have not been computed yet: losses and one linear map.

A from_losses method needs one backward pass, not T; a from_gramian method needs inner
products of T gradients and a weighted sum, of which both come from smaller factors
where there are some. Neither is known before the method runs, so the gradients travel
as the linearised losses and are pulled back on demand.
"""

import dataclasses
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.losses import loss_of, stack_losses
from mtl_optax.core.task_grads.data_axis import local, mean_over
from mtl_optax.core.task_grads.deferred import Deferred
from mtl_optax.core.task_grads.folded import folded_losses
from mtl_optax.core.task_grads.form import Fold
from mtl_optax.core.task_grads.isolated import masked_sum, unless_nonfinite
from mtl_optax.core.task_grads.layerwise import (
    parts_of_losses,
    stacks_of_losses,
)
from mtl_optax.core.task_grads.not_a_tree import NoArithmetic, not_a_tree
from mtl_optax.core.task_grads.traced_task import row_of, rows_of
from mtl_optax.core.trees.leaves import only


@not_a_tree
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LazyTaskGrads(NoArithmetic):
    r"""Per-task gradients, pulled back when a method asks for them.

    Made by :func:`mtl_optax.lazy_task_grads` and :func:`mtl_optax.feature_task_grads`;
    every method takes one in place of stacked gradients. With the losses
    :math:`L(\theta)\in R^T` linearised as :math:`J`, `row(t)` is :math:`J^\top e_t` and
    `pull(w)` is :math:`J^\top w`, each one backward pass.

    It is no pytree: a transformation that stands before the method (scaling, clipping,
    Adam) has nothing to map over, and each step linearises the losses anew, so that a
    jitted function that it were handed to would compile at every step. Both raise a
    ValueError that says what to do: make and use it inside one jitted step.

    Attributes (the others are internal to the library):
      losses: `[T]`, the task losses (means over `axis_name`, where one was given).
      names: of the tasks, sorted, if the losses came as a dict; else None.
      num_tasks: T.
    """

    losses: jax.Array
    active: jax.Array | None = None
    primal: Any  # the losses as the user's function returned them
    pushforward: Any  # tangent of the parameters -> tangent of `primal`
    again: Any = None  # parameters -> `primal`, where that can be asked once more
    params: optax.Params
    axis_name: Any = None
    chunk_size: int | None = None
    form: str = "auto"
    names: tuple[Any, ...] | None = None
    kept: tuple[bool, ...] | None = None  # leaves that `select` left; None: all

    @property
    def num_tasks(self) -> int:
        """T."""
        return self.losses.shape[0]

    @property
    def measured(self) -> bool:
        """No, nothing is known of the gradients before they are computed."""
        return False

    def row(self, task: int) -> optax.Updates:
        """Gradient of one task: `[*param]` leaves; one backward pass."""
        row = self._row(task)
        if self.active is None:
            return row
        present = self.active[task]
        return jax.tree.map(lambda g: jnp.where(present, g, 0), row)

    def one(self, task: jax.Array) -> optax.Updates:
        """The gradient of a task whose index may be traced; one backward pass."""
        row = row_of(self._losses_of, self._ones(), self.params, self._again, task)
        if row is None:
            alone = jnp.arange(self.num_tasks) == task
            active = alone if self.active is None else alone & self.active
            # Their sum with the others left out, whose NaN stays where it is.
            return dataclasses.replace(self, active=active).pull(alone.astype(float))
        row = self._keep(mean_over(row, self.axis_name))
        if self.active is None:
            return row
        present = self.active[task]
        return jax.tree.map(lambda g: jnp.where(present, g, 0), row)

    def some(self, chosen: jax.Array) -> optax.Updates:
        """All rows, those of tasks that are not chosen `[T]` zero and not computed."""
        chosen = chosen if self.active is None else chosen & self.active
        rows = rows_of(self._losses_of, self._ones(), self.params, self._again, chosen)
        return self._keep(mean_over(rows, self.axis_name))

    def computed(self) -> Any:
        """All T gradients layer by layer, as factors where these are smaller."""
        whole = self._layer_by_layer(parts_of_losses, self.form)
        return whole if self.kept is None else whole.select(self.kept)

    def stack(self) -> optax.Updates:
        """All T gradients as one tree of `[T, *param]` leaves; T backward passes."""
        whole = self._layer_by_layer(stacks_of_losses, self.chunk_size)
        return self._keep(whole.stack())

    def folded(self, total: Any, fold: Fold) -> Any:
        """A stack `[T, *param]` with these folded in, each row by itself."""
        if self.chunk_size is not None:
            return jax.tree.map(lambda x, new: fold(x, new, None), total, self.stack())
        kept = self.kept or (True,) * len(jax.tree.leaves(self.params))
        places = [at for at, keep in enumerate(kept) if keep]
        totals = dict(zip(places, jax.tree.leaves(total), strict=True))
        about = self._losses_of, self._ones(), self.params
        folded = folded_losses(*about, totals, fold, self.active, self.axis_name)
        return jax.tree.unflatten(jax.tree.structure(total), folded)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """Weighted sum of the T gradients; one backward pass (more with `blocks`).

        T more where `active` leaves a task out and the sum is not finite.
        """
        if blocks is not None:
            return self.computed().pull(weights, blocks)
        if self.active is not None:
            weights = jnp.where(self.active, weights, 0)

        # Without this cast a float64 weight would promote the whole backward pass.
        def total(out: Any) -> jax.Array:
            losses = stack_losses(out)
            return jnp.sum(losses * weights.astype(losses.dtype))

        once = self._keep(self._transpose(total))

        def apart() -> optax.Updates:
            return masked_sum(self._local_row, weights, cast(Any, self.active), once)

        return mean_over(unless_nonfinite(once, self.active, apart), self.axis_name)

    def pulled_again(self, update: optax.Updates, weights: jax.Array) -> optax.Updates:
        """The same: a backward pass is not run twice."""
        del weights
        return update

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """Inner products of all pairs `[T, T]`."""
        return self.computed().gramian(blocks)

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The Gramian in a unit in which it is finite, and that unit."""
        return self.computed().measure(blocks)

    def mix(self, combinations: jax.Array) -> Deferred:
        """S weighted sums `[S, T]` of the rows."""
        return self.computed().mix(combinations)

    def along(self, direction: optax.Updates) -> jax.Array:
        """The inner product of each gradient with a tree like one, `[T]`.

        The losses' change along it: one pass in forward mode, and no gradient.
        """
        known = iter(jax.tree.leaves(direction))
        leaves, treedef = jax.tree.flatten(self.params)
        kept = self.kept or (True,) * len(leaves)
        tangent = [
            next(known).astype(p.dtype) if keep else jnp.zeros_like(p)
            for p, keep in zip(leaves, kept, strict=True)
        ]
        here = local(jax.tree.unflatten(treedef, tangent), self.axis_name)
        change = stack_losses(self.pushforward(here)).astype(jnp.result_type(float))
        change = mean_over(change, self.axis_name)
        return change if self.active is None else jnp.where(self.active, change, 0)

    def select(self, kept: tuple[bool, ...]) -> "LazyTaskGrads":
        """The same gradients on the kept leaves only; others become MaskedNode.

        `kept` has one bool for each leaf of `like()`.
        """
        if self.kept is not None:
            rest = iter(kept)
            kept = tuple(keep and next(rest) for keep in self.kept)
        return dataclasses.replace(self, kept=kept)

    def at_parameters(self) -> "LazyTaskGrads":
        """These: their Gramian is that of the parameters."""
        return self

    def as_updates(self) -> "LazyTaskGrads":
        """These: every method takes them."""
        return self

    def onto(self, params: optax.Params) -> "LazyTaskGrads":
        """The same gradients as trees like `params`, whose leaves are the same."""
        pushforward = self._grown(self.pushforward)
        return dataclasses.replace(self, pushforward=pushforward, params=params)

    def like(self) -> optax.Params:
        """A tree of arrays shaped like one row; nothing is computed."""
        return self._keep(self.params)

    def _grown(self, pushforward: Any) -> Any:
        old = jax.tree.structure(self.params)
        return partial(_in_the_old_tree, old, pushforward)

    def _row(self, task: int) -> optax.Updates:
        return mean_over(self._local_row(task), self.axis_name)

    def _local_row(self, task: int) -> optax.Updates:
        return self._keep(self._transpose(lambda out: loss_of(out, task)))

    def _layer_by_layer(self, parts_of: Any, how: Any) -> Deferred:
        leaves = parts_of(
            self._losses_of, self._ones(), self.params, how, self.axis_name
        )
        return Deferred(
            leaves=tuple(leaves),
            treedef=jax.tree.structure(self.params),
            num_tasks=self.num_tasks,
            names=self.names,
            losses=self.losses,
            active=self.active,
        )

    def _transpose(self, scalar_of: Any) -> optax.Updates:
        # Transposing one output, rather than feeding a vector of cotangents with zeros
        # in it, never touches the other tasks: neither their heads' cost nor a NaN.
        def tangent(params: optax.Params) -> jax.Array:
            return scalar_of(self.pushforward(params))

        one = _one_like(scalar_of(self.primal))
        (gradient,) = jax.linear_transpose(tangent, self.params)(one)
        return gradient

    def _losses_of(self, tangent: optax.Params) -> list[jax.Array]:
        losses = self.pushforward(tangent)
        return [loss_of(losses, task) for task in range(self.num_tasks)]

    @property
    def _again(self) -> Any:
        if self.again is None:
            return None
        tasks = range(self.num_tasks)

        def losses(params: optax.Params) -> list[jax.Array]:
            out = self.again(params)
            return [loss_of(out, task) for task in tasks]

        return losses

    def _ones(self) -> list[jax.Array]:
        tasks = range(self.num_tasks)
        return [_one_like(loss_of(self.primal, task)) for task in tasks]

    def _keep(self, tree: Any) -> Any:
        return tree if self.kept is None else only(tree, self.kept)


def _one_like(loss: jax.Array) -> jax.Array:
    # Made from the loss itself, so that inside jax.shard_map it varies like it.
    return jnp.where(loss == loss, jnp.ones_like(loss), 1)


def _in_the_old_tree(treedef: Any, pushforward: Any, tangent: Any) -> Any:
    return pushforward(jax.tree.unflatten(treedef, jax.tree.leaves(tangent)))
