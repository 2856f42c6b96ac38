r"""FORUM: the weights' own loss as a constraint, and first order only (Ye et al. 2024).

Algorithm 1 of arXiv 2401.09257 in the form of LibMTL (MIT; read, not copied): softmax
weights, unit validation gradients, the value function from K plain steps. Differences:
the solution of the quadratic program is exact (`core/solvers/value_gap.py`, DERIVED
there), and 1e-8 is added to :math:`|q|^2` wherever that stands, where LibMTL's program
has no solution if q is 0. The average of the weights moves by
:math:`(k+1)^{-3/4}` after k steps; LibMTL counts epochs there (`step_size`). Where the
K steps overflow LibMTL stops them (at a loss of 1e5); here the weights then get no
gradient in that step.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule, next_step
from mtl_optax.core.bilevel import (
    both_batches,
    descended,
    softmax_among,
    softmax_slopes,
)
from mtl_optax.core.chains.places import placed
from mtl_optax.core.learned import TaskScalars, scalars_from, step_scalars
from mtl_optax.core.method import transformation_method
from mtl_optax.core.solvers.value_gap import value_gap_weights
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.at_other_params import group_grads_at
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads
from mtl_optax.core.task_grads.losses_fn import asked
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.unit_gradients import unit_gradients


class FORUMState(NamedTuple):
    """State of FORUM."""

    task_weights: TaskRows  # [T] of the training gradients in the last update: nu s
    objective_weights: TaskRows  # [T] running mean of w, of the validation gradients
    learned: TaskScalars  # alpha, of which s is the softmax
    step_count: jax.Array  # [] int32, steps so far with a task that judges


@transformation_method
def forum(
    num_tasks: int,
    *,
    learning_rate: ScalarOrSchedule = 0.1,
    inner_steps: int = 5,
    phi: ScalarOrSchedule = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    step_size: ScalarOrSchedule = None,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Descends every validation loss while the weighted training loss is held down.

    .. math::
      s = \text{softmax}(\alpha), \quad
      q = \nabla_{\alpha, \theta} \sum_t s_t (L_t(\theta) - L_t(\theta_K)), \quad
      d = \sum_t \bar w_t u_t + \nu q, \quad
      \nu = \max \Big( \sum_t \bar w_t \pi_t, 0 \Big)

    with :math:`u_t` the validation gradient over its norm, :math:`\theta_K` held fixed
    after K steps on the training batch, :math:`\pi_t = \phi - \langle u_t, q \rangle /
    |q|^2`, and :math:`\bar w` the running mean of the simplex weights that minimise
    :math:`|\sum_t w_t u_t + \nu q|^2 - \nu \phi |q|^2` over :math:`\nu \ge
    \max(\sum_t w_t \pi_t, 0)`. alpha moves along its own part of d.

    Args:
      num_tasks: T, a Python int.
      learning_rate: of the K steps; may be a tracer.
      inner_steps: K, a Python int.
      phi: by how much q must fall, in units of its squared gradient.
      optimizer: optax optimiser of alpha, which starts at equal weights; None is
        `optax.adam(1e-3)`.
      step_size: of the running mean, which starts at 0; None is (k+1)^(-3/4) after k
        steps. LibMTL's is `lambda count: (count // steps_per_epoch + 1.0) ** -0.75`.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: what is asked again is averaged over it.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Its
      `update` needs `params`, `losses_fn=`, the losses of the same batch at other
      parameters, and `validation_losses_fn=`, those of a second batch, as in
      :func:`mtl_optax.auto_lambda`. Where nu is 0 the training batch has no part in
      the update: `mtl.task_weights` are those of its gradients, nu s, and the
      state's `objective_weights` those of the validation gradients. A task that is not
      `active` has none of both, and rests, as in :func:`mtl_optax.auto_lambda`; with
      `validation_active=` `[T]` bool a task may be in one batch only. Heads get the
      same. Output scale: at most 1, and nu q. T=1 gives the unit validation gradient,
      and nu times the training gradient.

    Raises:
      ValueError: for a negative learning rate or phi, an `inner_steps` that is no
        positive Python int; in `update` if `params`, `losses_fn=` or
        `validation_losses_fn=` is missing or does not return T losses, for gradients
        that are not stacked, or another task count.

    Cost: K + T backward passes with lazy gradients, T of them on the second batch, a
    forward pass and one in forward mode; with stacked ones a backward pass less; state
    of 6 numbers a task with Adam. In a step that needs nu a search of 20 T x T
    quadratic programs.

    Invariances: scaling the validation loss of one task changes nothing.

    Guarantee: with the weights of this step in place of their mean, descends every
    validation loss where nu is 0, and q by phi times its squared gradient where not;
    validation losses may rise then.

    When not to use it: where the second batch must stay unseen: the update is made of
    its gradients, so that it is training data; for those who want weighted training
    losses: where both batches agree nu is 0, and this is MGDA on the second batch.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> losses_fn = lambda x: {"a": (x - 1) ** 2, "b": (x - 2) ** 2}
      >>> tx = mtl.forum(num_tasks=2)
      >>> x = jnp.array(0.0)
      >>> _, grads = mtl.lazy_task_grads(losses_fn)(x)
      >>> update, state = tx.update(
      ...     *(grads, tx.init(x), x),
      ...     losses_fn=losses_fn,
      ...     validation_losses_fn=losses_fn,
      ... )
      >>> update
      Array(-1., dtype=float32)

    References:
      Ye, Lin, Cao, Zhang and Tsang, `A First-Order Multi-Gradient Algorithm for
      Multi-Objective Bi-Level Optimization <https://arxiv.org/abs/2401.09257>`_, 2024.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    inner_steps = checks.static_int("inner_steps", inner_steps)
    checks.at_least("learning_rate", learning_rate, 0)
    checks.at_least("phi", phi, 0)
    stepper = optax.adam(1e-3) if optimizer is None else optimizer
    start = partial(scalars_from(stepper, 1 / num_tasks), num_tasks)

    def init(params: optax.Params) -> FORUMState:
        check_params("tx.init", params)
        zeros = replicated_zeros((num_tasks,), params)
        return FORUMState(zeros, jnp.copy(zeros), start(), jnp.zeros((), jnp.int32))

    def update(
        updates: Any,
        state: FORUMState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        losses_fn: Callable[[optax.Params], Any] | None = None,
        validation_losses_fn: Callable[[optax.Params], Any] | None = None,
        validation_active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, FORUMState]:
        batches = both_batches(
            *("forum", num_tasks, updates, params, extra_args),
            losses=losses,
            active=active,
            validation_losses_fn=validation_losses_fn,
            validation_active=validation_active,
        )
        train, present = batches.train, batches.present
        if not jax.tree.leaves(train.like()):
            return train.like(), state
        ask, train = asked("forum", losses_fn, train, params, extra_args)
        check_state(state, jax.eval_shape(init, params), num_tasks)
        shares = softmax_among(state.learned.values, present)
        look = group_grads_at(ask, axis_name=axis_name)
        look = partial(look, weights=shares, active=train.active)
        q = _value_gap(train, shares, look, params, learning_rate, inner_steps)
        second = lazy_task_grads(batches.validation_losses, axis_name=axis_name)
        held_out, judging = second(params)[1], batches.judging
        held_out = dataclasses.replace(held_out, active=batches.validation_active)
        units = unit_gradients(held_out, q.down)

        about = units.cosines, units.along, q.square, jnp.asarray(phi, shares.dtype)
        new, share = value_gap_weights(*about, judging), step_size
        if step_size is None:
            share = (state.step_count.astype(new.dtype) + 1) ** -0.75
        mean = state.objective_weights
        mean = jnp.where(judging, mean + share * (new - mean), mean)
        used = jnp.where(judging, mean, 0)
        nu = jnp.maximum(jnp.sum(used * (phi - units.along / q.square)), 0)
        step = jax.tree.map(partial(_plus, nu), units.pull(used), q.down)
        moves = present & jnp.any(judging)
        learned = step_scalars(stepper, nu * q.own, state.learned, moves)
        count = next_step(state.step_count, judging)
        return step, FORUMState(nu * shares, mean, learned, count)

    return placed(init, update)


class _ValueGap(NamedTuple):
    """The gradient of the weighted losses here minus those after K steps."""

    down: Any  # the parameters' part
    own: jax.Array  # [T], alpha's
    square: jax.Array  # of the length of both


def _value_gap(
    train: TaskGrads,
    shares: jax.Array,
    look: Callable[..., Any],
    params: Any,
    learning_rate: Any,
    steps: int,
) -> _ValueGap:
    def step(_: Any, there: Any) -> Any:
        return descended(there, learning_rate, look(there)[1])

    down = train.pull(shares)
    bounds = jnp.int32(1), jnp.int32(steps)
    first = descended(params, learning_rate, down)
    there = lax.fori_loop(*bounds, step, first)
    before = look(params)[0] if train.losses is None else train.losses
    gap = before - look(there)[0]
    gap = gap if train.active is None else jnp.where(train.active, gap, 0)
    own = softmax_slopes(shares, jnp.where(jnp.all(jnp.isfinite(gap)), gap, 0))
    wide = [x.astype(own.dtype) for x in jax.tree.leaves(down)]
    square = sum((jnp.sum(x**2) for x in wide), jnp.sum(own**2)) + 1e-8
    # Of gradients whose square is no number as much as is one.
    return _ValueGap(down, own, jnp.minimum(square, 1e30))


def _plus(nu: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    return (first.astype(nu.dtype) + nu * second.astype(nu.dtype)).astype(first.dtype)
