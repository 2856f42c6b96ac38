"""A ring buffer of transitions on the device, with a region for each task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import active_mask
from mtl_optax.core.trees.task_axis import where_active

Array = jax.Array


class Batch(NamedTuple):
    """Transitions of K tasks; without the axis n, one of each task."""

    obs: Any  # [K, n, d]
    action: Any  # [K, n, A]
    reward: Any  # [K, n]
    next_obs: Any  # [K, n, d] of the same episode, also where a new one has begun since
    terminated: Any  # [K, n], 1.0 where nothing follows; a time limit is no such end


class Buffer(NamedTuple):
    """Rows of each task, the newest over the oldest."""

    rows: Batch  # of arrays [K, capacity, ...]
    at: Array  # [K] int32, where the next one goes
    filled: Array  # [K] int32, number of rows that hold something


def init(num_tasks: int, capacity: int, obs_dim: int, action_dim: int) -> Buffer:
    """A buffer without transitions.

    Args:
      num_tasks: K.
      capacity: rows for each task.
      obs_dim: d.
      action_dim: A.

    Cost: `K * capacity * (2 d + A + 2)` numbers of float32.
    """
    zeros = lambda *shape: jnp.zeros((num_tasks, capacity, *shape), jnp.float32)  # noqa: E731
    rows = Batch(zeros(obs_dim), zeros(action_dim), zeros(), zeros(obs_dim), zeros())
    none = jnp.zeros(num_tasks, jnp.int32)
    return Buffer(rows, none, none)


def add(buffer: Buffer, transition: Batch, present: Any = None) -> Buffer:
    """The buffer with one more row of each task.

    Args:
      buffer: of K tasks.
      transition: leaves `[K, ...]`.
      present: `[K]` bool, or a dict by name, the tasks that have one; None: all.

    Raises:
      ValueError: for arrays of other shapes.

    Cost: K rows, in place where the buffer is donated or carried by a scan.
    """
    num_tasks, capacity = buffer.rows.reward.shape
    task = jnp.arange(num_tasks)
    given = jnp.ones(num_tasks, bool) if present is None else present
    here = active_mask(given, num_tasks, "present")

    def write(rows: Array, new: Any) -> Array:
        new = jnp.asarray(new, rows.dtype)
        if new.shape != (num_tasks, *rows.shape[2:]):
            raise ValueError(
                f"replay.add takes one transition a task: an array of it must be "
                f"{(num_tasks, *rows.shape[2:])}; got {new.shape}."
            )
        written = where_active(here, new, rows[task, buffer.at])
        return rows.at[task, buffer.at].set(written)

    step = here.astype(jnp.int32)
    return Buffer(
        jax.tree.map(write, buffer.rows, transition),
        (buffer.at + step) % capacity,
        jnp.minimum(buffer.filled + step, capacity),
    )


def sample(buffer: Buffer, key: Array, n: int) -> Batch:
    """Draws n transitions of each task with replacement, each from its own rows.

    Args:
      buffer: of K tasks. One without rows gets zeros: `buffer.filled > 0` is what
        `active` of an update should be, then.
      key: for this draw. A task's draws do not depend on which others there are.
      n: rows a task.

    Returns:
      A :class:`Batch` of leaves `[K, n, ...]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from mtl_optax import rl
      >>> buffer = rl.replay.init(2, capacity=4, obs_dim=1, action_dim=1)
      >>> one = rl.Batch(
      ...     *(jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.arange(2.0)),
      ...     *(jnp.ones((2, 1)), jnp.zeros(2)),
      ... )
      >>> buffer = rl.replay.add(buffer, one)
      >>> rl.replay.sample(buffer, jax.random.key(0), 3).reward
      Array([[0., 0., 0.],
             [1., 1., 1.]], dtype=float32)
    """

    def of_task(task: Array, rows: Batch, count: Array) -> Batch:
        own = jax.random.fold_in(key, task)
        at = jax.random.randint(own, (n,), 0, jnp.maximum(count, 1))
        return jax.tree.map(lambda x: x[at], rows)

    return jax.vmap(of_task)(jnp.arange(len(buffer.filled)), buffer.rows, buffer.filled)
