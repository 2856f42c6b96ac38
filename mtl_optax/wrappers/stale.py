"""stale: one task's gradient a step; the method sees all tasks, fresh and stale."""

from typing import Any

import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import transformation_method
from mtl_optax.core.stale_rows import momenta, on_stale_rows
from mtl_optax.core.turns import Turns
from mtl_optax.core.weighting import check_transformation


@transformation_method
def stale(
    tx: optax.GradientTransformation,
    num_tasks: int,
    *,
    refresh: int = 1,
    decay: ScalarOrSchedule = 0.9,
    order: str = "cyclic",
    key: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Renews the momentum of some tasks a step, and hands a method those of all.

    .. math::
      m_t \leftarrow \beta m_t + (1 - \beta) g_t, \quad n_t \leftarrow n_t + 1
      \quad \text{for the } r \text{ tasks whose turn it is}, \qquad
      d = \text{tx} \Big( \frac{m_1}{1 - \beta^{n_1}}, \ldots,
      \frac{m_T}{1 - \beta^{n_T}} \Big)

    With ConFIG as the method this is the direction of M-ConFIG
    (:func:`mtl_optax.mconfig` has its Adam too); with any other the same idea: a step
    of a multi-task method at the price of one backward pass.

    Args:
      tx: a method, or a chain that begins with one: the optimiser may be inside, where
        it rests until the first update, or behind.
      num_tasks: T, a Python int.
      refresh: r, how many tasks are renewed in a step, a Python int.
      decay: :math:`\beta`, in [0, 1]; 0 keeps each task's last gradient, 1 the mean of
        all so far.
      order: "cyclic" takes the tasks in turn, in sorted order of names; "random" draws
        r of them.
      key: int or key for the draws.

    Returns:
      A transformation like `tx` whose updates are zero, and the state of `tx` as it
      was, until every task was seen once. Of lazy gradients only those of the tasks
      that are renewed are computed; so let nothing else read the losses where each task
      has inputs of its own, or all forward passes run. Stacked ones are computed by
      whoever made them. A task that is not `active` keeps its momentum, which the
      method goes on seeing, and its turn goes to the next that is; its loss is then the
      one last seen in a step that had `active=`, 1 before. The state has `due` `[T]`
      bool, the tasks that the next update renews if all are active, for whoever loads a
      batch for these alone.

    Raises:
      ValueError: for a `refresh` that is no Python int from 1 to T, an unknown `order`,
        a `decay` outside [0, 1]; for gradients that are not stacked, another task
        count, or a state of another one.

    Cost: r backward passes, and what serves single tasks (heads) for those r alone; T
    copies of the gradient in float32, which the method reads once more. On a CPU
    convolutions of heads, or of tasks that share none, run for all T: XLA is slow
    inside a branch.

    When not to use it: with many tasks, whose momenta are then T / r steps old on
    average and more; where a task's NaN is to be expected (its momentum keeps it: pass
    `active=` with `jnp.isfinite(losses)`); under `jax.vmap` over seeds, where all
    branches run; with a task that never comes, for which the first update waits.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = mtl.stale(mtl.unitary(num_tasks=2), num_tasks=2)
      >>> params = {"w": jnp.zeros(1)}
      >>> state = tx.init(params)
      >>> for size in (1.0, 2.0, 3.0):
      ...     grads = {"w": jnp.array([[size], [10 * size]])}
      ...     update, state = tx.update(grads, state, params)
      ...     print(update["w"].round(3))
      [0.]
      [21.]
      [22.053]

    References:
      Liu, Chu and Thuerey, `ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024, whose M-ConFIG this
      makes of any method.
    """
    check_transformation("stale", tx)
    checks.at_least("decay", decay, 0)
    checks.at_most("decay", decay, 1)
    turns = Turns(num_tasks, refresh, order, key)
    return on_stale_rows(tx, momenta(decay), turns)
