"""Success and return of a policy, per task."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.rl.metaworld.stepping import reset, step


def evaluate(
    policy: Callable[[NDArray], Any], envs: Any, *, episodes: int, seed: int
) -> dict[str, NDArray]:
    """Runs whole episodes, the same ones for the same seed.

    Success has two readings, and published numbers use both: an episode counts if its
    *last* step is a success (the task is solved and stays so), or if *any* step is one
    (as with `terminate_on_success`, so in `metaworld.evaluation`). Say which.

    Args:
      policy: from observations `[K, d]` to actions `[K, 4]`.
      envs: from `make_envs`, others than those of the training.
      episodes: of each task.
      seed: of their goals.

    Returns:
      A dict of arrays `[K]`: "success" and "any_success", shares of episodes; "return",
      the mean sum of rewards.

    Raises:
      ValueError: for less than one episode.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; evaluate at least one.")
    obs, ended_last, ended_any, returns = reset(envs, seed), [], [], []
    for _ in range(episodes):
        total, hit, ended = np.zeros(len(obs)), np.zeros(len(obs), bool), False
        while not ended:
            stepped = step(envs, policy(obs))
            total, hit = total + stepped.reward, hit | stepped.success
            # All at once: nothing but the time limit ends an episode.
            obs, ended = stepped.obs, bool(stepped.ended.all())
        ended_last.append(stepped.success)
        ended_any.append(hit)
        returns.append(total)
    return {
        "success": np.mean(ended_last, axis=0),
        "any_success": np.mean(ended_any, axis=0),
        "return": np.mean(returns, axis=0),
    }
