"""What an update costs with each method: FLOPs of its program, and time alone."""

import time
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.rl import replay
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.program import Lanes, Recipe
from mtl_optax.study.studies.rl.arms import ARMS, ENV, OWN, PLAIN, TASKS
from mtl_optax.study.studies.rl.problem import problem
from mtl_optax.study.studies.rl.training import transformation

ROUNDS, UPDATES = 15, 20  # the fastest of so many rounds, of so many updates each
RATE = 1e-3


class Cost(NamedTuple):
    """Of one method."""

    flops: float | None = None  # an update, in millions
    update: float | None = None  # ms, alone
    step: float | None = None  # ms, of a run of the study


@cache  # table and file ask for it
def measured(methods: tuple[Any, ...], recipe: Recipe) -> dict[str, Cost]:
    """FLOPs and time of an update; methods are names with their settings."""
    programs = {name: compiled(name, dict(more), recipe) for name, *more in methods}
    seconds = dict.fromkeys(programs, np.inf)
    for _ in range(ROUNDS):  # in turn, so that a busy moment hits all
        for name, (program, state, batch) in programs.items():
            start = time.perf_counter()
            for number in range(UPDATES):
                state, _info = program(state, batch, jax.random.key(number))
            jax.block_until_ready(state)
            spent = (time.perf_counter() - start) / UPDATES
            seconds[name] = min(seconds[name], spent)
    return {
        name: Cost(flops(program) / 1e6, 1000 * seconds[name])
        for name, (program, _, _) in programs.items()
    }


def compiled(name: str, settings: dict[str, Any], recipe: Recipe) -> tuple[Any, ...]:
    """The program of an update, and what it takes."""
    arm = ARMS.get(name, PLAIN)
    one = np.ones(len(TASKS))
    lane = Lanes(np.array(0, np.int32), np.array(RATE), one, one, settings)
    method = {**METHODS, **OWN}[name]
    agent = arm.agent(partial(transformation, problem(arm), arm, method, recipe, lane))
    state = jax.jit(agent.init)(jax.random.key(0))
    shape, key = (len(TASKS), recipe.batch_size), jax.random.key(1)
    obs = jax.random.normal(key, (*shape, ENV.obs_dim))
    action, reward = jnp.tanh(obs[..., : ENV.action_dim]), -jnp.abs(obs[..., 0])
    batch = replay.Batch(obs, action, reward, obs, jnp.zeros(shape))
    return jax.jit(agent.update).lower(state, batch, key).compile(), state, batch


def flops(program: Any) -> float:
    """As XLA counts them."""
    return float(program.cost_analysis()["flops"])
