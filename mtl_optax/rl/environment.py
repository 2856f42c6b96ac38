"""What an environment of K tasks is made of; one of your own gives the same."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Stepped(NamedTuple):
    """What one step of all tasks gives; the simulator's are arrays of NumPy."""

    next_obs: Any  # [K, d] of this episode: what a target bootstraps from
    obs: Any  # [K, d] to act on next: of the new episode where this one ended
    reward: Any  # [K]
    terminated: Any  # [K] 1.0 where nothing follows; a time limit is no such end
    success: Any  # [K] bool: solved in this step
    ended: Any  # [K] bool: time was up or it terminated; obs begins a new episode


class Env(NamedTuple):
    """K tasks in JAX that step together; one of your own is made of these six."""

    tasks: tuple[str, ...]  # in sorted order, which is that of the axis K
    obs_dim: int  # d, the same for all tasks
    action_dim: int  # A, likewise; actions lie in [-1, 1]
    horizon: int  # the most steps of an episode
    reset: Callable[[Any], tuple[Any, Any]]  # key -> state, obs [K, d]
    step: Callable[[Any, Any], tuple[Any, Stepped]]  # state, action [K, A]
