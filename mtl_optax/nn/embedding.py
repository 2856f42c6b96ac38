"""Rows for dense layers out of a table's columns, and dense layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class ColumnEmbedding(nnx.Module):
    r"""The numbers of a row as they are, and for each category a learned vector.

    Args:
      numbers: N, how many columns of numbers there are; may be 0.
      categories: how many values each column of categories has; may be empty.
      sizes: of the vectors: one for all, or one for each column. None takes
        :math:`\lceil 2 \sqrt[4]{values} \rceil`, rounded up to a multiple of 4, at
        most 64.
      dtype: of the computation.
      rngs: for the tables.

    Attributes:
      features: of a row, N + the sum of the sizes.

    Raises:
      ValueError: for no columns at all; for as many sizes as no column has.

    Cost: a table of values × size numbers for each column. Their gradient is dense:
    with millions of values it dominates the step.

    When not to use it: where categories are so many that tables must be sharded or
    hashed.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import ColumnEmbedding
      >>> rows = ColumnEmbedding(2, (5, 9), sizes=3, rngs=nnx.Rngs(0))
      >>> x = {"numbers": jnp.ones((4, 2)), "categories": jnp.zeros((4, 2), int)}
      >>> rows(x).shape, rows.features
      ((4, 8), 8)

    References:
      Cheng et al., `Wide & Deep Learning for Recommender Systems
      <https://arxiv.org/abs/1606.07792>`_, 2016, its deep part.
    """

    def __init__(
        self,
        numbers: int,
        categories: Sequence[int] = (),
        *,
        sizes: int | Sequence[int] | None = None,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        if sizes is None:
            sizes = [min(-(-round(2 * n**0.25) // 4) * 4, 64) for n in categories]
        elif isinstance(sizes, int):
            sizes = [sizes] * len(categories)
        if len(sizes) != len(categories):
            raise ValueError(
                f"ColumnEmbedding: {len(sizes)} sizes for {len(categories)} columns of "
                "categories; give one number, or one for each."
            )
        self.features = numbers + sum(sizes)
        if self.features == 0:
            raise ValueError(
                "ColumnEmbedding: there are neither numbers nor categories."
            )
        self.dtype = dtype
        self.tables = nnx.List(
            [
                nnx.Embed(values, size, dtype=dtype, rngs=rngs)
                for values, size in zip(categories, sizes, strict=True)
            ]
        )

    def __call__(self, x: Mapping[str, Any]) -> jax.Array:
        """Rows `[B, features]`.

        Args:
          x: "numbers" `[B, N]` float, and "categories" `[B, C]` int, each below the
            number of values of its column; others make the row NaN.
        """
        numbers = x["numbers"]
        categories = x["categories"]
        parts = [numbers.astype(self.dtype or numbers.dtype)]
        parts += [table(categories[:, c]) for c, table in enumerate(self.tables)]
        return jnp.concatenate(parts, axis=-1)


class MLP(nnx.Module):
    """Dense layers, with ReLU after each.

    Args:
      before: features of the rows.
      widths: of each layer.
      dtype: of the computation.
      rngs: for all layers.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import MLP
      >>> MLP(3, (8, 4), rngs=nnx.Rngs(0))(jnp.ones((5, 3))).shape
      (5, 4)
    """

    def __init__(self, before: int, widths: Sequence[int], **options: Any):
        sizes = zip([before, *widths[:-1]], widths, strict=True)
        self.layers = nnx.List([nnx.Linear(*size, **options) for size in sizes])

    def __call__(self, x: Any) -> jax.Array:
        """Rows `[B, widths[-1]]`."""
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x
