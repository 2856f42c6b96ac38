"""Training on Meta-World: the simulator in Python, all the rest in three programs.

A run is a row of stages: reset every task, `every` steps, evaluate, write. Keys are
folded from the number of steps, and episodes from the stage, so that a resumed run has
the bits of one that was never stopped.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.rl import replay
from mtl_optax.rl.metaworld import environments
from mtl_optax.rl.metaworld.checkpoint import Folder
from mtl_optax.rl.metaworld.evaluation import evaluate


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


def train(
    agent: Any,
    settings: Settings,
    folder: Path | str,
    *,
    about: dict[str, Any] | None = None,
    resume: bool = False,
    stages: int | None = None,
    vector_strategy: str | None = None,
) -> list[dict[str, Any]]:
    """Trains, evaluates after each stage, and can go on where it was stopped.

    Args:
      agent: from `mtl_optax.rl.mtsac.mtsac`, for these tasks.
      settings: the run.
      folder: of this run alone; gets `result.json` and `checkpoint/`.
      about: what else the numbers depend on, such as the method and the networks.
      resume: goes on from the last whole stage; bit for bit as if never stopped.
      stages: to do now, at most; None does all that are left.
      vector_strategy: as in `make_envs`; changes no number.

    Returns:
      A record a stage: steps, success at the last and at any step, returns, losses and
      temperatures per task, seconds of training and evaluation.

    Raises:
      Refused: if the folder holds a run and `resume` is False, or another run.
      ValueError, ImportError: as `make_envs` does; if the agent is for other tasks.

    Cost: of a step K steps of the simulator and under a millisecond beside them; of an
    update what `agent.update` costs. A checkpoint has the size of the buffer.
    """
    if tuple(agent.tasks) != tuple(settings.tasks):
        raise ValueError(
            f"the agent is for {list(agent.tasks)}, the settings for "
            f"{list(settings.tasks)}: give both the same names in the same order."
        )
    identity = {**settings._asdict(), **(about or {}), "versions": _versions()}
    written = Folder(folder, identity, resume=resume)
    compiled = programs(agent, settings)
    run = written.load(jax.eval_shape(compiled.start)) or compiled.start()
    left = settings.stages - len(written.records)
    if not left:
        return written.records
    envs = _envs(settings, settings.seed, vector_strategy)
    others = _envs(settings, settings.evaluation_seed, vector_strategy)
    try:
        for _ in range(left if stages is None else min(stages, left)):
            stage = len(written.records) + 1
            run, record = _stage(compiled, envs, others, run, settings, stage)
            written.save(run, record)
    finally:
        envs.close()
        others.close()
    return written.records


def _stage(
    compiled: Programs, envs: Any, others: Any, run: Run, settings: Settings, stage: int
) -> tuple[Run, dict[str, Any]]:
    began, info = _clocks(), None
    episodes = np.random.SeedSequence([settings.seed, stage]).generate_state(1)
    obs = environments.reset(envs, int(episodes[0]))
    first = (stage - 1) * settings.every
    for done in range(first, first + settings.every):
        action = compiled.act(run, obs)
        if done >= settings.random_steps and done % settings.update_every == 0:
            # Runs beside the simulator. The buffer is no result, or it would be copied.
            state, info = compiled.learn(run.agent, run._replace(agent=None))
            run = run._replace(agent=state)
        seen = environments.step(envs, action)
        transition = obs, action, seen.reward, seen.next_obs, seen.terminated
        run, obs = compiled.store(run, transition), seen.obs
    jax.block_until_ready(run)
    trained = _clocks()
    found = evaluate(
        lambda obs: compiled.mode(run.agent, obs),
        others,
        episodes=settings.episodes,
        seed=settings.evaluation_seed,
    )
    record = {
        "stage": stage,
        "environment_steps": int(run.steps) * len(settings.tasks),
        **{name: values.tolist() for name, values in found.items()},
        **({} if info is None else _plain(info)),
        "train": _between(began, trained),
        "evaluate": _between(trained, _clocks()),
    }
    return run, record


def _envs(settings: Settings, seed: int, vector_strategy: str | None) -> Any:
    return environments.make_envs(
        settings.tasks,
        seed,
        reward_function_version=settings.reward_function_version,
        vector_strategy=vector_strategy,
        max_episode_steps=settings.max_episode_steps,
    )


def _versions() -> dict[str, str]:
    names = ("mtl-optax", "jax", "jaxlib", "optax", "metaworld", "mujoco", "gymnasium")
    return {name: version(name) for name in names}


def _plain(info: Any) -> dict[str, list[float]]:
    """Of the last update; losses may be a dict by task."""
    return {name: np.asarray(x).tolist() for name, x in info._asdict().items()}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _between(
    before: tuple[float, float], after: tuple[float, float]
) -> dict[str, float]:
    wall, cpu = (round(b - a, 3) for a, b in zip(before, after, strict=True))
    return {"wall_s": wall, "cpu_s": cpu}
