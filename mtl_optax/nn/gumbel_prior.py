"""Priors from the posteriors of other tasks, with weights that are learned."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.nn.bayes_linear import Gaussian, gaussian_kl

Array = jax.Array

_TINY = 1e-20  # inside of logarithms, as in the authors' code


def gumbel_weights(logits: Array, tau: Any, key: Any) -> Array:
    r"""A draw of the Gumbel-softmax distribution: soft, differentiable in the logits.

    .. math::
      a = \mathrm{softmax} \big( (\log \mathrm{softmax}(\pi) + G) / \tau \big), \quad
      G = -\log(-\log U)

    Args:
      logits: :math:`\pi`, `[n]`.
      tau: temperature; small ones draw nearly one-hot, large ones nearly uniform.
      key: of jax.random.

    Returns:
      `[n]`, with sum one.
    """
    uniform = jax.random.uniform(key, logits.shape, logits.dtype)
    noise = -jnp.log(-jnp.log(uniform + _TINY) + _TINY)
    return jax.nn.softmax((jax.nn.log_softmax(logits) + noise) / tau)


def weighted_sum(weights: Array, others: Gaussian) -> Gaussian:
    r"""The law of a weighted sum of independent Gaussians.

    .. math:: \mu = \sum_i a_i \mu_i, \quad v = \sum_i a_i^2 v_i

    Args:
      weights: a, `[n]`.
      others: moments `[n, ...]`.

    Returns:
      Moments `[...]`.
    """
    return Gaussian(
        jnp.tensordot(weights, others.mean, 1), jnp.tensordot(weights**2, others.var, 1)
    )


def prior_kl(
    q: Gaussian, others: Gaussian, weights: Array, prior: str = "sum"
) -> Array:
    r"""The divergence of q from the prior that other Gaussians make, summed over d.

    Args:
      q: moments `[..., d]`.
      others: moments `[n, ..., d]`, to which no gradient goes.
      weights: a, `[n]`, with sum one.
      prior: "sum", the law of :math:`\sum_i a_i X_i`, as in the authors' code; or
        "mixture", the bound :math:`\sum_i a_i KL(q \| p_i)` on the divergence from the
        mixture :math:`\sum_i a_i p_i`.

    Returns:
      `[...]`.
    """
    others = jax.lax.stop_gradient(others)
    if prior == "sum":
        return gaussian_kl(q, weighted_sum(weights, others))
    each = gaussian_kl(Gaussian(q.mean[None], q.var[None]), others)
    return jnp.tensordot(weights, each, 1)
