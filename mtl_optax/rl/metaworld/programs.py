"""A run's settings, its memory, and the programs that work on it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.rl import replay
from mtl_optax.rl.metaworld import environments


class Settings(NamedTuple):
    """A run. Steps are of the vector environment: K environment steps each."""

    tasks: tuple[str, ...]
    reward_function_version: str
    seed: int = 0
    stages: int = 20
    every: int = 5_000  # steps of a stage
    random_steps: int = 1_500  # at first, uniform actions and no update
    update_every: int = 1  # steps to one update
    batch_size: int = 128  # of each task
    capacity: int = 100_000  # of each task
    episodes: int = 10  # of each task in an evaluation
    evaluation_seed: int = 10_000  # of its goals: not those of the training
    max_episode_steps: int = environments.HORIZON


def check(settings: Settings, tasks: Sequence[str]) -> None:
    """Refuses what would train nothing, or other tasks than the agent's."""
    if tuple(tasks) != tuple(settings.tasks):
        raise ValueError(
            f"the agent is for {list(tasks)}, the settings for "
            f"{list(settings.tasks)}: give both the same names in the same order."
        )
    for name, value in settings._asdict().items():
        may_be_zero = name in ("seed", "random_steps", "evaluation_seed")
        if isinstance(value, int) and value < (0 if may_be_zero else 1):
            raise ValueError(
                f"{name} is {value}; it is at least {int(not may_be_zero)}."
            )


class Run(NamedTuple):
    """All that a run has learnt and seen, between two steps."""

    agent: Any  # AgentState
    buffer: Any  # replay.Buffer
    key: jax.Array  # raw data; each step folds its number in
    steps: jax.Array  # int32 []


class Programs(NamedTuple):
    """The compiled parts; what is donated is written over."""

    start: Callable[[], Run]
    act: Callable[[Run, Any], jax.Array]
    learn: Callable[..., tuple[Any, Any]]  # state, donated, and the rest of a run
    store: Callable[[Run, Any], Run]  # the run, donated, and a transition
    mode: Callable[[Any, Any], jax.Array]


def programs(agent: Any, settings: Settings) -> Programs:
    """Those of an agent of `mtl_optax.rl.mtsac`.

    Args:
      agent: for the tasks of the settings, in their order.
      settings: sizes and seed.

    Returns:
      Functions of a `Run`.
    """
    sizes = environments.OBSERVATION, environments.ACTION
    num_tasks = len(settings.tasks)

    def start() -> Run:
        key, init = jax.random.split(jax.random.key(settings.seed))
        buffer = replay.init(num_tasks, settings.capacity, *sizes)
        key = jax.random.key_data(key)
        return Run(agent.init(init), buffer, key, jnp.zeros((), jnp.int32))

    def keys(run: Run) -> jax.Array:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(run.key), run.steps)
        return jax.random.split(step_key, 4)

    def act(run: Run, obs: jax.Array) -> jax.Array:
        drawn, uniform = keys(run)[:2]
        anything = jax.random.uniform(uniform, (num_tasks, sizes[1]), minval=-1)
        sampled = agent.act(run.agent, obs, drawn)
        return jnp.where(run.steps < settings.random_steps, anything, sampled)

    def learn(state: Any, run: Run) -> tuple[Any, Any]:
        sampling, updating = keys(run)[2:]
        batch = replay.sample(run.buffer, sampling, settings.batch_size)
        return agent.update(state, batch, updating)

    def store(run: Run, transition: Any) -> Run:
        buffer = replay.add(run.buffer, replay.Batch(*transition))
        return run._replace(buffer=buffer, steps=run.steps + 1)

    return Programs(
        jax.jit(start),
        jax.jit(act),
        jax.jit(learn, donate_argnums=0),
        jax.jit(store, donate_argnums=0),
        jax.jit(agent.mode),
    )
