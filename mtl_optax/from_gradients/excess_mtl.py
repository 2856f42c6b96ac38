r"""ExcessMTL: robust weights from estimated excess risks (He et al. 2024, eq. 6, 7, 9).

`normalize="sum"` is the authors' code and LibMTL's: weights sum to T, and the first
call of a task only takes its baseline. `normalize="simplex"` is TorchJD's: weights sum
to 1, the baseline is raised by 1e-7, and without warm-up the first call moves the
weights already, by the risk itself in place of its ratio. In both, our baseline waits
for a gradient that is not zero; the authors divide by a baseline of zero and return
NaN ever after.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import transformation_method
from mtl_optax.core.products import combine
from mtl_optax.core.scalarization import softmax_among
from mtl_optax.core.stacked import from_stack, task_sums, zero_stack
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree

_FLOOR = 1e-7  # of the squares, and in the simplex form of the baseline


class ExcessMTLState(NamedTuple):
    """State of ExcessMTL."""

    task_weights: TaskRows  # [T] weights of the last update
    log_weights: TaskRows  # [T] before they are normalised over the active tasks
    # [T, *param], float32 or wider, roots of the sums of squared gradients
    roots: TaskTree
    risks: TaskRows  # [T] sum of the risks that make up the baseline
    calls: TaskRows  # [T] int32, how many they are


@transformation_method
def excess_mtl(
    num_tasks: int,
    *,
    step_size: ScalarOrSchedule = 0.01,
    warmup: int = 0,
    normalize: str = "sum",
) -> optax.GradientTransformationExtraArgs:
    r"""Gives more weight to the tasks that are furthest from what they could reach.

    .. math::
      S_t \leftarrow S_t + g_t^2, \quad
      e_t = \sum_i \frac{g_{ti}^2}{\sqrt{S_{ti} + 10^{-7}}}, \quad
      w_t \leftarrow w_t \exp(\eta \, e_t / b_t), \quad d = \sum_t w_t g_t

    with weights normalised afterwards. The excess risk e is estimated with the diagonal
    of AdaGrad for a Hessian; the baseline b is its mean over a task's first calls,
    during which the ratio e / b counts as 1.

    Args:
      num_tasks: T, a Python int.
      step_size: :math:`\eta`. TorchJD's default is 1.
      warmup: number of calls that make up the baseline, a Python int; the paper takes
        three epochs. 0 is 1, but for the simplex form (see above).
      normalize: "sum" for weights that sum to T, "simplex" for weights that sum to 1.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. A zero gradient has risk 0 and is no part of the baseline. Weights sum to
      the number of active tasks, or to 1; how much the absent weigh beside the active
      stays. Output scale: sum, or simplex. T=1 gives the gradient itself.

    Raises:
      ValueError: for a `warmup` that is no Python int, negative, or an unknown
        `normalize`; for gradients that are not stacked, or another task count.

    Cost: T backward passes and T copies of the gradient; state of T copies more.

    Invariances: the weights do not depend on the scale of any loss (in the simplex form
    only after a warm-up), the update does.

    Guarantee: none on conflicts. Weights follow each task's risk relative to its own
    baseline, so that they do not depend on the loss's scale (d does), nor, as far as
    the estimate holds, on a part of the loss that no parameters could take away.

    When not to use it: with small batches, whose squared gradients are mostly noise and
    are taken for risk; over very long runs, as S only grows and the ratios tend to 0;
    where T copies of the parameters do not fit.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.excess_mtl(num_tasks=2, step_size=1.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> for size in (1.0, 0.5):
      ...     grads = {"w": jnp.array([[size, 0.0], [0.0, 1.0]])}
      ...     update, state = tx.update(grads, state, params)
      ...     print(np.asarray(mtl.task_weights(state)).round(3))
      [1. 1.]
      [0.763 1.237]

    References:
      He et al., `Robust Multi-Task Learning with Excess Risks
      <https://arxiv.org/abs/2402.02009>`_, 2024.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    warmup = checks.static_int("warmup", warmup, minimum=0)
    checks.one_of("normalize", normalize, ("sum", "simplex"))
    simplex = normalize == "simplex"

    def init(params: optax.Params) -> ExcessMTLState:
        zeros = partial(replicated_zeros, (num_tasks,), params)
        roots = zero_stack(params, num_tasks)
        return ExcessMTLState(
            zeros(), zeros(), roots, zeros(), zeros().astype(jnp.int32)
        )

    def update(
        gradients: optax.Updates,
        state: ExcessMTLState,
        *,
        active: jax.Array,
        **extra: Any,
    ) -> tuple[optax.Updates, ExcessMTLState]:
        del extra
        roots = jax.tree.map(_add_square, state.roots, gradients)
        risk = task_sums(jax.tree.map(_risks, gradients, roots))
        warming = (risk > 0) & (state.calls < max(warmup, 1))
        risks = state.risks + jnp.where(warming, risk, 0)
        calls = state.calls + warming

        baseline = risks / jnp.maximum(calls, 1) + (_FLOOR if simplex else 0)
        ratio = risk / jnp.where(calls > 0, baseline, 1)
        ratio = jnp.where(warming, risk if simplex and warmup == 0 else 1, ratio)
        log_weights = _step(state.log_weights, step_size * ratio, active)
        weights = softmax_among(log_weights, active)
        if not simplex:
            weights *= jnp.sum(active)
        state = ExcessMTLState(weights, log_weights, roots, risks, calls)
        return combine(gradients, weights), state

    return from_stack(num_tasks, init, update)


def _add_square(root: jax.Array, gradient: jax.Array) -> jax.Array:
    # The sum itself would overflow from gradients of 1e19 on.
    return jnp.hypot(root, gradient.astype(root.dtype))


def _risks(gradient: jax.Array, root: jax.Array) -> jax.Array:
    size = jnp.abs(gradient.astype(root.dtype))
    return size * (size / jnp.hypot(root, _FLOOR**0.5))


def _step(log_weights: jax.Array, gain: jax.Array, active: jax.Array) -> jax.Array:
    """Adds the gains, but leaves the sum of the active weights as it was."""
    # An infinite gain would leave no weight a number.
    raised = log_weights + jnp.minimum(gain, jnp.finfo(gain.dtype).max ** 0.5)
    grown = jax.nn.logsumexp(raised, where=active)
    grown -= jax.nn.logsumexp(log_weights, where=active)
    return jnp.where(active, raised - grown, log_weights)
