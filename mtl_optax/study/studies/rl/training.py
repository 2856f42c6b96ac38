"""The two programs of the study: states of both methods, and a chunk of steps.

What is trained is a whole run of MT-SAC. Its parameters are those of actor and critics,
the states of their optimisers are the two methods', and all the rest of the run is the
state of the problem.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.rl import on_device
from mtl_optax.study.engine.methods import OPTIMIZERS, SCHEDULES
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, StepLog
from mtl_optax.study.engine.transformations import Ingredients, Method, OnTwoBatches
from mtl_optax.study.studies.rl.arms import ACTOR, CRITIC, ENV, TASKS, Arm

CAPACITY = 10_000  # transitions of each task that are kept
RANDOM = 500  # random steps at the start, if they are not more than a tenth
LOOK = 10  # episodes of each task, at each record
CLIP = 1.0  # of the norm of what a method gives, before Adam


class Watched(NamedTuple):
    """Numbers a task, kept at each record; rows of `MethodResult.path`."""

    success: Any  # share of episodes that end at the goal
    any_success: Any  # that come to it at some step
    returns: Any
    actor_conflicts: Any  # share of the other tasks whose gradients point against it
    critic_conflicts: Any
    actor_cosine: Any  # mean over the other tasks
    critic_cosine: Any
    temperature: Any


def divided(run: on_device.Run) -> Carry:
    """A run as the engine keeps it; it counts the steps itself."""
    agent = run.agent
    params = {ACTOR: agent.actor, CRITIC: agent.critic}
    rest = dict.fromkeys(("actor", "critic", "actor_opt", "critic_opt"))
    state: Any = run._replace(agent=agent._replace(**rest))
    state = state._replace(time=None)
    return Carry(params, state, (agent.actor_opt, agent.critic_opt))


def joined(carry: Carry, time: Any) -> on_device.Run:
    """The run again."""
    params, state, (actor_opt, critic_opt) = carry
    agent = state.agent._replace(
        actor=params[ACTOR],
        critic=params[CRITIC],
        actor_opt=actor_opt,
        critic_opt=critic_opt,
    )
    return state._replace(agent=agent, time=time)


def transformation(
    problem: Problem, arm: Arm, method: Method, recipe: Recipe, lane: Lanes, name: str
) -> optax.GradientTransformation:
    """The method for the losses of the actor or of the critics, and what follows it."""
    rate = SCHEDULES[recipe.schedule](lane.learning_rate, recipe.steps)
    adam = OPTIMIZERS[recipe.optimizer].make(rate)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), adam)
    one = problem._replace(name=name, tasks=arm.losses)
    of = Ingredients(one, optimizer, jax.random.key(lane.seed), lane.trained)
    return method(of, **lane.settings)


def programs(
    problem: Problem, arm: Arm, method: Method, recipe: Recipe
) -> tuple[Any, Any]:
    """As `engine.program.programs`, of a problem that is learned as the arm has it."""
    if isinstance(method, OnTwoBatches):
        raise ValueError(
            "The study of reinforcement learning has no validation split for a method "
            "that learns from a second batch: leave it out of --methods."
        )
    settings = on_device.RunSettings(
        batch_size=recipe.batch_size,
        capacity=CAPACITY,
        random_steps=min(RANDOM, recipe.steps // 10),
        episodes=LOOK,
        normalized_rewards=arm.normalized_rewards,
    )
    every = recipe.record_every
    make = partial(transformation, problem, arm, method, recipe)

    def init(params: Any, lane: Lanes) -> Any:
        return tuple(make(lane, x).init(params[x]) for x in (ACTOR, CRITIC))

    def of_lane(carry: Carry, lane: Lanes, steps: int, done: Any) -> Any:
        agent = arm.agent(partial(make, lane))

        def one(carry: Carry, number: Any) -> tuple[Carry, Any]:
            run = joined(carry, number)  # the same number in all lanes: see `train`
            run, info = on_device.step(agent, ENV, settings, run)
            return divided(run), info

        def record(carry: Carry, first: Any) -> tuple[Carry, StepLog]:
            carry, infos = lax.scan(one, carry, first + jnp.arange(every))
            last = first + every
            key = jax.random.fold_in(jax.random.key(lane.seed), last)
            run = joined(carry, last)
            info = jax.tree.map(lambda x: x[-1], infos)
            return carry, StepLog(
                losses=info.critic_losses,
                task_weights=jnp.full(len(TASKS), jnp.nan),
                watched=watched(agent, settings, run, info, key),
                readings={},
            )

        return lax.scan(record, carry, done + every * jnp.arange(steps // every))

    def advance(
        carry: Carry, batches: Any, data: Any, lanes: Lanes, steps: int, done: Any = 0
    ) -> tuple[Carry, StepLog]:
        del batches, data
        of_all = jax.vmap(
            lambda carry, lane: of_lane(carry, lane, steps, done), out_axes=(0, 1)
        )
        return of_all(carry, lanes)

    return jax.vmap(init), advance


def watched(
    agent: Any, settings: on_device.RunSettings, run: on_device.Run, info: Any, key: Any
) -> jax.Array:
    """`[len(Watched), T]`."""
    of_episodes, of_batch, of_noise = jax.random.split(key, 3)
    found = on_device.evaluate(agent, ENV, run.agent, of_episodes, settings.episodes)
    batch = on_device.sampled(settings, run, of_batch)
    cosines = on_device.conflict(agent, run.agent, batch, of_noise)
    others = ~jnp.eye(len(TASKS), dtype=bool)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.where(others, values, 0).sum(axis=1) / (len(TASKS) - 1)

    return jnp.stack(
        Watched(
            100 * found["success"],
            100 * found["any_success"],
            found["return"],
            100 * mean(cosines[ACTOR] < 0),
            100 * mean(cosines[CRITIC] < 0),
            mean(cosines[ACTOR]),
            mean(cosines[CRITIC]),
            info.alpha,
        )
    )
