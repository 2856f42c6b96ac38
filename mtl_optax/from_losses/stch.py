r"""STCH: smooth Tchebycheff scalarisation (Lin et al. 2024).

The authors' multi-task code descends another scalar, :math:`T \mu \log \sum_t
\exp(\log(L_t / n_t) / \mu)`, with losses n measured after a warm-up on the sum of log
losses; that is `nadir=n`. They count epochs inside the method; here the warm-up is
another method, `scale_invariant`, and n the mean of the losses it leads to.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import above, of_losses, positive, softmax_among
from mtl_optax.core.weighting import Weighting


@losses_method
def stch(
    *,
    mu: ScalarOrSchedule = 1.0,
    preference: PerTask = None,
    reference: PerTask = None,
    nadir: PerTask = None,
) -> Weighting:
    r"""Smooth Tchebycheff: descends a smooth maximum of the weighted losses.

    .. math::
      d = \nabla \, \mu \log \sum_t e^{p_t (L_t - z_t) / \mu}, \quad
      w = p \odot \text{softmax}\big(p \odot (L - z) / \mu\big)

    or, with `nadir` n, :math:`d = \nabla \, T \mu \log \sum_t e^{\log(L_t / n_t) /
    \mu}`, :math:`w = T \, \text{softmax}(\log(L / n) / \mu) / L`.

    Args:
      num_tasks: T, a Python int.
      mu: smoothing, at least 0; may be a tracer. 0 is `tchebycheff`, a large one the
        weighted sum.
      preference: p, `[T]` in sorted order of names or a dict by name, not negative;
        None is uniform, 1/T over the active tasks.
      reference: z, `[T]` in sorted order of names or a dict by name, a point that no
        losses fall below; None is 0.
      nadir: n, `[T]` in sorted order of names or a dict by name, positive; selects the
        form of the authors' multi-task code.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. Output scale: a mean of p, that is 1/T of a
      simplex if p is uniform; with `nadir` T times a simplex, each task relative to
      its loss. T=1 gives the gradient times p; with `nadir` g/L.

    Raises:
      ValueError: for a negative `mu`; for a `preference`, `reference` or `nadir` that
        is not `[T]`, or both forms at once; if `losses=` is missing or has another
        length; for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales; with `nadir`, measured on the same losses, the
    update does not depend on them.

    Guarantee: the gradient of the smooth maximum; for small mu every Pareto point, on
    a concave front too, is the minimum for some preference.

    When not to use it: if losses of one task are of another order than the rest and
    `reference`, `preference` or `nadir` do not make them comparable: the largest owns
    the update. With `nadir` losses must be positive: they count as at least 1e-19 and
    at most 9e18 (in float32), and with mu above 1 the weight of a task grows, as
    L^(1/mu - 1), as its loss goes to 0.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.stch(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 3.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.1345, 0.3655], dtype=float32)

    References:
      Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective Optimization
      <https://arxiv.org/abs/2402.19078>`_, 2024.
    """
    checks.at_least("mu", mu, 0)
    if nadir is not None and not (preference is None and reference is None):
        raise ValueError(
            "stch: nadir= selects the form of the authors' multi-task code, which has "
            "neither preference= nor reference=. Pass one or the other."
        )

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        if nadir is not None:
            losses = positive(losses)
            worst = positive(checks.task_vector("nadir", nadir, active.shape[0]))
            share = softmax_among(jnp.log(losses / worst), active, mu)
            return jnp.sum(active) * share / losses
        slopes = preference_or_uniform(preference, active)
        share = softmax_among(slopes * above(losses, reference), active, mu)
        return slopes * share

    given = {"preference": preference, "reference": reference, "nadir": nadir}
    return of_losses("stch", weigh, **given)
