"""A linear layer whose weights are Gaussian, and Gaussians as pairs of moments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array


class Gaussian(NamedTuple):
    """Independent Gaussians."""

    mean: Array  # [...]
    var: Array  # [...], like the mean


def in_float32(gaussian: Gaussian) -> Gaussian:
    """The same, in float32 at least."""
    return jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), gaussian
    )


def sample(gaussian: Gaussian, key: Any, num_samples: int) -> Array:
    """Draws `[num_samples, ...]` that are differentiable in the moments."""
    shape = (num_samples, *gaussian.mean.shape)
    noise = jax.random.normal(key, shape, gaussian.mean.dtype)
    return gaussian.mean[None] + jnp.sqrt(gaussian.var)[None] * noise


def linear_moments(
    x: Array, weights: Gaussian, bias: Gaussian | None = None
) -> Gaussian:
    r"""The outputs of a linear layer with Gaussian weights: local reparameterisation.

    .. math::
      \mathrm{mean} = x M + m, \quad \mathrm{var} = x^2 \sigma_M^2 + \sigma_m^2

    Args:
      x: `[..., d_in]`.
      weights: moments `[d_in, d_out]`.
      bias: moments `[d_out]`.

    Returns:
      Moments `[..., d_out]`, of the dtype of x: given x, outputs are independent.
    """
    weights, bias = jax.tree.map(lambda m: m.astype(x.dtype), (weights, bias))
    mean, var = x @ weights.mean, x**2 @ weights.var
    if bias is not None:
        mean = mean + jnp.broadcast_to(bias.mean, mean.shape)
        var = var + jnp.broadcast_to(bias.var, var.shape)
    return Gaussian(mean, var)


def gaussian_kl(q: Gaussian, p: Gaussian) -> Array:
    r"""The divergence KL(q||p), summed over the last axis.

    .. math::
      \tfrac{1}{2} \sum \Big( \log \frac{v_p}{v_q} - 1 + \frac{v_q}{v_p}
      + \frac{(\mu_p - \mu_q)^2}{v_p} \Big)

    Variances are raised by 1e-6, as in the code of VMTL. In float32 at least.
    """
    q, p = in_float32(q), in_float32(p)
    v_q, v_p = q.var + 1e-6, p.var + 1e-6
    far = (p.mean - q.mean) ** 2 / v_p
    return 0.5 * (jnp.log(v_p / v_q) - 1 + v_q / v_p + far).sum(axis=-1)


class GaussianParam(nnx.Module):
    """Learned moments: a mean, and a scale, the softplus of its parameter."""

    def __init__(self, shape: tuple[int, ...], *, rngs: nnx.Rngs):
        draw = nnx.initializers.normal(0.1)
        self.mean = nnx.Param(draw(rngs.params(), shape))
        self.raw_scale = nnx.Param(draw(rngs.params(), shape) - 3)

    def __call__(self) -> Gaussian:
        """The moments."""
        return Gaussian(self.mean[...], jax.nn.softplus(self.raw_scale[...]) ** 2)


class BayesLinear(nnx.Module):
    r"""A linear layer with independent Gaussian weights; returns the outputs' moments.

    .. math::
      \mathrm{mean} = x M + m, \quad
      \mathrm{var} = x^2 \, \mathrm{softplus}(R)^2 + \mathrm{softplus}(r)^2

    One draw of the outputs is one draw of the weights for each example apart, with less
    variance in the gradients than one draw for the whole batch has.

    Args:
      d_in: size of the last axis of x.
      d_out: of the outputs.
      dtype: of the computation; by default the one that holds x and the weights.
      rngs: `params` for the initial values: M, m of :math:`N(0, 0.1^2)`; R, r like
        them, around -3.

    Shared: all leaves. Auxiliary terms: none; `gaussian_kl` of the outputs or of
    `weights()` and `bias()`.

    Cost: two products of matrices; twice the parameters of a linear layer.

    When not to use it: where the weights must be the same for all examples, as for
    functions drawn whole.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import BayesLinear
      >>> layer = BayesLinear(3, 2, rngs=nnx.Rngs(0))
      >>> mean, var = layer(jnp.ones((5, 3)))
      >>> mean.shape, bool((var > 0).all())
      ((5, 2), True)

    References:
      Kingma et al., `Variational Dropout and the Local Reparameterization Trick
      <https://arxiv.org/abs/1506.02557>`_, 2015. The initial values are those of the
      code of :class:`VMTL`.
    """

    def __init__(self, d_in: int, d_out: int, *, dtype: Any = None, rngs: nnx.Rngs):
        self.dtype = dtype
        self.weights = GaussianParam((d_in, d_out), rngs=rngs)
        self.bias = GaussianParam((d_out,), rngs=rngs)

    def __call__(self, x: Array) -> Gaussian:
        """Moments `[..., d_out]` of the outputs for `[..., d_in]`."""
        weights = self.weights()
        dtype = self.dtype or jnp.promote_types(x.dtype, weights.mean.dtype)
        return linear_moments(x.astype(dtype), weights, self.bias())
