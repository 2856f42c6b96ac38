"""One task a sample: lazy gradients of which a single backward pass gives all."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_optax.core.arguments.losses import differentiable, losses_and_aux
from mtl_optax.core.arguments.names import sorted_names
from mtl_optax.core.per_sample.leaves import Samples
from mtl_optax.core.per_sample.program import Backward, forward
from mtl_optax.core.task_grads.deferred import Deferred
from mtl_optax.core.task_grads.form import Fold
from mtl_optax.core.task_grads.leaf_values import OfLeaf, Part, Values
from mtl_optax.core.task_grads.linearised import LazyTaskGrads
from mtl_optax.core.task_grads.not_a_tree import not_a_tree
from mtl_optax.core.task_grads.shape_checks import check_params


@not_a_tree
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PerSampleGrads(LazyTaskGrads):
    """Lazy gradients of single samples; internal to the library."""

    backward: Backward
    primal: Any = None
    pushforward: Any = None

    def computed(self) -> Deferred:
        """What makes up the gradients of all samples; one backward pass."""
        parts = self.backward.run()
        return self._whole([p.kept() if isinstance(p, Samples) else p for p in parts])

    def _whole(self, parts: Sequence[Part | None]) -> Deferred:
        leaves, treedef = jax.tree.flatten(self.params)
        every = tuple(range(self.num_tasks))
        whole = Deferred(
            leaves=tuple(
                OfLeaf(
                    Values(rows=(jnp.zeros_like(leaf),)), (0,), leaf, "no loss has it"
                )
                if part is None
                else OfLeaf(part, every, leaf, "one backward pass for all samples")
                for part, leaf in zip(parts, leaves, strict=True)
            ),
            treedef=treedef,
            num_tasks=self.num_tasks,
            names=self.names,
            losses=self.losses,
            active=self.active,
        )
        return whole if self.kept is None else whole.select(self.kept)

    def row(self, task: int) -> optax.Updates:
        """Gradient of one sample; one backward pass."""
        return self.computed().row(task)

    def one(self, task: jax.Array) -> optax.Updates:
        """From all of them: samples come from one backward pass."""
        return self.computed().one(task)

    def some(self, chosen: jax.Array) -> optax.Updates:
        """From all of them."""
        return self.computed().some(chosen)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """Weighted sum of the gradients; one backward pass, with `blocks` too."""
        return self._whole(self.backward.run()).pull(weights, blocks)

    def along(self, direction: optax.Updates) -> jax.Array:
        """The inner product of each with a tree like one, `[B]`; one backward pass."""
        return self.computed().along(direction)

    def stack(self) -> optax.Updates:
        """All gradients, `[B, *param]`; one backward pass."""
        return self.computed().stack()

    def folded(self, total: Any, fold: Fold) -> Any:
        """All at once, leaf by leaf."""
        return self.computed().folded(total, fold)

    def onto(self, params: optax.Params) -> "PerSampleGrads":
        """The same gradients as trees like `params`, whose leaves are the same."""
        return dataclasses.replace(self, params=params)


def per_sample_grads(
    losses_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    names: Sequence[str] | None = None,
) -> Callable[..., Any]:
    r"""One task a sample: losses `[B]`, and lazy gradients of which one pass gives all.

    .. math:: K_{bs} = \langle \nabla L_b(\theta), \nabla L_s(\theta) \rangle =
      \sum_{\text{layers}} (X X^\top \circ D D^\top)_{bs}

    Where every sample has a loss of its own that no other sample takes part in, one
    backward pass of the sum of losses holds the cotangents :math:`d_b` of every layer's
    outputs for all of them. A weight's gradient of sample b is
    :math:`x_b d_b^\top`, so the Gramian needs no gradient, and neither does the
    weighted sum :math:`X^\top \operatorname{diag}(w) D`. This is instance-wise risk
    minimisation (Quinton and Rey 2024) at about the price of a plain step.

    Tasks that have a batch each, of one size, are samples too: losses `[T]` of batches
    `[T, n, ...]`, as in multi-task reinforcement learning. Each is a sample of n
    positions, whose rows may be put together for what tasks share.

    Args:
      losses_fn: `losses_fn(params, *args, **kwargs) -> losses`, an array `[B]`. Written
        for the batch, as usual, up to the mean over it; the batch may lie on any axis.
        (Or `jax.vmap` of a loss of one sample.) It must be traceable.
      has_aux: whether `losses_fn` returns `(losses, aux)`.
      names: of tasks that are samples, in the order of the batch, which must be that of
        `sorted`; what has one value a task may then be a dict by these names.

    Returns:
      A function `(params, *args, **kwargs) -> (losses [B], lazy)`, or `((losses, aux),
      lazy)` with `has_aux`; `lazy` is a :class:`LazyTaskGrads` of B tasks, which every
      method takes, as in `mtl_optax.upgrad(num_tasks=B)`. Make and use it inside one
      jitted step. A NaN stays in its sample; leave it out with `active=`.

    Raises:
      ValueError: for names that are not sorted; when called, if the losses are no array
        `[B]`, one for each name, a parameter is no array of real numbers, or samples
        depend on each other or cannot be shown not to: BatchNorm in training mode, a
        mean or a softmax over the batch, contrastive losses, sorting or shuffling it,
        an operation that is not known here. It is shown in the backward pass, while
        tracing, by following the axis of the batch from the losses' cotangent to each
        parameter; what is under `stop_gradient` does not matter. Arguments whose first
        axis is B are taken for the batch; close over one that is none and happens to
        have it.

    Cost: one forward and one backward pass, in which the weights' last products are
    left out until they are needed, once, for the weighted sum. For a Gramian by leaf,
    with m inputs, n outputs and L positions a sample, `(B L)^2 (m + n)`
    multiplications and `2 (B L)^2` numbers, or by way of the gradients
    `B L m n + B^2 m n` and `B m n` numbers, whichever is cheaper; convolutions always
    by the latter. Factors `B L (m + n)` a layer live until the weighted sum, or the
    gradients if that is at most twice as much. A method that reads single coordinates,
    or looks again (`aligned_mtl`), makes B gradients.

    When not to use it: for tasks that share rows of data; where B is so large that a
    `[B, B]` Gramian and the method's own solver cost more than the pass (upgrad above a
    few hundred); across devices, for B is the batch of one.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl
      >>> def losses_fn(params, x, y):
      ...     return (x @ params["w"] - y) ** 2
      >>> tx = mtl.mgda(num_tasks=3)
      >>> @jax.jit
      ... def update(params, state, x, y):
      ...     losses, grads = mtl.per_sample_grads(losses_fn)(params, x, y)
      ...     return tx.update(grads, state, params)
      >>> params = {"w": jnp.array([1.0, 1.0])}
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> updates, state = update(params, tx.init(params), x, jnp.zeros(3))
      >>> jnp.round(mtl.task_weights(state), 3)
      Array([0.5, 0.5, 0. ], dtype=float32)

    References:
      Quinton and Rey, `Jacobian Descent for Multi-Objective Optimization
      <https://arxiv.org/abs/2406.16232>`_, 2024, section 5. Goodfellow, `Efficient
      Per-Example Gradient Computations <https://arxiv.org/abs/1510.01799>`_, 2015.
    """
    known = None if names is None else _in_order(names)

    def value_and_lazy_grads(params: optax.Params, *args: Any, **kwargs: Any) -> Any:
        check_params("per_sample_grads", params)
        leaves, treedef = jax.tree.flatten(params)
        rest, rebuilt = _arrays((args, kwargs))
        aux_tree = None

        def flat_losses(params: list[Any], arrays: list[Any]) -> Any:
            nonlocal aux_tree
            args, kwargs = rebuilt(arrays)
            out = losses_fn(jax.tree.unflatten(treedef, params), *args, **kwargs)
            losses, aux = losses_and_aux(out, has_aux)
            aux, aux_tree = jax.tree.flatten(aux)
            return _one_a_sample(losses, known), aux

        losses, aux, backward = forward(flat_losses, leaves, rest)
        lazy = PerSampleGrads(
            losses=losses, names=known, params=params, backward=backward
        )
        aux = jax.tree.unflatten(aux_tree, aux)
        return ((losses, aux) if has_aux else losses), lazy

    return value_and_lazy_grads


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if they are different and sorted."""
    given = tuple(names)
    if given != sorted_names(set(given)):
        raise ValueError(
            f"per_sample_grads: tasks stand in sorted order of their names, each once; "
            f"got {list(given)}. Sort them, and the batches with them."
        )
    return given


def _one_a_sample(losses: Any, names: tuple[str, ...] | None) -> jax.Array:
    """The losses, if they are an array `[B]`."""
    if not hasattr(losses, "shape") or jnp.ndim(losses) != 1:
        kind = f"shape {losses.shape}" if hasattr(losses, "shape") else type(losses)
        raise ValueError(
            "per_sample_grads: losses_fn must return one loss a sample, an array [B]; "
            f"got {kind}. Leave out the mean over the batch, and take it over all other"
            " axes; for tasks that are no samples use mtl_optax.lazy_task_grads."
        )
    if names is not None and len(names) != len(losses):
        raise ValueError(
            f"per_sample_grads: {len(names)} names, {list(names)}, but losses_fn "
            f"returned {len(losses)} losses: give one of each task."
        )
    return differentiable(losses)


def _arrays(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree, and what puts others in their place."""
    leaves, treedef = jax.tree.flatten(tree)
    places = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray)]

    def rebuilt(arrays: list[Any]) -> Any:
        new = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            new[i] = array
        return jax.tree.unflatten(treedef, new)

    return [leaves[i] for i in places], rebuilt
