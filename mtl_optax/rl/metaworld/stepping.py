"""An episode's beginning and one step, of all tasks at once.

Two differences from Gymnasium and `metaworld`, each of which a test holds:

* What ends an episode is a time limit, and the vector environment returns the first
  observation of the next one. `step` has both: the true successor, for the bootstrap,
  and the one to act on.
* `reset(seed=...)` of Meta-World does not seed; `reset` here does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.rl.environment import Stepped


def reset(envs: Any, seed: int) -> NDArray:
    """A new episode of every task; the same for the same seed, whatever went before.

    Args:
      envs: from `make_envs`.
      seed: says which of its goals each task has, in this episode and the next ones.

    Returns:
      Observations `[K, d]`, float32.
    """
    envs.call("seed", seed)  # `reset(seed=...)` of Meta-World is without effect
    return np.asarray(envs.reset()[0], np.float32)


def step(envs: Any, actions: Any) -> Stepped:
    """One step of all tasks.

    Args:
      envs: from `make_envs`.
      actions: `[K, 4]`, within -1 and 1.

    Returns:
      What it gave; where an episode ended, `next_obs` is its last observation and `obs`
      the first of the next.

    Raises:
      ValueError: for another shape, or an action that is NaN or infinite: the simulator
        would go on from it without a word.
      RuntimeError: before the first `reset`.
    """
    actions = np.asarray(actions, np.float32)
    if actions.shape != envs.action_space.shape:
        raise ValueError(
            f"actions have shape {actions.shape}, but {envs.num_envs} tasks take "
            f"{envs.action_space.shape}: one row a task."
        )
    if not np.isfinite(actions).all():
        rows = np.flatnonzero(~np.isfinite(actions).all(axis=1)).tolist()
        raise ValueError(
            f"actions of tasks number {rows} are NaN or infinite: most likely the "
            "actor's parameters are. Look at its losses, or lower the learning rate."
        )
    try:
        obs, reward, terminated, truncated, infos = envs.step(actions)
    except RuntimeError as error:
        if "set_task" not in str(error):
            raise
        raise RuntimeError(
            "step before an episode began: call reset(envs, seed) of "
            "mtl_optax.rl.metaworld first."
        ) from error
    ended = terminated | truncated
    next_obs, success = obs.copy(), np.zeros(len(ended), bool)
    if not ended.all():
        success = infos["success"] > 0
    if ended.any():
        next_obs[ended] = np.stack(infos["final_obs"][ended])
        success[ended] = infos["final_info"]["success"][ended] > 0
    numbers = (np.asarray(x, np.float32) for x in (next_obs, obs, reward, terminated))
    return Stepped(*(*numbers, success, ended))
