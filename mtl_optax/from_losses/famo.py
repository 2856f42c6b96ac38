"""FAMO: fast adaptive multitask optimisation (Liu et al. 2023, Algorithm 1).

The authors evaluate the same batch again after the model's step; give those losses at
the next step as `previous_losses=`. Without it the next batch's losses stand in, as in
their toy. They clip the combined gradient to norm 1: put `optax.clip_by_global_norm`
behind. Losses that fall equally fast, to within rounding, leave the logits; there
Adam makes full steps of the rounding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.losses import stack_losses
from mtl_optax.core.arguments.names import Names, PerTask, by_position
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.learned import TaskScalars, init_scalars, step_scalars
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import above, positive, softmax_among
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting

_EPSILON = 1e-8  # of the authors, added to every loss


class FAMOState(NamedTuple):
    """State of FAMO."""

    logits: TaskScalars  # [T], with their optimiser
    last: TaskRows  # [T] log loss at the task's last step
    seen: TaskRows  # [T] bool, whether it has had a step


def _logit_gradient(
    logits: jax.Array, before: jax.Array, after: jax.Array, moved: jax.Array
) -> jax.Array:
    """Which logits to lower: those whose log losses fell more than the mean."""
    share = softmax_among(logits, moved)
    fall = jnp.where(moved, before - after, 0)
    apart = fall - jnp.sum(share * fall)
    size = jnp.where(moved, jnp.maximum(jnp.abs(before), jnp.abs(after)), 0)
    noise = 4 * jnp.finfo(fall.dtype).eps * (1 + jnp.max(size))
    return jnp.where(jnp.abs(apart) <= noise, 0, share * apart)


@losses_method
def famo(
    *,
    optimizer: optax.GradientTransformation | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    min_losses: PerTask = None,
) -> Weighting:
    r"""Weights for which all log losses fall at the same rate, learned from the losses.

    .. math::
      d = c \sum_t \frac{z_t}{D_t} g_t, \quad z = \text{softmax}(\xi), \quad
      D = L - b + 10^{-8}, \quad c = 1 / \sum_t \frac{z_t}{D_t}

    where each logit :math:`\xi_t` descends :math:`\sum_t z_t \log(D_t / D'_t)`, with D'
    from the losses of the same batch after the step.

    Args:
      num_tasks: T, a Python int.
      optimizer: optax optimiser of the logits; None is `optax.adam(0.025)`.
      weight_decay: of the logits, added to their gradient; at least 0.
      min_losses: b, `[T]` in sorted order of names or a dict by name, a lower bound of
        each loss; None is 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The extra argument `previous_losses=` `[T]` holds
      the losses of the previous batch (of each task) at the present parameters;
      without it the present losses stand in, which is noisier. A task's first step
      leaves its logit. Output scale: simplex. T=1 gives the gradient itself.

    Raises:
      ValueError: for a negative `weight_decay`, or `min_losses` or `previous_losses`
        that are not `[T]`; if `losses=` is missing or has another length; for gradients
        that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients; state of 6 numbers a task with Adam.
      `previous_losses=` needs one forward pass more.

    Invariances: the direction does not depend on the scale of any loss (with
    `min_losses` scaled alike, and losses far above 1e-8).

    Guarantee: none on conflicts; logits rest where the log losses of all tasks fall
    equally fast.

    When not to use it: with losses that reach their bound b or fall below: they count
    as 1e-8 above it (and huge ones as 9e18, in float32), and such a task takes nearly
    all the weight. Without `previous_losses=` where the losses of batches differ more
    than one step changes them.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.famo(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 2.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.6667, 0.3333], dtype=float32)
      >>> update, state = tx.update(
      ...     grads,
      ...     state,
      ...     params,
      ...     losses=jnp.array([0.6, 1.8]),
      ...     previous_losses=jnp.array([0.5, 1.9]),
      ... )

    References:
      Liu et al., `FAMO: Fast Adaptive Multitask Optimization
      <https://arxiv.org/abs/2306.03792>`_, 2023.
    """
    tx = optax.adam(0.025) if optimizer is None else optimizer
    checks.at_least("weight_decay", weight_decay, 0)

    def log_losses(losses: jax.Array) -> jax.Array:
        return jnp.log(positive(above(losses, min_losses)) + _EPSILON)

    def init(num_tasks: int) -> FAMOState:
        checks.optional_vectors(num_tasks, min_losses=min_losses)
        logits = init_scalars(tx, jnp.zeros(num_tasks))
        return FAMOState(logits, jnp.zeros(num_tasks), jnp.zeros(num_tasks, bool))

    def update(
        gramian: None,
        state: FAMOState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        previous_losses: Any = None,
        names: Names | None = None,
        **extra: object,
    ) -> tuple[jax.Array, FAMOState]:
        del gramian, extra
        now = then = log_losses(checks.required("famo", "losses", losses))
        if previous_losses is not None:
            previous_losses = by_position(previous_losses, "previous_losses", names)
            given = stack_losses(previous_losses)
            num_tasks = active.shape[0]
            then = log_losses(checks.task_vector("previous_losses", given, num_tasks))
        values, moved = state.logits.values, active & state.seen
        gradient = _logit_gradient(values, state.last, then, moved)
        gradient += weight_decay * values
        logits = step_scalars(tx, gradient, state.logits, moved)
        weights = softmax_among(logits.values - now, active)
        last = jnp.where(active, now, state.last)
        return weights, FAMOState(logits, last, state.seen | active)

    return Weighting(init, update, uses_gramian=False)
