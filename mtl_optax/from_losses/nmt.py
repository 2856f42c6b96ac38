r"""NMT-style constrained training in an order of priority (Cheng et al. 2025).

INFERRED: the equations are reconstructed from the paper's abstract (priorities as
inequality constraints, solved by gradients with Lagrange multipliers, step by step,
with a re-scaling) and from the differential multiplier method of Platt and Barr (1987),
not read in the paper. The stages, how targets are measured, and what the re-scaling
divides by are our choice.
"""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks, names
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class NMTState(NamedTuple):
    """State of NMT."""

    multipliers: TaskRows  # [T] lambda
    targets: TaskRows  # [T] loss at the end of each task's stage, 0 before
    steps: TaskRows  # [T] int32, steps of its stage so far


def _ranks(priority: Sequence[int], num_tasks: int) -> jax.Array:
    """The place of each task in the order, `[T]`."""
    order = [checks.static_int("entries of priority", task, 0) for task in priority]
    if sorted(order) != list(range(num_tasks)):
        raise ValueError(
            "nmt: priority must name each task once, the most important first, for "
            f"example {tuple(range(num_tasks))}; got {tuple(priority)}."
        )
    return jnp.asarray([order.index(t) for t in range(num_tasks)], jnp.int32)


def _measured(
    state: NMTState, losses: jax.Array, learns: jax.Array, stage_steps: Any
) -> jax.Array:
    """Targets with these losses: means over the last tenth of each task's stage."""
    count = state.steps + 1 - 9 * stage_steps // 10
    mean = state.targets + (losses - state.targets) / jnp.maximum(count, 1)
    return jnp.where(learns & (count > 0), mean, state.targets)


@losses_method
def nmt(
    priority: Sequence[Any],
    *,
    multiplier_lr: ScalarOrSchedule,
    targets: PerTask = None,
    stage_steps: ScalarOrSchedule,
) -> Weighting:
    r"""Trains tasks in order of importance, none at the price of a former one.

    .. math::
      \lambda_i \leftarrow \max(0, \lambda_i + \eta (L_i - L_i^*)), \quad
      d = \frac{g_k + \sum_i \lambda_i g_i}{1 + \sum_i \lambda_i}

    over the tasks i that are more important than the task k whose stage it is: the
    Lagrangian of :math:`\min L_k` subject to :math:`L_i \le L_i^*`. The multipliers
    start at 0 and go on from stage to stage.

    Args:
      num_tasks: T, a Python int.
      priority: the tasks, the most important first: all by name, or all by index (in
        sorted order of names).
      multiplier_lr: :math:`\eta`; the reconstruction suggests the learning rate of the
        parameters.
      targets: :math:`L^*`, `[T]` in sorted order of names or a dict by name, NaN or
        infinite for a task that is not constrained; None takes the mean loss over the
        last tenth of the task's stage.
      stage_steps: steps of each stage; may be a tracer. Once all stages are over the
        last task goes on. With `targets` 0 is allowed: at once the last task.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The stage is that of the most important active
      task that has not had its own; tasks after it have weight 0. Output scale:
      simplex. T=1 gives the gradient itself.

    Raises:
      ValueError: for a `priority` that is no order of the tasks, `targets` that are not
        `[T]`, negative numbers, or no `stage_steps` without `targets`; if `losses=` is
        missing or has another length; for gradients that are not stacked, or another
        task count.

    Cost: one backward pass with lazy gradients; state of 3 numbers a task.

    Invariances: none to loss scales: multipliers grow by differences of losses.

    Guarantee: none for a step. Where all converges, weights are the multipliers of the
    constrained problem, and no constraint is violated (convex losses, small enough
    steps).

    When not to use it: without an order of importance; where measured targets are
    noisier than what may be lost; where all tasks must learn from the first step: the
    last one waits for T - 1 stages. With constraints that cannot be met the multipliers
    grow without bound, and the last task stops to learn.

    Example:
      >>> import jax, jax.numpy as jnp, optax, mtl_optax as mtl
      >>> losses_fn = lambda x: (0.5 * x**2, 0.5 * (x - 1) ** 2)
      >>> tx = optax.chain(
      ...     mtl.nmt(
      ...         2,
      ...         (0, 1),
      ...         multiplier_lr=0.5,
      ...         targets=jnp.array([0.02, jnp.nan]),
      ...         stage_steps=0,
      ...     ),
      ...     optax.sgd(0.1),
      ... )
      >>> def step(_, carry):
      ...     x, state = carry
      ...     _, grads = mtl.lazy_task_grads(losses_fn)(x)
      ...     update, state = tx.update(grads, state, x)
      ...     return x + update, state
      >>> x = jnp.array(1.0)
      >>> x, state = jax.lax.fori_loop(0, 3000, step, (x, tx.init(x)))
      >>> round(float(x), 3), state[0].weighting.multipliers.round(2)
      (0.2, Array([4., 0.], dtype=float32))

    References:
      Cheng et al., `No More Tuning: Prioritized Multi-Task Learning with Lagrangian
      Differential Multiplier Methods <https://arxiv.org/abs/2412.12092>`_, 2025.
      Platt and Barr, `Constrained Differential Optimization
      <https://papers.nips.cc/paper/4-constrained-differential-optimization>`_, 1987.
    """
    priority, own = names.indices("nmt: priority", priority)
    checks.at_least("multiplier_lr", multiplier_lr, 0)
    checks.at_least("stage_steps", stage_steps, 0)
    if targets is None and isinstance(stage_steps, numbers.Real) and stage_steps < 1:
        raise ValueError(
            "nmt: stage_steps=0 leaves no stage in which to measure what each task "
            "must keep: pass targets=, or stage_steps of at least 1."
        )

    def init(num_tasks: int) -> NMTState:
        _ranks(priority, num_tasks)
        checks.optional_vectors(num_tasks, targets=targets)
        zeros = jnp.zeros((2, num_tasks))
        return NMTState(zeros[0], zeros[1], jnp.zeros(num_tasks, jnp.int32))

    def update(
        gramian: None,
        state: NMTState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, NMTState]:
        del gramian, extra
        losses = checks.required("nmt", "losses", losses)
        num_tasks = active.shape[0]
        rank = _ranks(priority, num_tasks)
        unfinished = active & (state.steps < stage_steps)
        first = jnp.min(jnp.where(unfinished, rank, num_tasks))
        last = jnp.max(jnp.where(active, rank, -1))
        current = jnp.where(jnp.any(unfinished), first, last)
        objective, before = active & (rank == current), active & (rank < current)

        aims = state.targets
        if targets is not None:
            aims = checks.task_vector("targets", targets, num_tasks)
        gap = jnp.where(jnp.isfinite(aims), losses - aims, 0)
        raised = jnp.maximum(state.multipliers + multiplier_lr * gap, 0)
        multipliers = jnp.where(before, raised, state.multipliers)
        raw = jnp.where(before, multipliers, objective)

        learns = objective & unfinished
        new = NMTState(
            multipliers,
            _measured(state, losses, learns, stage_steps),
            state.steps + learns.astype(jnp.int32),
        )
        return raw / jnp.maximum(jnp.sum(raw), 1), new

    return Weighting(init, update, uses_gramian=False, names=own)
