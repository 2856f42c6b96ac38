"""Training on Meta-World: the simulator in Python, all the rest in three programs.

A run is a row of stages: reset every task, `every` steps, evaluate, write. Keys are
folded from the number of steps, and episodes from the stage, so that a resumed run has
the bits of one that was never stopped.
"""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtl_optax.rl.metaworld.checkpoint import Folder
from mtl_optax.rl.metaworld.environments import make_envs, packages
from mtl_optax.rl.metaworld.evaluation import evaluate
from mtl_optax.rl.metaworld.programs import Programs, Run, Settings, check, programs
from mtl_optax.rl.metaworld.stepping import reset, step


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
      ValueError: as `make_envs`; if the agent is for other tasks; for settings of 0.
      ImportError: as `make_envs`.

    Cost: of a step K steps of the simulator and under a millisecond beside them; of an
    update what `agent.update` costs. A checkpoint has the size of the buffer.
    """
    check(settings, agent.tasks)
    packages()
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
    obs = reset(envs, int(episodes[0]))
    first = (stage - 1) * settings.every
    for done in range(first, first + settings.every):
        action = compiled.act(run, obs)
        if done >= max(settings.random_steps, 1) and done % settings.update_every == 0:
            # Runs beside the simulator. The buffer is no result, or it would be copied.
            state, info = compiled.learn(run.agent, run._replace(agent=None))
            run = run._replace(agent=state)
        seen = step(envs, action)
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
    return make_envs(
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
