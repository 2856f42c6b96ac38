"""Meta-World's tasks as one vector environment, K tasks in the order they are given.

Seeds hold here: `Meta-World/custom-mt-envs` takes seed 0 for no seed, and `metaworld`'s
`num_goals` changes what is made after it, so it is no argument. The version of the
reward is always given: success means the same in "v1" and "v2", returns do not.
"""

import difflib
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

HORIZON = 500  # steps of an episode of Meta-World
OBSERVATION = 39  # numbers in an observation, without a one-hot
ACTION = 4
REWARDS = ("v1", "v2")
STRATEGIES = ("sync", "async")
CORES = 4  # from which on a process a task can pay
MT10 = (  # sorted, as `mtsac` takes names
    *("button-press-topdown-v3", "door-open-v3", "drawer-close-v3", "drawer-open-v3"),
    *("peg-insert-side-v3", "pick-place-v3", "push-v3", "reach-v3"),
    *("window-close-v3", "window-open-v3"),
)


def make_envs(
    tasks: Sequence[str],
    seed: int,
    *,
    reward_function_version: str,
    vector_strategy: str | None = None,
    one_hot: bool = False,
    max_episode_steps: int = HORIZON,
) -> Any:
    """A Gymnasium vector environment, one environment a task.

    Args:
      tasks: names of Meta-World, such as `MT10` or `("reach-v3", "push-v3")`.
      seed: of the 50 goals of each task, and of which goal an episode has.
      reward_function_version: "v2", the usual one, or "v1". Say it beside every result.
      vector_strategy: "sync" steps one task after the other; "async" has a process for
        each, started afresh ("spawn"), so a script needs `if __name__ == "__main__":`.
        None is "async" from 4 cores on. Numbers are the same.
      one_hot: appends the task to the observation. Networks of `mtl_optax.rl.networks`
        do that themselves.
      max_episode_steps: the time limit, at most 500.

    Returns:
      A `gymnasium.vector.VectorEnv` in the mode SAME_STEP, for `reset` and `step` of
      this package. `close` it when done.

    Raises:
      ImportError: where the extra is missing.
      ValueError: for a task that Meta-World does not have, a task twice, none; for
        another version, strategy, time limit, or a negative seed.

    Cost: about a second a task, to draw the goals; then 0.2 to 0.8 ms a step of a task.

    When not to use it: as a test of a method; `mtl_optax.rl.point_mass` trains in
    seconds on the device.

    Example::

      envs = make_envs(("reach-v3", "push-v3"), seed=0, reward_function_version="v2")
      obs = reset(envs, seed=0)  # [2, 39]
      stepped = step(envs, np.zeros((2, 4)))

    References:
      Yu et al. 2020, "Meta-World"; McLean et al. 2025, "Meta-World+".
    """
    gym, metaworld = packages()
    _check_tasks(tasks, metaworld.ALL_V3_ENVIRONMENTS)
    strategy = vector_strategy or ("async" if _cores() >= CORES else "sync")
    _one_of("reward_function_version", reward_function_version, REWARDS)
    _one_of("vector_strategy", strategy, STRATEGIES)
    if not 1 <= max_episode_steps <= HORIZON:
        raise ValueError(
            f"max_episode_steps is {max_episode_steps}, but an episode of Meta-World "
            f"has 1 to {HORIZON} steps."
        )
    options = {
        "seed": _first_seed(seed, len(tasks)),
        "reward_function_version": reward_function_version,
        "use_one_hot": one_hot,
        "max_episode_steps": max_episode_steps,
    }
    make = partial(_in_this_process if strategy == "sync" else _in_processes, gym)
    with warnings.catch_warnings():
        # With a one-hot the space is of float32, as all is that `step` returns.
        warnings.filterwarnings("ignore", ".*precision lowered by casting to float32")
        return make(tasks, options)


def packages() -> tuple[Any, Any]:
    """Gymnasium and `metaworld`, or an ImportError that says how to have them."""
    try:
        import gymnasium
        import metaworld
    except ImportError as error:  # also of `packaging`, which neither declares
        raise ImportError(
            f'Meta-World does not import ({error}); run: pip install "mtl-optax[rl]"'
        ) from error
    return gymnasium, metaworld


def _check_tasks(tasks: Sequence[str], known: Any) -> None:
    if isinstance(tasks, str):
        raise ValueError(f'tasks is the string "{tasks}"; write ("{tasks}",), or MT10.')
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks are different names, at least one; got {list(tasks)}.")
    for task in tasks:
        if task not in known:
            near = difflib.get_close_matches(task, known, n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"it has {[*known]}"
            )
            raise ValueError(f'Meta-World has no task "{task}": {hint}')


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it is {' or '.join(map(repr, known))}.")


def _first_seed(seed: int, num_tasks: int) -> int:
    """Task k of K gets this and k: no two runs share one, and none is 0, no seed."""
    if seed < 0:
        raise ValueError(f"seed is {seed}, but NumPy's seeds are 0 or more.")
    return 1 + seed * num_tasks


def _cores() -> int:
    """Those this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _in_this_process(gym: Any, tasks: Sequence[str], options: dict[str, Any]) -> Any:
    return gym.make_vec(
        "Meta-World/custom-mt-envs",
        envs_list=list(tasks),
        vector_strategy="sync",
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        **options,
    )


def _in_processes(gym: Any, tasks: Sequence[str], options: dict[str, Any]) -> Any:
    """As `make_vec` would; but its processes are forks, which may deadlock with JAX."""
    from metaworld import make_mt_envs

    common = {**options, "num_tasks": len(tasks)}
    first = common.pop("seed")
    made = [
        partial(make_mt_envs, task, seed=first + k, env_id=k, **common)
        for k, task in enumerate(tasks)
    ]
    mode = gym.vector.AutoresetMode.SAME_STEP
    return gym.vector.AsyncVectorEnv(made, context="spawn", autoreset_mode=mode)
