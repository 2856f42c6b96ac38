"""The gradients of all samples, as operands of the sums that would add them up."""

from typing import cast

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.per_sample.leaves import Samples
from mtl_optax.core.task_grads.deferred import Deferred
from mtl_optax.core.task_grads.leaf_products import stack_rows
from mtl_optax.core.task_grads.leaf_values import Part, Values
from mtl_optax.core.trees.task_axis import where_active


class SampleGrads(Deferred):
    """`Deferred`, whose rows are made together."""

    def stack(self) -> optax.Updates:
        """All gradients, those of inactive samples zero."""
        stacks = [
            self._rows(*pair) for pair in zip(self.parts, self.tasks, strict=True)
        ]
        if self.active is not None:
            stacks = [where_active(self.active, x, jnp.zeros_like(x)) for x in stacks]
        return jax.tree.unflatten(self.treedef, stacks)

    def _rows(self, part: Part, tasks: tuple[int, ...]) -> jax.Array:
        if isinstance(part, Samples):
            return part.stack()
        rows = stack_rows(cast(Values, part).rows)
        some = len(tasks) == self.num_tasks  # else no sample reaches this leaf
        return (
            rows if some else jnp.zeros((self.num_tasks, *rows.shape[1:]), rows.dtype)
        )
