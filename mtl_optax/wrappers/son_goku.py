"""SON-GOKU: groups of harmless tasks in turn (arXiv 2509.16959).

From the authors' public code: strict threshold, negative cosines of moving averages,
Welsh-Powell colouring, one colour a step, coloured anew every so many steps. There the
cycle goes on with the second colour after that; here with the first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import named
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.method import transformation_method
from mtl_optax.core.solvers.colouring import welsh_powell
from mtl_optax.core.solvers.linalg import cosine_matrix
from mtl_optax.core.stacked import follow, zero_stack
from mtl_optax.core.state_guard import batched, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads, unchecked
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.leaves import chosen, only
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree
from mtl_optax.core.weighting import check_transformation


class SonGokuState(NamedTuple):
    """State of son_goku."""

    step: jax.Array  # [] int32
    position: jax.Array  # [] int32, of the cycle through the groups
    colours: TaskRows  # [T] int32, the group that each task is in
    due: TaskRows  # [T] bool, the group that the next update trains
    averages: TaskTree  # [T, *param] moving averages of the gradients
    inner: Any  # state of the wrapped chain


@transformation_method
def son_goku(
    tx: optax.GradientTransformation,
    num_tasks: int,
    *,
    threshold: ScalarOrSchedule = 0.25,
    period: int = 32,
    decay: ScalarOrSchedule = 0.9,
    leaves: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Trains groups of tasks that do not conflict in turn, one group a step.

    .. math::
      e_t \leftarrow \beta e_t + (1 - \beta) g_t, \qquad
      t \text{ conflicts with } s \iff -\cos(e_t, e_s) > \tau

    Every `period` steps the graph of conflicts is coloured (Welsh and Powell: tasks by
    falling number of conflicts, each in the first colour without one), so that no group
    holds a conflict above the threshold. Until the first time all tasks train together.

    Args:
      tx: a method or a whole chain, which sees the tasks of the group as active.
      num_tasks: T, a Python int.
      threshold: :math:`\tau`. The authors let it fall from 1 to 0.25, for example
        `optax.exponential_decay(1.0, steps, 0.25, end_value=0.25)`.
      period: steps from one colouring to the next, a Python int.
      decay: :math:`\beta`.
      leaves: the leaves that cosines are taken over, those that all tasks share: a tree
        of bools like the parameters, a prefix of one, or a function of them. None: all,
        where heads make cosines smaller.

    Returns:
      A transformation like `tx`. Of lazy gradients only those of the group are
      computed, and those of all tasks at every `period`-th step. The state has `due`
      `[T]` bool, the group that the next update trains (all tasks' gradients are looked
      at where the next step is a multiple of `period`), and `colours`. Tasks that are
      not `active` miss their turn; a group of which none is gives a zero update, which
      an optimiser behind its method still sees.

    Raises:
      ValueError: for a `period` that is no positive Python int, a `decay` outside
        [0, 1]; for gradients that are not stacked, another task count, or a state of
        another one.

    Cost: on average T over the number of groups backward passes; T copies of the
    gradient on `leaves`, and one stack. On a CPU all T, in a network that convolves,
    since XLA is slow inside a branch.

    When not to use it: where tasks rarely conflict, and all train in one group; where a
    step must not forget a task (a loss that only one group holds back); under
    `jax.vmap` over seeds, where all branches run.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = mtl.son_goku(mtl.unitary(3), 3, threshold=0.5, period=1)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 0.1], [0.5, 1.0]])}
      >>> state = tx.init(params)
      >>> for step in range(2):  # all tasks; then the group of 0 and 2
      ...     update, state = tx.update(grads, state, params)
      ...     print(update["w"])
      [0.5 1.1]
      [1.5 1. ]

    References:
      `SON-GOKU <https://arxiv.org/abs/2509.16959>`_, 2025; Welsh and Powell, An upper
      bound for the chromatic number of a graph, 1967.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    period = checks.static_int("period", period)
    check_transformation("son_goku", tx)
    checks.at_least("decay", decay, 0)
    checks.at_most("decay", decay, 1)
    inner = inside(tx)

    def looked_at(tree: Any) -> Any:
        return tree if leaves is None else only(tree, chosen(leaves, tree, "leaves="))

    def init(params: optax.Params) -> SonGokuState:
        check_params("tx.init", params)
        # Two arrays: one of them could not be donated twice.
        zero, first = (replicated_zeros((), params).astype(jnp.int32) for _ in range(2))
        colours = replicated_zeros((num_tasks,), params).astype(jnp.int32)
        averages, state = looked_at(zero_stack(params, num_tasks)), inner.init(params)
        return SonGokuState(zero, first, colours, colours == 0, averages, state)

    def update(
        updates: Any,
        state: SonGokuState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SonGokuState]:
        about = {"losses": losses, "active": active}
        given = as_task_grads(updates, num_tasks, params, **about)
        check_state(
            state.averages, batched(looked_at(given.like()), num_tasks), num_tasks
        )
        present = jnp.ones(num_tasks, bool) if given.active is None else given.active
        step = state.step + 1
        again = step % period == 0
        group = state.due & present
        computed = (state.due | again) & present
        rows = given.some(computed)
        rate = jnp.full(num_tasks, 1 - jnp.asarray(decay))
        averages = follow(state.averages, looked_at(rows), rate, computed)
        new, after = inner.update(
            rows,
            state.inner,
            params,
            losses=named(given.losses, given.names),
            active=named(group, given.names),
            **extra_args,
        )
        colours = lax.cond(
            again, lambda: _colours(averages, threshold), lambda: state.colours
        )
        position = jnp.where(again, 0, _next_group(colours, state.position))
        due = colours == position
        return new, SonGokuState(step, position, colours, due, averages, after)

    return placed(init, update, WRAPPER)


def _next_group(colours: jax.Array, position: jax.Array) -> jax.Array:
    """The next colour that a task has: one may be left without by `resize_tasks`."""
    count = jnp.max(colours) + 1
    return (position + 1 + jnp.min((colours - position - 1) % count)) % count


def _colours(averages: Any, threshold: Any) -> jax.Array:
    gramian, _ = unchecked(averages).measure()
    return welsh_powell(-cosine_matrix(gramian)[0] > threshold)
