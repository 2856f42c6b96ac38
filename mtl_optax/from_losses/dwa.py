"""DWA: dynamic weight averaging (Liu et al. 2019, equation 7).

The paper compares mean losses of epochs, so the state counts steps and closes an epoch
every `window` of them. The code of Navon et al. compares the last `window` losses with
those before them at every step, and counts losses before the first as 1; that is
`average="sliding"`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import positive, softmax_among
from mtl_optax.core.trees.task_axis import TaskRows, where_active
from mtl_optax.core.weighting import Weighting


class EpochState(NamedTuple):
    """State of DWA; every task has a clock of its own."""

    steps: TaskRows  # [T] int32, in the open epoch
    running: TaskRows  # [T] mean loss of the open epoch
    last: TaskRows  # [T] mean loss of the last closed epoch, 0 for none
    before: TaskRows  # [T] of the one before it


class SlidingState(NamedTuple):
    """State of DWA with sliding averages."""

    steps: TaskRows  # [T] int32, at most window + 1
    history: TaskRows  # [T, 2 window] losses, the newest last


State = EpochState | SlidingState


def _by_epoch(
    state: EpochState, losses: jax.Array, window: int
) -> tuple[jax.Array, EpochState]:
    """Ratio of the last two closed epochs, and the state with these losses."""
    ratio = state.last / jnp.where(state.before > 0, state.before, 1)
    ratio = jnp.where(state.before > 0, ratio, 1)
    steps = state.steps + 1
    mean = state.running + (losses - state.running) / steps
    closed = steps == window
    return ratio, EpochState(
        jnp.where(closed, 0, steps),
        jnp.where(closed, 0, mean),
        jnp.where(closed, mean, state.last),
        jnp.where(closed, state.last, state.before),
    )


def _sliding(
    state: SlidingState, losses: jax.Array, window: int
) -> tuple[jax.Array, SlidingState]:
    """Ratio of the last two windows, and the state with these losses."""
    history = jnp.concatenate([state.history[:, 1:], losses[:, None]], axis=1)
    older, newer = jnp.mean(history.reshape(-1, 2, window), axis=2).T
    ratio = jnp.where(state.steps > window, newer / older, 1)
    steps = jnp.minimum(state.steps + 1, window + 1)
    return ratio, SlidingState(steps, history)


@losses_method
def dwa(
    *, temperature: ScalarOrSchedule = 2.0, window: int = 1, average: str = "epochs"
) -> Weighting:
    r"""Dynamic weight averaging: more weight for losses that fall more slowly.

    .. math::
      d = \sum_t w_t \, g_t, \quad
      w = T \, \text{softmax}(r / \tau), \quad
      r_t = \bar L_t^{(e-1)} / \bar L_t^{(e-2)}

    with mean losses of the last two epochs before the present one, e.

    Args:
      num_tasks: T, a Python int.
      temperature: tau, at least 0; may be a tracer. A large one makes the weights
        equal, 0 gives all to the slowest task.
      window: steps in an epoch, a Python int; the number of batches in the paper.
      average: "epochs", as in the paper; or "sliding", which compares the last
        `window` losses with the `window` before them at every step.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. A task has r = 1 in its first two epochs, so all
      weights are 1 there (INFERRED for a task that joins later). Epochs count the steps
      at which the task was active; weights sum to the number of active tasks. Output
      scale: sum. T=1 gives the gradient itself.

    Raises:
      ValueError: for a negative `temperature`, a `window` that is no positive Python
        int, or an unknown `average`; if `losses=` is missing or has another length;
        for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients; state of 4 numbers a task, with
      "sliding" 2 windows.

    Invariances: the weights do not depend on the scale of any loss, the update does.

    Guarantee: none on conflicts. It does not depend on the scale of any loss.

    When not to use it: with the default `window=1` unless a step sees all data: single
    batches make the ratios noise. With losses that are not positive: they count as
    1e-19 (and huge ones as 9e18, in float32), and a ratio to a loss that was zero takes
    all the weight.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.dwa(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> state = tx.init(params)
      >>> for losses in ([2.0, 1.0], [1.0, 1.0], [1.0, 1.0]):
      ...     _, state = tx.update(grads, state, params, losses=jnp.array(losses))
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.8756, 1.1244], dtype=float32)

    References:
      Liu, Johns and Davison, `End-to-End Multi-Task Learning with Attention
      <https://arxiv.org/abs/1803.10704>`_, 2019. Navon et al., `Multi-Task Learning as
      a Bargaining Game <https://arxiv.org/abs/2202.01017>`_, 2022.
    """
    checks.at_least("temperature", temperature, 0)
    window = checks.static_int("window", window)
    checks.one_of("average", average, ("epochs", "sliding"))
    by_epoch = average == "epochs"

    def init(num_tasks: int) -> State:
        steps = jnp.zeros(num_tasks, jnp.int32)
        if by_epoch:
            return EpochState(steps, *(jnp.zeros(num_tasks) for _ in range(3)))
        return SlidingState(steps, jnp.ones((num_tasks, 2 * window)))

    def update(
        gramian: None,
        state: State,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, State]:
        del gramian, extra
        losses = positive(checks.required("dwa", "losses", losses))
        advance: Any = _by_epoch if by_epoch else _sliding
        ratio, new = advance(state, losses, window)
        weights = jnp.sum(active) * softmax_among(ratio, active, temperature)
        return weights, where_active(active, new, state)

    return Weighting(init, update, uses_gramian=False)
