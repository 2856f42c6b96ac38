"""accumulate_tasks: gradient accumulation that aggregates once, not at every step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import named
from mtl_optax.core.chains.places import WRAPPER, inside, placed, watched
from mtl_optax.core.gathered import (
    AccumulateTasksState,
    arrays_of,
    as_weighed,
    begun_anew,
    counted,
    mean_losses,
    nothing_gathered,
    with_rows,
    with_sum,
)
from mtl_optax.core.known_weights import KnownWeights, known_weights
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.trees.branches import as_before, strong, zeros_of
from mtl_optax.core.weighting import check_transformation


def accumulate_tasks(
    tx: optax.GradientTransformation,
    num_tasks: int,
    every_k: int,
    *,
    missing: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages each task's gradient over `every_k` micro-batches, then updates once.

    .. math:: d = \text{tx} \Big( \tfrac1k \sum_{j=1}^k g_1^{(j)}, \ldots,
      \tfrac1k \sum_{j=1}^k g_T^{(j)} \Big)

    Conflicts are decided on the gradients of the big batch, to rounding, where
    `optax.MultiSteps` after a method decides them on every micro-batch, and around one
    fails. Weights that `tx` takes from its state alone are known before the gradients
    are; then these are weighted at once, and summed.

    Args:
      tx: the whole chain, from the method to the optimiser.
      num_tasks: T, a Python int.
      every_k: number of micro-batches, a Python int.
      missing: whether tasks may be missing from micro-batches, which `active` tells.
        False keeps no stack for that where the weights are known.

    Returns:
      A transformation like `tx` whose updates are zero but at every k-th call. Losses
      are averaged too. A task that was `active` in some of the micro-batches only is
      averaged over those; in none, it is inactive. Give `active` at every micro-batch
      of a step or at none: where the weights are known, those with and those without
      are averaged apart, and both by their numbers. Losses and `active` reach `tx` by
      name, where the tasks have names. Other extra arguments are those of the last
      micro-batch. Updates have the dtypes that `tx` gives them.

    Raises:
      ValueError: for an `every_k` that is no positive Python int; for gradients that
        are not stacked, another task count, or a state of another one; for a chain
        whose state changes its shapes; with `missing=False` for `active`, or an extra
        argument that the weights depend on, where only one sum is kept.

    Cost: where the weights are known, and without `active`, one backward pass at every
    micro-batch of lazy gradients, and one copy of the parameters beside a stack of T
    that nothing touches (none with `missing=False`). That is so for `unitary`, `mean`,
    `constant`, `rlw`, `uw`, `imtl_l` and `dwa` by epochs, first in the chain, and in
    `on_shared` or `cr_mogm`. Else T backward passes, and one stack of T gradients (of
    the parameters' dtype), to which lazy ones are added row by row (but all at once
    with `chunk_size`, on leaves that some tasks share, and before a convolution).

    When not to use it: for a method whose weights follow the losses of the same step
    (`gls`, `stch`, `tchebycheff`, `pbi`, `cosmos`, `scale_invariant`, `famo`, `nmt`,
    sliding `dwa`): those of the big batch are known at its end, so that T gradients
    must wait. A loss that is itself a mean over micro-batches costs them one forward
    pass more, and no state: see the recipes. Around a method that asks for losses again
    (`flat_mtl`, `samo`, `forum`, `cso`, `selective_groups`) but with such a loss:
    `losses_fn=` is that of the last micro-batch, from which alone `flat_mtl` and `samo`
    make the update.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = mtl.accumulate_tasks(mtl.unitary(2), num_tasks=2, every_k=2)
      >>> params = {"w": jnp.zeros(1)}
      >>> state = tx.init(params)
      >>> update, state = tx.update({"w": jnp.array([[1.0], [2.0]])}, state, params)
      >>> update
      {'w': Array([0.], dtype=float32)}
      >>> update, state = tx.update({"w": jnp.array([[3.0], [4.0]])}, state, params)
      >>> update
      {'w': Array([5.], dtype=float32)}

    References:
      optax issue 515, the same need for differentially private gradients.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    every_k = checks.static_int("every_k", every_k)
    check_transformation("accumulate_tasks", tx)
    inner = inside(tx)

    def init(params: optax.Params) -> AccumulateTasksState:
        state, losses = inner.init(params), jnp.zeros(num_tasks)
        known = known_weights(
            inner, state, params, num_tasks, losses=losses, params=params
        )
        weighted = known is not None and known.by_state
        return nothing_gathered(
            *(params, num_tasks, state),
            rows=missing or not weighted,
            weighted=weighted,
        )

    def update(
        updates: Any,
        state: AccumulateTasksState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AccumulateTasksState]:
        given = as_task_grads(updates, num_tasks, params, losses=losses, active=active)
        check_state(*arrays_of(state, given.like(), num_tasks), num_tasks)
        now, known = counted(state, given), None
        mean = None if given.losses is None else mean_losses(now)
        if state.weighted is not None and not watched():
            known = known_weights(
                *(inner, state.inner, state.weighted.total, num_tasks),
                losses=mean,
                params=params,
                names=given.names,
                extra_args=extra_args,
            )
        due = now.micro_step >= every_k
        now = _with_gradients(now, given, known, due)

        def emit(inner_state: Any) -> Any:
            some = None if given.active is None else now.gathered_counts > 0
            new, after = inner.update(
                _handed_over(now, known, num_tasks),
                inner_state,
                params,
                losses=named(mean, given.names),
                active=named(some, given.names),
                **extra_args,
            )
            after = as_before("The chain in accumulate_tasks", after, inner_state)
            return strong(new), after

        updated, _ = jax.eval_shape(emit, state.inner)

        def wait(inner_state: Any) -> Any:
            return zeros_of(updated), inner_state

        # What is gathered is not carried through the branches, which would copy it.
        new, inner_state = lax.cond(due, emit, wait, state.inner)
        return new, begun_anew(now, due)._replace(inner=inner_state)

    return placed(init, update, WRAPPER)


def _with_gradients(
    now: AccumulateTasksState,
    given: TaskGrads,
    known: KnownWeights | None,
    due: jax.Array,
) -> AccumulateTasksState:
    """With those of a micro-batch, at once where that is exact."""
    if known is not None and known.by_state and given.active is None:
        return with_sum(now, given, known)
    if now.gathered is not None:
        return with_rows(now, given, due if known is None else False)
    if watched():
        return now
    what = "active= was given" if given.active is not None else "it is not known here"
    raise ValueError(
        "accumulate_tasks(missing=False) keeps one weighted sum of the gradients, for "
        "which the weight of each task must be known beforehand, and every task be in "
        f"every micro-batch; but {what}. Leave missing=False away, which keeps one "
        "gradient a task."
    )


def _handed_over(
    now: AccumulateTasksState, known: KnownWeights | None, num_tasks: int
) -> Any:
    """What the chain is given for the gradients of the big batch."""
    if known is not None:
        return as_weighed(now, known, num_tasks)
    if now.gathered is not None:
        return now.gathered
    # Somebody is watching, who asks for no numbers.
    assert now.weighted is not None
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (num_tasks, *x.shape)), now.weighted.total
    )
