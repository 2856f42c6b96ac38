"""One weight's task gradients as the factors of their last product."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.layerwise.forms import Sizes
from mtl_optax.core.layerwise.views import Views, seen_as
from mtl_optax.core.task_grads.data_axis import mean_over
from mtl_optax.core.task_grads.factor_gramian import row_gramian
from mtl_optax.core.task_grads.leaf_products import weighted_sum
from mtl_optax.core.trees.replicated import left_to_xla
from mtl_optax.core.trees.task_axis import mix_tasks


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["d", "x"],
    meta_fields=["batch", "rows", "d_first", "like", "views", "axis_name"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """`G_t = X' D_t`, with e such products side by side; rows R are summed over."""

    d: jax.Array  # [T, *e, *R, *n]
    x: jax.Array  # [*e, *R, *m]
    batch: int  # number of axes e
    rows: int  # and R, which stay apart: one may be cut over a mesh
    d_first: bool  # G is [*e, *n, *m], else [*e, *m, *n]
    like: Any  # precision and dtype of the product
    views: Views
    axis_name: Any = None  # gradients are means over it

    def sizes(self) -> Sizes:
        """What its cost depends on."""
        tasks, kept = self.d.shape[0], self.batch + self.rows
        parts = (
            self.x.shape[: self.batch],
            self.x.shape[self.batch : kept],
            self.x.shape[kept:],
            self.d.shape[kept + 1 :],
        )
        e, *others = map(math.prod, parts)
        return Sizes(e, tasks, *others)

    def gramian(self) -> jax.Array:
        """Of rows that are numbers."""
        gramian, sizes = self.normal()
        return gramian * sizes[:, None] * sizes[None, :]

    def normal(self) -> tuple[jax.Array, jax.Array]:
        """By rows."""
        of = partial(row_gramian, self.batch, self.rows, self.axis_name)
        return left_to_xla(of, self.x, self.d)

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """One product, of D weighted first; rounded once, to the gradient's dtype."""
        kind = jnp.promote_types(self.d.dtype, jnp.float32)
        summed = weighted_sum(self.d, weights, active, kind)
        gradient = seen_as(self._in(kind)._product(summed), self.views, rounded=False)
        dtype = jax.eval_shape(lambda: self._gradient(self.d[0])).dtype
        return mean_over(gradient.astype(dtype), self.axis_name)

    def pulled_again(
        self, update: jax.Array, weights: jax.Array, active: jax.Array | None
    ) -> jax.Array:
        """As it was: a product is in memory in any case."""
        del weights, active
        return update

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> "Product":
        """Of D, in the dtype of the combinations."""
        d = mix_tasks(combinations.T, self.d, active)
        return dataclasses.replace(self._in(d.dtype), d=d)

    def row(self, i: int) -> jax.Array:
        """The product of one task."""
        return self._gradient(self.d[i])

    def stack(self) -> jax.Array:
        """The products, one after the other."""
        return lax.map(self._gradient, self.d)

    def _in(self, dtype: Any) -> "Product":
        """With products of this dtype."""
        like = tuple((key, dtype if "type" in key else v) for key, v in self.like)
        return dataclasses.replace(self, x=self.x.astype(dtype), like=like)

    def _product(self, d: jax.Array) -> jax.Array:
        batch, kept = tuple(range(self.batch)), self.batch + self.rows
        rows = tuple(range(self.batch, kept))
        pair = (d, self.x) if self.d_first else (self.x, d)
        numbers = ((rows, rows), (batch, batch))
        return lax.dot_general(*pair, numbers, **dict(self.like))

    def _gradient(self, d: jax.Array) -> Any:
        return mean_over(seen_as(self._product(d), self.views), self.axis_name)
