r"""LDC-MTL: weights learned so that weighted losses come close (Xiao et al. 2025).

Follows the single-loop form of the authors' code (MIT) for CelebA, `of="losses"`, and
QM9, `of="logs"`, with one learned number a task. They train these with the network's
Adam at 1e-3; here they have an optimiser of their own, because an aggregator cannot
reach the network's. Their penalty compares each task with the next one, so that it
depends on the order of tasks; that is `form="neighbours"`, and ours compares all with
their mean, which for two tasks is the same. A sign is 0 where both sides agree within
rounding. Their form for Cityscapes, a network for the weights and a penalty on losses
without weights, is left out.

DERIVED: as the sum of weights is held in the first term, its gradient lowers every
learned number while its loss is positive: the weights shrink together, the first term
does not change by it, and the penalty fades.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.learned import TaskScalars, scalars_from, step_scalars
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import positive, softmax_among
from mtl_optax.core.solvers.spread import from_mean, from_next
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class LDCState(NamedTuple):
    """State of LDC-MTL."""

    router: TaskScalars  # [T] r, whose sigmoids are the weights
    first: TaskRows  # [T] loss at the start, 0 before it; read by "logs"
    steps: TaskRows  # [T] int32, steps at which the task was active


_SLOPES = {"symmetric": from_mean, "neighbours": from_next}


def _bounded(losses: jax.Array) -> jax.Array:
    """Losses whose squares are numbers."""
    bound = float(jnp.finfo(losses.dtype).max) ** 0.5 / 2
    return jnp.clip(losses, -bound, bound)


def _with_start(
    state: LDCState, losses: jax.Array, active: jax.Array, epoch_steps: int | None
) -> LDCState:
    """The state with the losses of tasks that start, at first or with an epoch."""
    starts = state.first == 0
    if epoch_steps is not None:
        starts |= (state.steps > 0) & (state.steps % epoch_steps == 0)
    return state._replace(first=jnp.where(active & starts, losses, state.first))


@losses_method
def ldc(
    *,
    lam: ScalarOrSchedule = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    init: PerTask = 1.0,
    form: str = "symmetric",
    of: str = "losses",
    initial_losses: PerTask = None,
    epoch_steps: int | None = None,
) -> Weighting:
    r"""Weights learned against the differences between the weighted losses.

    .. math::
      F = \frac{\sum_t w_t l_t}{[\sum_s w_s]} + \lambda \sum_t \Big| w_t l_t - \tfrac1T
      \sum_s w_s l_s \Big|, \quad w = \sigma(r), \quad
      d = \sum_t \frac{\partial F}{\partial L_t} g_t, \quad r \text{ descends } F

    with what is in brackets held constant, and :math:`l = L`, or :math:`l = \log(L /
    L_0)`. With `form="neighbours"` the penalty is :math:`\sum_{t < T} |w_t l_t -
    w_{t+1} l_{t+1}|`.

    Args:
      num_tasks: T, a Python int.
      lam: :math:`\lambda`, at least 0. The authors take 0.1, 0.01 for the 40 tasks of
        CelebA, and 0.05 for logs.
      optimizer: optax optimiser of the numbers r; None is `optax.adam(1e-3)`.
      init: initial r, a number or `[T]` in sorted order of names or a dict by name.
      form: "symmetric", or "neighbours", the authors' form, which depends on the order
        of tasks (sorted, where they have names); absent tasks are skipped in it.
      of: "losses" or "logs", what l is.
      initial_losses: :math:`L_0`, `[T]` in sorted order of names or a dict by name,
        positive; None takes the first loss seen of each task. For "logs" only.
      epoch_steps: after so many steps of a task its :math:`L_0` is the present loss
        again, a Python int: the number of batches in the authors' code; None: never.
        For "logs" only.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The weights used, :math:`\partial F / \partial
      L_t`, are those before this step's update of r. Output scale: a simplex and lam
      times differences of sigmoids, some of which may be negative; for logs each weight
      is divided by its loss. T=1 gives the gradient itself, or g/L.

    Raises:
      ValueError: for an unknown `form` or `of`, a negative `lam`, arguments of "logs"
        without it, `initial_losses` or an `init` that is not `[T]`; if `losses=` is
        missing or has another length; for gradients that are not stacked, or another
        task count.

    Cost: one backward pass with lazy gradients; state of 6 numbers a task with Adam.

    Invariances: none to loss scales: the penalty compares losses as they are. ("logs"
    knows each only relative to its start.)

    Guarantee: none on conflicts, nor on single tasks: where the penalty pulls harder
    than the sum, which can be with lam above 0.7/T (at the first step; 7 tasks with the
    default), the weight of a task below the others is negative.

    When not to use it: with many tasks and the default `lam`, see above. With losses of
    very different scales, of which the penalty only sees the largest; use "logs", whose
    losses must be positive (they count as at least 1e-19 and at most 9e18, in float32).
    In long runs: r falls for as long as its loss is positive, and the penalty fades
    with the sigmoids.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.ldc(num_tasks=2, init=0.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 3.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.45, 0.55], dtype=float32)

    References:
      Xiao et al., `LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
      Discrepancy Control <https://arxiv.org/abs/2502.08585>`_, 2025.
    """
    checks.at_least("lam", lam, 0)
    checks.one_of("form", form, tuple(_SLOPES))
    checks.one_of("of", of, ("losses", "logs"))
    logs, tx = of == "logs", optax.adam(1e-3) if optimizer is None else optimizer
    if epoch_steps is not None:
        epoch_steps = checks.static_int("epoch_steps", epoch_steps)
    router_at = scalars_from(tx, init)

    def start(num_tasks: int) -> LDCState:
        first = jnp.zeros(num_tasks, jnp.result_type(float))
        if initial_losses is not None:
            given = checks.task_vector("initial_losses", initial_losses, num_tasks)
            first = positive(given)
        if not logs and not (initial_losses is None and epoch_steps is None):
            raise ValueError(
                "ldc: initial_losses= and epoch_steps= tell what losses are divided by "
                'before the logarithm: say of="logs" too, or leave them out.'
            )
        return LDCState(router_at(num_tasks), first, jnp.zeros(num_tasks, jnp.int32))

    def update(
        gramian: None,
        state: LDCState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, LDCState]:
        del gramian, extra
        losses = checks.required("ldc", "losses", losses)
        new, levels, inner = state, _bounded(losses), jnp.ones_like(losses)
        if logs:
            new = _with_start(state, positive(losses), active, epoch_steps)
            inner = 1 / positive(losses)
            # The logarithm of the ratio is exactly 0 at the start, where all tie.
            levels = jnp.log(jnp.where(active, positive(losses) / new.first, 1))
        values = state.router.values
        sigmoids = jax.nn.sigmoid(values)
        # The sigmoids over their sum, also where these are too small to be numbers.
        share = softmax_among(jax.nn.log_sigmoid(values), active)
        outer = share + lam * sigmoids * _SLOPES[form](sigmoids * levels, active)
        gradient = jax.nn.sigmoid(-values) * levels * outer
        router = step_scalars(tx, gradient, state.router, active)
        after = new._replace(router=router, steps=state.steps + active)
        return outer * inner, after

    return Weighting(start, update, uses_gramian=False)
