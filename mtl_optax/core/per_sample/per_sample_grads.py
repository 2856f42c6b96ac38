"""One task a sample: lazy gradients of which a single backward pass gives all."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_optax.core.arguments.losses import differentiable, losses_and_aux
from mtl_optax.core.per_sample.computed import SampleGrads
from mtl_optax.core.per_sample.program import Backward, forward
from mtl_optax.core.task_grads.leaf_values import Values
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

    def computed(self) -> SampleGrads:
        """What makes up the gradients of all samples; one backward pass."""
        leaves, treedef = jax.tree.flatten(self.params)
        every = tuple(range(self.num_tasks))
        parts = self.backward.run()
        whole = SampleGrads(
            parts=tuple(
                Values(rows=(jnp.zeros_like(leaf),)) if part is None else part
                for part, leaf in zip(parts, leaves, strict=True)
            ),
            tasks=tuple((0,) if part is None else every for part in parts),
            leaves=tuple(leaves),
            treedef=treedef,
            num_tasks=self.num_tasks,
            losses=self.losses,
            active=self.active,
        )
        return whole if self.kept is None else whole.select(self.kept)

    def row(self, task: int) -> optax.Updates:
        """Gradient of one sample; one backward pass."""
        return self.computed().row(task)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """Weighted sum of the gradients; one backward pass, with `blocks` too."""
        return self.computed().pull(weights, blocks)

    def stack(self) -> optax.Updates:
        """All gradients, `[B, *param]`; one backward pass."""
        return self.computed().stack()

    def onto(self, params: optax.Params) -> "PerSampleGrads":
        """The same gradients as trees like `params`, whose leaves are the same."""
        return dataclasses.replace(self, params=params)


def per_sample_grads(
    losses_fn: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., Any]:
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
            return _one_a_sample(losses), aux

        losses, aux, backward = forward(flat_losses, leaves, rest)
        lazy = PerSampleGrads(losses=losses, params=params, backward=backward)
        aux = jax.tree.unflatten(aux_tree, aux)
        return ((losses, aux) if has_aux else losses), lazy

    return value_and_lazy_grads


def _one_a_sample(losses: Any) -> jax.Array:
    """The losses, if they are an array `[B]`."""
    if not hasattr(losses, "shape") or jnp.ndim(losses) != 1:
        kind = f"shape {losses.shape}" if hasattr(losses, "shape") else type(losses)
        raise ValueError(
            "per_sample_grads: losses_fn must return one loss a sample, an array [B]; "
            f"got {kind}. Leave out the mean over the batch, and take it over all other"
            " axes; for tasks that are no samples use mtl_optax.lazy_task_grads."
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
