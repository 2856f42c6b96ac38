r"""GradNorm: weights that even out gradient norms (Chen et al. 2018, Algorithm 1).

"paper" learns the weights themselves and rescales them to sum T, "softmax" is LibMTL's
form, T times the softmax of learned numbers. LibMTL waits for an epoch to fix the
initial losses; here they are those of a task's first step. The sign in the gradient is
0 where both sides agree within rounding, so that equal tasks keep equal weights. The
paper takes norms on the last shared layer (`leaves=`), LibMTL on all shared ones.
INFERRED: the defaults of alpha (1.5 is LibMTL's) and of the learning rate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.learned import TaskScalars, init_scalars, step_scalars
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting

# A loss, or a learned weight, below this counts as this.
_LEAST_LOSS = 1e-8
_LEAST_WEIGHT = 1e-6


class GradNormState(NamedTuple):
    """State of GradNorm."""

    initial_losses: TaskRows  # [T], 0 until the task's first step
    scalars: TaskScalars  # [T] weights before scaling ("paper"), logits ("softmax")


def _mean(values: jax.Array, active: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(active, values, 0)) / jnp.maximum(jnp.sum(active), 1)


def _by_mean(values: jax.Array, active: jax.Array) -> jax.Array:
    mean = _mean(values, active)
    return jnp.where(active, values, 0) / jnp.where(mean > 0, mean, 1)


def _slopes(
    weights: jax.Array, norms: jax.Array, rates: jax.Array, active: jax.Array
) -> jax.Array:
    """Gradient of `sum |w_t n_t - target_t|` in w, the targets held."""
    weighted = weights * norms
    target = _mean(weighted, active) * rates
    gap = weighted - target
    floor = linalg.noise_floor(weights.shape[0], weights.dtype)
    tie = jnp.abs(gap) <= floor * jnp.maximum(weighted, target)
    return jnp.where(tie, 0, jnp.sign(gap)) * norms


@gramian_method
def gradnorm(
    *,
    alpha: ScalarOrSchedule = 1.5,
    optimizer: optax.GradientTransformation | None = None,
    variant: str = "paper",
    leaves: Any = None,
    initial_losses: PerTask = None,
) -> Weighting:
    r"""Learns weights that give every task the gradient norm its progress calls for.

    .. math::
      d = \sum_t w_t \, g_t, \quad w \text{ descends } \sum_t \Big| w_t n_t -
      \bar G \, r_t^\alpha \Big|, \quad \bar G = \tfrac1T \sum_s w_s n_s, \quad
      r_t = \frac{L_t / L_t(0)}{\tfrac1T \sum_s L_s / L_s(0)}

    with n the gradient norms and :math:`\bar G r^\alpha` held constant; then w is
    scaled to sum T. A task that has lost less of its initial loss gets a longer
    gradient.

    Args:
      num_tasks: T, a Python int.
      alpha: how strongly progress counts; 0 asks for equal norms.
      optimizer: optax optimiser of the learned numbers; None is `optax.sgd(0.025)`.
      variant: "paper" learns w; "softmax" learns s, of which w is T times the softmax.
      leaves: the leaves that norms are taken over, a tree of bools like the parameters
        (or a prefix of it) or a function from parameters to one; None for all.
      initial_losses: L(0), `[T]` in sorted order of names or a dict by name; None takes
        the first loss seen of each task.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The weights used are those before this step's
      update of w, and apply to all leaves. Output scale: sum, weights 1 at the start.
      T=1 gives the gradient itself.

    Raises:
      ValueError: for an unknown `variant`, `initial_losses` that are not `[T]`, or
        `leaves` that name none; if `losses=` is missing or has another length; for
        gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; state of 2 numbers a task
    beside the optimiser's. With `leaves` and lazy gradients at most T passes down to
    these leaves and a full one.

    Invariances: none to loss scales at once; the weights take them out in time, on the
    leaves on which norms are measured.

    Guarantee: none on conflicts. With constant losses and a small enough step w tends
    to weighted norms in the ratio of r^alpha, within one step's length.

    When not to use it: with losses that may become negative or reach 0 (below 1e-8 they
    count as 1e-8). With SGD a step of w is the learning rate times the gradient norm,
    whatever w is: where norms are not near 1, choose the rate to suit, or an optimiser
    that normalises, such as `optax.adam(0.025)`. (A weight that a step carries below
    1e-6 counts as 1e-6.)

    Example:
      >>> import jax.numpy as jnp, numpy as np, optax, mtl_optax as mtl
      >>> tx = mtl.gradnorm(num_tasks=2, alpha=0.0, optimizer=optax.sgd(0.1))
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
      >>> for _ in range(2):
      ...     _, state = tx.update(grads, state, params, losses=jnp.array([1.0, 2.0]))
      ...     print(np.asarray(mtl.task_weights(state)).round(4))
      [1. 1.]
      [1.2941 0.7059]

    References:
      Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
      Multitask Networks <https://arxiv.org/abs/1711.02257>`_, 2018.
    """
    checks.one_of("variant", variant, ("paper", "softmax"))
    tx = optax.sgd(0.025) if optimizer is None else optimizer

    def init(num_tasks: int) -> GradNormState:
        ones = jnp.ones(num_tasks, jnp.result_type(float))
        first = jnp.zeros_like(ones)
        if initial_losses is not None:
            given = checks.task_vector("initial_losses", initial_losses, num_tasks)
            first = jnp.maximum(given, _LEAST_LOSS)
        return GradNormState(first, init_scalars(tx, ones))

    def update(
        gramian: jax.Array,
        state: GradNormState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, GradNormState]:
        del extra
        losses = checks.required("gradnorm", "losses", losses)
        losses = jnp.maximum(losses, _LEAST_LOSS)
        first, scalars = state
        first = jnp.where(active & (first == 0), losses, first)
        rates = _by_mean(losses / jnp.where(active, first, 1), active) ** alpha

        if variant == "softmax":
            largest = jnp.max(scalars.values, initial=-jnp.inf, where=active)
            weights = _by_mean(jnp.exp(scalars.values - largest), active)
        else:
            # A step may carry a weight below 0, where it would ascend its task.
            weights = _by_mean(jnp.maximum(scalars.values, _LEAST_WEIGHT), active)
            values = jnp.where(active, weights, scalars.values)
            scalars = scalars._replace(values=values)
        norms = jnp.sqrt(jnp.diag(gramian)) * jnp.minimum(unit, 1)
        slopes = _slopes(weights, norms, rates, active)
        if variant == "softmax":
            slopes = weights * (slopes - _mean(weights * slopes, active))
        scalars = step_scalars(tx, slopes, scalars, active)
        return weights, GradNormState(first, scalars)

    return Weighting(init, update, leaves=leaves)
