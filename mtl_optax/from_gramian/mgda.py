"""MGDA: the shortest vector in the convex hull of the task gradients.

Desideri 2012; Sener and Koltun 2018 for deep networks, and their code for the
normalisations. It stops an iterative solver early and returns 0.999 and 0.001 at
corners of the simplex; here the minimum is exact. It applies the weights to the raw
losses after normalising (`apply_to="raw"`), LibMTL to the normalised gradients
("normalized").
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers.min_norm import min_norm_weights
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def mgda(*, normalization: str = "none", apply_to: str = "raw") -> Weighting:
    r"""Multiple gradient descent: the min-norm convex combination of task gradients.

    .. math::
      w = \arg\min_{w \in \Delta} \Big\| \sum_t w_t \, g_t / s_t \Big\|^2, \quad
      d = \sum_t w_t \, g_t

    Without normalisation :math:`\langle g_t, d \rangle \ge \|d\|^2` for every task.

    Args:
      num_tasks: T, a Python int.
      normalization: what each gradient is divided by before solving: "none" (1),
        "l2" (its norm), "loss" (its loss), "loss+" (both). A divisor that is not
        positive counts as 1.
      apply_to: whether the weights then combine the "raw" or the "normalized"
        gradients.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. With
      "loss" and "loss+" its `update` needs `losses=` `[T]`. Output scale: simplex,
      that is the shortest vector of the hull; exactly zero where 0 lies in the hull.
      T=1 gives the gradient itself.

    Raises:
      ValueError: for an unknown option; if `losses=` is needed and missing; for
        gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; the exact
    solver needs a few T x T factorisations.

    Invariances: none to loss scales: the shorter a gradient the larger its weight. With
    `apply_to="normalized"` the update does not depend on them, for any normalisation
    but "none".

    Guarantee: descends every task, by at least the squared norm of d, unless the point
    is Pareto stationary; there d is zero. To rounding, as :func:`mtl_optax.upgrad`:
    what is left of gradients that nearly cancel has their rounding errors.

    When not to use it: if task gradients differ much in length and none is to be
    favoured: the shortest gets the weight (see "l2"). A task whose gradient is zero
    stops all others, since the point is then Pareto stationary.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.mgda(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.2, 0.4], dtype=float32)

    References:
      Desideri, `Multiple-Gradient Descent Algorithm (MGDA) for Multiobjective
      Optimization <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012. Sener and
      Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, 2018.
    """
    checks.one_of("normalization", normalization, ("none", "l2", "loss", "loss+"))
    checks.one_of("apply_to", apply_to, ("raw", "normalized"))

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        losses: jax.Array | None,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        divisor, own = jnp.ones_like(gramian[0]), jnp.ones_like(gramian[0, 0])
        if normalization in ("l2", "loss+"):
            # Norms are in the unit of the Gramian.
            divisor, own = jnp.sqrt(jnp.diag(gramian)), own * unit
        if normalization in ("loss", "loss+"):
            method = f"mgda(normalization={normalization!r})"
            divisor *= checks.required(method, "losses", losses)
        # A task without gradient, or with a loss that is not positive, stays as it is.
        divisor = jnp.where(divisor > 0, divisor, 1 / own)
        normalized = gramian / divisor[:, None] / divisor[None, :]
        weights = min_norm_weights(normalized, active)
        return (weights if apply_to == "raw" else weights / (divisor * own)), state

    return Weighting(no_state(), update)
