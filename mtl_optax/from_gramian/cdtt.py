r"""CDTT: task tensioners around a central direction (Nakamura et al. 2022).

After the authors' code, which the port of Gama and Grassi (2025) agrees with; the
paper's text was not read. Three differences: the min-norm problem behind the central
direction is solved exactly; the direction check takes the closed form of their
tangents; and a task without gradient, for which the code divides by zero (the port:
returns zero), is left out. The authors step each head on its own gradient and use the
method on shared parameters: :func:`mtl_optax.on_shared` does that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.scalarization import positive
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.min_norm import stationary_weights
from mtl_optax.core.trees.task_axis import TaskRows, where_active
from mtl_optax.core.weighting import Weighting


class CDTTState(NamedTuple):
    """State of CDTT; every task has a clock of its own."""

    norms: TaskRows  # [T, window] last gradient norms, the newest last
    steps: TaskRows  # [T] int32, steps at which the task was active, at most window


def _central(cosines: jax.Array, norms: jax.Array, rows: jax.Array) -> jax.Array:
    """Weights of sum 1 along the min-norm point of unit gradients; 0 if that is 0."""
    stationary, shares = stationary_weights(cosines, rows)
    shortest = jnp.min(jnp.where(rows, norms, jnp.inf))
    weights = jnp.where(rows, shares * shortest / jnp.where(rows, norms, 1), 0)
    total = jnp.sum(weights)
    return jnp.where(stationary, 0, weights / jnp.where(total > 0, total, 1))


def _pulls(
    cosines: jax.Array, norms: jax.Array, center: jax.Array, tension: jax.Array
) -> jax.Array:
    """Lengths along the unit gradients of the sum of pulls from the centre, `[T]`."""
    along = norms * center
    to_task = jnp.diag(norms) - along[None, :]  # row t: g_t - b
    square = jnp.sum(to_task * linalg.dot(to_task, cosines), axis=1)
    # A gradient at the centre pulls nowhere, and rounding must not choose where.
    apart = norms**2 + jnp.sum(along**2)
    some = square > linalg.noise_floor(norms.shape[0], norms.dtype) * apart
    pull = jnp.where(some, tension / jnp.sqrt(jnp.where(some, square, 1)), 0)
    return linalg.dot(pull, to_task)


def _turn(cosines: jax.Array, norms: jax.Array, along: jax.Array) -> jax.Array:
    """Turns the update, for one task after the other, until it is orthogonal to it.

    That is where the line from the gradient to the update meets the orthogonal plane.
    """

    def turn(along: jax.Array, task: jax.Array) -> tuple[jax.Array, None]:
        against = jnp.minimum(linalg.dot(cosines[task], along), 0)
        length = norms[task]
        shrink = length / jnp.where(against < 0, length - against, length)
        turned = shrink * along.at[task].add(-against)
        return jnp.where((length > 0) & (against < 0), turned, along), None

    return lax.scan(turn, along, jnp.arange(norms.shape[0], dtype=jnp.int32))[0]


@gramian_method
def cdtt(*, window: int = 10, alpha: ScalarOrSchedule = 0.3) -> Weighting:
    r"""A central direction, pulled towards the tasks that converge least.

    .. math::
      b = \gamma \sum_t \alpha_t u_t, \quad
      r_t = \frac{S_t}{S_t^-} + \log_{10} L_t, \quad
      \tau_t = \frac{\alpha}{1 + e^{-e (r_t - 1)}} + 1 - \alpha, \quad
      v = b + \sum_t \tau_t \frac{g_t - b}{\|g_t - b\|}

    with :math:`u_t = g_t / \|g_t\|`, the min-norm weights :math:`\alpha_t` of these
    and :math:`\gamma = 1 / \sum_t (\alpha_t / \|g_t\|)`; S is the sum of a task's last
    `window` gradient norms, :math:`S^-` that of one step before. Then, for one task
    after the other, where :math:`\langle g_t, v \rangle < 0`, v moves along the line
    towards :math:`g_t` until it is orthogonal to it. Without a full window before it a
    task has no tension, :math:`\tau_t = 0`; without any the update is b.

    Args:
      num_tasks: T, a Python int.
      window: steps that gradient norms are summed over, a Python int.
      alpha: :math:`\alpha`, how much the tensions differ; at least 0, and 0 makes all
        of them 1.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`, positive (others count as 1e-19 in float32).
      Output scale: weights of sum 1 (b), then b plus T pulls of length 1 - alpha to 1,
      whatever the length of the gradients. A task without gradient is left out, a
      gradient equal to b does not pull; b is exactly zero where 0 lies in the hull of
      the unit gradients. T=1 gives the gradient itself.

    Raises:
      ValueError: for a `window` that is no positive Python int or a negative `alpha`;
        if `losses=` is missing or has another length; for gradients that are not
        stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; state of `window` numbers a
    task; one T x T quadratic program.

    Invariances: none, neither of the losses, whose logarithm is a tension, nor of the
    gradients, beside which pulls have a length of their own.

    Guarantee: before there is tension the update conflicts with no task, nor after with
    two tasks; with more the turn for a later task may harm an earlier one. Two opposite
    gradients give exactly zero.

    When not to use it: with losses that reach 0 or fall below; where gradients become
    short, as at the end of training: the update stays as long as the pulls, so shrink
    the learning rate. Where the order of the tasks must not matter.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.cdtt(num_tasks=2, window=1)
      >>> params = {"w": jnp.zeros(2)}
      >>> state, losses = tx.init(params), jnp.array([1.0, 0.1])
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> for _ in range(2):
      ...     update, state = tx.update(grads, state, params, losses=losses)
      ...     print(np.asarray(update["w"]).round(4))
      [0.6667 0.6667]
      [0.7254 0.5491]

    References:
      Nakamura, Grassi and Wolf, `Leveraging convergence behavior to balance conflicting
      tasks in multi-task learning <https://arxiv.org/abs/2204.06698>`_, 2022.
    """
    window = checks.static_int("window", window)
    checks.at_least("alpha", alpha, 0)

    def init(num_tasks: int) -> CDTTState:
        steps = jnp.zeros(num_tasks, jnp.int32)
        return CDTTState(jnp.zeros((num_tasks, window)), steps)

    def update(
        gramian: jax.Array,
        state: CDTTState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, CDTTState]:
        del extra
        losses = checks.required("cdtt", "losses", losses)
        cosines, norms = linalg.cosine_matrix(gramian)
        rows = active & (norms > 0)
        center = _central(cosines, norms, rows)

        history = jnp.concatenate([state.norms[:, 1:], norms[:, None] * unit], axis=1)
        now, before = jnp.sum(history, axis=1), jnp.sum(state.norms, axis=1)
        change = jnp.where(before > 0, now / jnp.where(before > 0, before, 1), 1)
        slow = change + jnp.log10(positive(losses))
        tension = alpha * jax.nn.sigmoid(jnp.e * (slow - 1)) + 1 - alpha
        tense = rows & (state.steps == window)
        tension = jnp.where(tense, jnp.maximum(tension, 0), 0)

        along = norms * center + _pulls(cosines, norms, center, tension / unit)
        along = _turn(cosines, norms, along)
        weights = jnp.where(rows, along / jnp.where(rows, norms, 1), 0)
        # Without tension exactly the centre, which conflicts with no task.
        weights = jnp.where(jnp.any(tense), weights, center)
        steps = jnp.minimum(state.steps + 1, window)
        new = CDTTState(history, steps)
        return weights, where_active(active, new, state)

    return Weighting(init, update)
