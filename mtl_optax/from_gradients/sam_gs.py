r"""SAM-GS: similarity-aware momentum gradient surgery (Borsani et al. 2025).

`variant="code"` is the authors' code (MIT), `variant="paper"` their Algorithm 1. They
differ in whether the mean similarity counts a task's similarity to itself (for two
tasks the paper's is then 1/2 or more, and a `gamma` below that never equalises), in the
code's factor T, and in where the paper adds 1e-8 once more. The clip is the code's
(PyTorch's, which adds 1e-6 to the norm; here it is exact); the paper has none. Where
both gradients of a pair are zero, which divides by zero there, the similarity is 1, and
without a pair too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import NumbersOrSchedule, ScalarOrSchedule
from mtl_optax.core.cancellation import sum_of_rows
from mtl_optax.core.method import transformation_method
from mtl_optax.core.solvers.spread import similarity
from mtl_optax.core.stacked import (
    follow,
    from_stack,
    moved,
    norms_by_block,
    over,
    zero_stack,
)
from mtl_optax.core.stale_rows import rate_of
from mtl_optax.core.trees.leaves import blocks_of, one_block
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree, lead

_EPSILON = 1e-8  # of the authors


class SAMGSState(NamedTuple):
    """State of SAM-GS; averages are bias-corrected. B is 1 without a granularity."""

    momenta: TaskTree  # [T, *param], float32 or wider, averages of the gradients
    steps: TaskRows  # [T] int32, steps at which the task was active
    imbalance: jax.Array  # [B] average of (1 - Psi)^2
    calls: jax.Array  # [] int32, steps with an active task


def _mean_similarity(norms: jax.Array, active: jax.Array, variant: str) -> jax.Array:
    """Over the pairs of active tasks with these norms `[T]`; 1 without a pair."""
    pairs = active[:, None] & active[None, :]
    if variant == "code":
        pairs &= ~jnp.eye(norms.shape[0], dtype=bool)
    total, count = jnp.sum(similarity(norms), where=pairs), jnp.sum(pairs)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), 1)


@transformation_method
def sam_gs(
    num_tasks: int,
    *,
    beta: ScalarOrSchedule = 0.9,
    beta2: ScalarOrSchedule = 0.99,
    gamma: ScalarOrSchedule = 0.1,
    max_norm: NumbersOrSchedule = 1.0,
    variant: str = "code",
    granularity: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Brings gradients to one length where lengths clash, else multiplies by momenta.

    .. math::
      d = T \sum_t \begin{cases} \bar n \, g_t / \|g_t\| & \Psi < \gamma \\
      |\hat m_t| \odot g_t / \sqrt{\hat h} & \text{else} \end{cases}, \quad
      \Psi = \text{mean}_{s < t} \frac{2 \|g_s\| \|g_t\|}{\|g_s\|^2 + \|g_t\|^2}

    then shortened to `max_norm`, with :math:`\bar n` the mean norm, :math:`\hat m` the
    bias-corrected momenta of the gradients, and :math:`\hat h` that of :math:`h
    \leftarrow \beta_2 h + (1 - \beta_2)(1 - \Psi)^2 + 10^{-8}`.

    Args:
      num_tasks: T, a Python int.
      beta: decay of the momenta.
      beta2: decay of h, below 1.
      gamma: the similarity below which gradients are brought to one length; 0 never
        does. The authors' best results have 0.9, and 0.9 for `beta2` beside it.
      max_norm: the largest norm of the update; None leaves it as it is.
      variant: "code"; or "paper", without the factor T, where the mean goes over all
        pairs, also of a task with itself, and 1e-8 is added to :math:`\sqrt{\hat h}`.
      granularity: None compares whole gradients; "leaf" those of each parameter array,
        or a tree of labels those of each block, as in :func:`mtl_optax.from_weighting`.
        `max_norm` is of the whole update.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. Output scale: norms of at most `max_norm`; without it T times a sum, of T
      mean norms, or of products of two gradients. T=1, or a single active task, has
      similarity 1: :math:`10^3 |\hat m| \odot g`, shortened. A zero gradient has
      similarity 0 with others, and counts in the mean norm.

    Raises:
      ValueError: for a `beta`, `beta2` or `gamma` outside [0, 1], a `max_norm` that is
        not positive, an unknown `variant`, or what is no granularity; for gradients
        that are not stacked, or another task count.

    Cost: T backward passes and T copies of the gradient; state of T copies more, and as
    many again while they are summed. No solver.

    Invariances: none to loss scales: they decide which of both forms a step has, and in
    the second a gradient counts with its square.

    Guarantee: none on conflicts. Where lengths clash all tasks pull equally hard;
    gradients that cancel give exactly zero.

    When not to use it: without `max_norm`, where gradients are about equally long:
    :math:`\Psi = 1` leaves :math:`\hat h` at :math:`10^{-8} / (1 - \beta_2)`, 1e-6 with
    the default, so that gains are 1000. Where coordinates of small gradients matter,
    for beside large ones their square is nothing; and where T copies of the parameters
    do not fit.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.sam_gs(num_tasks=2, max_norm=None)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[10.0, 0.0], [0.0, 0.1]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([10.1, 10.1], dtype=float32)

    References:
      Borsani et al., `Gradient Similarity Surgery in Multi-Task Deep Learning
      <https://arxiv.org/abs/2506.06130>`_, 2025.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    for name, value in {"beta": beta, "beta2": beta2, "gamma": gamma}.items():
        checks.at_least(name, value, 0)
        checks.at_most(name, value, 1)
    checks.positive("1 - beta2", 1 - beta2)
    if max_norm is not None:
        checks.scalar("max_norm", max_norm)
    checks.positive("max_norm", max_norm)
    checks.one_of("variant", variant, ("code", "paper"))
    one_block(granularity)

    def init(params: optax.Params) -> SAMGSState:
        steps = replicated_zeros((num_tasks,), params).astype(jnp.int32)
        num_blocks = max(_blocks(granularity, params), default=0) + 1
        imbalance = replicated_zeros((num_blocks,), params)
        calls = replicated_zeros((), params).astype(jnp.int32)
        return SAMGSState(zero_stack(params, num_tasks), steps, imbalance, calls)

    def update(
        gradients: optax.Updates,
        state: SAMGSState,
        *,
        active: jax.Array,
        params: optax.Params | None,
        **extra: Any,
    ) -> tuple[optax.Updates, SAMGSState]:
        del extra
        some = jnp.any(active)
        steps, calls = state.steps + active, state.calls + some
        rates = rate_of(beta, jnp.maximum(steps, 1))
        momenta = follow(state.momenta, gradients, rates, active)

        tree = jax.tree.map(lambda g: g[0], gradients) if params is None else params
        blocks = _blocks(granularity, tree)
        norms = norms_by_block(gradients, blocks)
        similar = jnp.stack([_mean_similarity(row, active, variant) for row in norms])
        rate = rate_of(beta2, jnp.maximum(calls, 1))
        imbalance = moved(state.imbalance, (1 - similar) ** 2, rate)
        imbalance = jnp.where(some, imbalance, state.imbalance)
        # What 1e-8 a step comes to, bias-corrected: the same at every step.
        root = jnp.sqrt(imbalance + _EPSILON / (1 - jnp.asarray(beta2)))
        root = root + _EPSILON if variant == "paper" else root

        # Over the least root and the largest norm, so that products stay numbers.
        least, unit = jnp.min(root), _or_one(jnp.max(norms))
        present = jnp.sum(active)
        mean = jnp.sum(norms, axis=1, keepdims=True) / jnp.maximum(present, 1)
        to_mean = jnp.where(norms > 0, least * (mean / unit), 0)
        forms = similar < gamma, _or_one(norms), to_mean, unit, root / least
        rows = _rows(gradients, momenta, blocks, forms)
        total, size = sum_of_rows(rows)
        gain = unit / least * (present if variant == "code" else 1)
        if max_norm is not None:
            gain = jnp.minimum(gain, max_norm / _or_one(size))
        gain = jnp.minimum(gain, jnp.finfo(gain.dtype).max)
        new = jax.tree.map(lambda x: x * gain, total)
        return new, SAMGSState(momenta, steps, imbalance, calls)

    return from_stack(num_tasks, init, update)


def _or_one(norms: jax.Array) -> jax.Array:
    """To divide by: 1 for 0."""
    return jnp.where(norms > 0, norms, 1)


def _blocks(granularity: Any, params: optax.Params) -> tuple[int, ...]:
    """The block of each leaf, numbered from 0."""
    blocks = blocks_of(granularity, params)
    return (0,) * len(jax.tree.leaves(params)) if blocks is None else blocks


def _rows(
    gradients: optax.Updates,
    momenta: optax.Updates,
    blocks: tuple[int, ...],
    forms: tuple[jax.Array, ...],
) -> optax.Updates:
    """What is summed `[T, *param]`: gradients of one length, or times their momenta."""
    clash, norms, to_mean, unit, root = forms

    def row(gradient: jax.Array, momentum: jax.Array, block: int) -> jax.Array:
        wide = gradient.astype(unit.dtype)
        # Over its own norm: what is nothing beside the largest has a direction too.
        direction = over(wide, lead(norms[block], wide))
        equal = lead(to_mean[block], wide) * direction
        by_momentum = jnp.abs(momentum) / root[block] * over(wide, unit)
        return jnp.where(clash[block], equal, by_momentum)

    leaves = jax.tree.leaves(gradients), jax.tree.leaves(momenta), blocks
    rows = [row(*each) for each in zip(*leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(gradients), rows)
