"""The parts of soft modularisation: parallel modules, their mixtures, the routes."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

Array = jax.Array


def mix(routing: Array, outputs: Array) -> Array:
    """Inputs of the next modules: means of the outputs of these, one a row.

    Args:
      routing: `[..., m, n]`, rows that sum to one, over the n modules before.
      outputs: `[..., n, d]`.

    Returns:
      `[..., m, d]`.
    """
    return jnp.einsum("...ij,...jd->...id", routing.astype(outputs.dtype), outputs)


def hidden(d_out: int) -> dict[str, Any]:
    """Initialisers of a hidden layer: the authors scale by the width it writes."""
    constant = nnx.initializers.constant(0.1)
    return {"kernel_init": _uniform(d_out**-0.5), "bias_init": constant}


def small() -> dict[str, Any]:
    """Initialisers of a layer whose outputs are nearly zero at first."""
    return {"kernel_init": _uniform(3e-3), "bias_init": _uniform(3e-3)}


def _uniform(bound: float) -> Any:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


class ParallelLinear(nnx.Module):
    """n linear layers side by side, kernel `[n, d_in, d_out]` and bias `[n, d_out]`."""

    def __init__(
        self,
        n: int,
        d_in: int,
        d_out: int,
        *,
        kernel_init: Any,
        bias_init: Any,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.kernel = nnx.Param(kernel_init(rngs.params(), (n, d_in, d_out)))
        self.bias = nnx.Param(bias_init(rngs.params(), (n, d_out)))

    def __call__(self, x: Array) -> Array:
        """Outputs `[..., n, d_out]` for inputs of each layer, `[..., n, d_in]`."""
        x, kernel, bias = promote_dtype(
            (x, self.kernel[...], self.bias[...]), dtype=self.dtype
        )
        y = jnp.einsum("...nd,nde->...ne", x, kernel)
        return y + jnp.broadcast_to(bias, y.shape)


class Router(nnx.Module):
    """The routing weights from `features * embedding`; see `SoftModularNet`."""

    def __init__(
        self,
        embed_dim: int,
        gate_dim: int,
        num_layers: int,
        num_modules: int,
        *,
        variant: str,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}

        def linear(d_in: int, d_out: int) -> nnx.Linear:
            return nnx.Linear(d_in, d_out, **hidden(d_out), **options)

        code, n = variant == "code", num_modules
        width = gate_dim if code else embed_dim
        rows = [n] * (num_layers - 1) + [1] * code
        self.variant, self.num_modules = variant, n
        self.gate = nnx.List(
            [linear(embed_dim, width), linear(width, width)] if code else []
        )
        self.seen = nnx.List(
            [linear((i if code else 1) * n * n, width) for i in range(1, len(rows))]
        )
        self.logits = nnx.List(
            [nnx.Linear(width, m * n, **small(), **options) for m in rows]
        )

    def __call__(self, e: Array) -> list[Array]:
        """Weights `[..., n, n]` of each layer; for "code" `[..., 1, n]` at the end."""
        for layer in self.gate:
            e = layer(nnx.relu(e))
        routing: list[Array] = []
        seen: list[Array] = []
        gated = e
        for number, to_logits in enumerate(self.logits):
            if number:
                gated = self.seen[number - 1](jnp.concatenate(seen, axis=-1)) * e
            logits = to_logits(nnx.relu(gated))
            rows = logits.reshape(*logits.shape[:-1], -1, self.num_modules)
            routing.append(jax.nn.softmax(rows.astype(jnp.float32), axis=-1))
            if self.variant == "code":
                seen.append(routing[-1].reshape(logits.shape))
            else:
                seen = [logits]
        return routing
