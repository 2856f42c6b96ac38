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
from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_products import leaf_gramian, weighted_sum
from mtl_optax.core.task_grads.leaf_values import largest_of
from mtl_optax.core.trees.task_axis import mix_tasks


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["d", "x"],
    meta_fields=["batch", "d_first", "like", "views", "by_rows", "axis_name"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """`G_t = X' D_t`, with e such products side by side; rows R are summed over."""

    d: jax.Array  # [T, *e, R, *n]
    x: jax.Array  # [*e, R, *m]
    batch: int  # number of axes e
    d_first: bool  # G is [*e, *n, *m], else [*e, *m, *n]
    like: Any  # precision and dtype of the product
    views: Views
    by_rows: bool  # whether the Gramian is taken from products R x R
    axis_name: Any = None  # gradients are means over it

    def sizes(self) -> Sizes:
        """What its cost depends on."""
        x, d = jax.eval_shape(self._flat)
        return Sizes(x.shape[0], d.shape[0], x.shape[1], x.shape[2], d.shape[3])

    def gramian(self) -> jax.Array:
        """Of rows that are numbers."""
        gramian, sizes = self.normal()
        return gramian * sizes[:, None] * sizes[None, :]

    def normal(self) -> tuple[jax.Array, jax.Array]:
        """By rows, or from the products, which are not kept."""
        used = self._without_unused_rows()
        of_d, of_x = used._size(self.d), used._size(used.x[None])[0]
        sizes = of_d * of_x
        if self.by_rows:
            return row_gramian(*used._flat(), of_x, of_d, self.axis_name), sizes
        whole = used
        if jnp.finfo(self.d.dtype).maxexp < jnp.finfo(jnp.float32).maxexp:
            whole = used._cast(used.d.astype(of_d.dtype))
        whole = dataclasses.replace(whole, x=whole.x / of_x.astype(whole.x.dtype))
        # Whatever rearranges a gradient afterwards leaves its products as they are.
        each = tuple(
            whole._product(d) / size.astype(whole.d.dtype)
            for d, size in zip(whole.d, of_d, strict=True)
        )
        return leaf_gramian(mean_over(each, self.axis_name)), sizes

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """One product, of D weighted first."""
        return self._gradient(weighted_sum(self.d, weights, active))

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> "Product":
        """Of D, in the dtype of the combinations."""
        return self._cast(mix_tasks(combinations.T, self.d, active))

    def _cast(self, d: jax.Array) -> "Product":
        """With this D, all in its dtype."""
        like = tuple((key, d.dtype if "type" in key else v) for key, v in self.like)
        return dataclasses.replace(self, d=d, x=self.x.astype(d.dtype), like=like)

    def row(self, i: int) -> jax.Array:
        """The product of one task."""
        return self._gradient(self.d[i])

    def stack(self) -> jax.Array:
        """The products, one after the other."""
        return lax.map(self._gradient, self.d)

    def _product(self, d: jax.Array) -> jax.Array:
        batch, rows = tuple(range(self.batch)), (self.batch,)
        pair = (d, self.x) if self.d_first else (self.x, d)
        numbers = ((rows, rows), (batch, batch))
        return lax.dot_general(*pair, numbers, **dict(self.like))

    def _gradient(self, d: jax.Array) -> Any:
        return mean_over(seen_as(self._product(d), self.views), self.axis_name)

    def _without_unused_rows(self) -> "Product":
        """With zero for rows of X that no task reads.

        Padding with huge numbers would make X so large that its other rows vanish.
        """
        largest = jnp.max(largest_of(self.d, self.batch + 2), axis=0)  # [*e, R]
        used = (largest != 0).astype(self.x.dtype)
        mask = used.reshape(used.shape + (1,) * (self.x.ndim - used.ndim))
        return dataclasses.replace(self, x=self.x * mask)

    def _size(self, rows: jax.Array) -> jax.Array:
        largest = largest_of(rows)
        if self.axis_name is not None:
            largest = lax.pmax(largest, self.axis_name)
        return power_of_two(largest)

    def _flat(self) -> tuple[jax.Array, jax.Array]:
        """X `[e, R, m]` and D `[T, e, R, n]`."""
        many, rows = self.x.shape[: self.batch], self.x.shape[self.batch]
        e, tasks = math.prod(many), self.d.shape[0]
        m = math.prod(self.x.shape[self.batch + 1 :])
        n = math.prod(self.d.shape[self.batch + 2 :])
        return self.x.reshape(e, rows, m), self.d.reshape(tasks, e, rows, n)
