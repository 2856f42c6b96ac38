"""Point masses as a problem that trains itself: its data come while it learns.

The engine has lanes, choices, checkpoints and shards. What it trains is a whole run of
MT-SAC: parameters are those of actor and critics, the states of their optimisers are
the two methods', and all the rest of a run is the problem's state.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.rl import on_device
from mtl_optax.study.engine.methods import OPTIMIZERS, SCHEDULES
from mtl_optax.study.engine.problem import Metric, Problem
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, StepLog
from mtl_optax.study.engine.transformations import Ingredients, Method, OnTwoBatches
from mtl_optax.study.studies.rl.arms import (
    ACTOR,
    ALPHA,
    CRITIC,
    DECAY,
    DISCOUNT,
    ENV,
    FAST,
    HIDDEN,
    HIGHEST,
    PLAIN,
    TASKS,
    Arm,
    lowest_actor_loss,
)

CAPACITY = 10_000  # transitions of each task that are kept
RANDOM = 500  # random steps at the start, if they are not more than a tenth
LOOK, END = 10, 100  # episodes of each task: at each record, and at the end
CLIP = 1.0  # of the norm of what a method gives, before Adam
SUCCESS = Metric("success", "%")


ABOUT = (
    "A point mass a task; each has a twist, and rewards of a scale from 0.1 to 10. "
    f"MT-SAC: an actor and two critics, {len(HIDDEN)} layers of {HIDDEN[0]} units for "
    f"all tasks, which a one-hot vector tells apart; discount {DISCOUNT:g}; a "
    f"temperature for each task, from {ALPHA:g}; an update after each step of all "
    f"tasks, with gradients clipped to norm {CLIP:g} behind the method. Success: the "
    f"share of {END} episodes whose last step is at the goal, with the mean action. "
    f"sum_regularised is the sum as Kurin et al. (2022) regularise it: L2 of {DECAY:g} "
    "on the actor, before Adam, and rewards divided by their standard deviation in the "
    "task; theirs is a running estimate in the buffer, ours is of all rewards so far. "
    f"cagrad_fast has gradients of {FAST} losses, of {FAST - 1} tasks and of the mean "
    "of the rest. soft_modules is a soft modular network with the sum, weighed by the "
    "temperatures; independent has a network for each task. famo sees the losses of "
    "actors above the lowest that they can have: rewards are at most 0, so that no "
    "value exceeds what entropy adds, at a temperature of up to "
    f"{HIGHEST:g}; its lower bound is {lowest_actor_loss(HIGHEST):.1f}."
)


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


def problem(arm: Arm = PLAIN) -> Problem:
    """Six point masses, learned by MT-SAC as this arm has it."""
    return Problem(
        name="point masses",
        tasks=TASKS,
        splits={"end": None},
        init=partial(init, arm),
        losses=no_losses,
        metrics=(SUCCESS, Metric("any success", "%"), Metric("return", "")),
        evaluate=partial(evaluate, arm),
        owner=shared_by_all,
        loss=(Metric("critic loss", "", higher_is_better=False),),
        chosen_on="end",  # on other seeds
        reported_on="end",
        programs=partial(programs, arm),
        about=ABOUT,
        facts={"discount": DISCOUNT, "hidden": HIDDEN, "horizon": ENV.horizon},
    )


def no_losses(*args: Any, **settings: Any) -> Any:
    """There are none without a run."""
    raise TypeError("this problem trains itself: it has `programs` in place of losses")


def shared_by_all(params: Any) -> Any:
    """Every parameter; where tasks own some, the sum gives them their own gradient."""
    return jax.tree.map(lambda _: None, params)


def init(arm: Arm, seed: int) -> tuple[Any, Any]:
    """Parameters and the rest of a run, before its first step."""
    sizes = on_device.RunSettings(capacity=CAPACITY)
    start = partial(on_device.start, without_methods(arm), ENV, sizes)
    return jax.jit(lambda key: divided(start(key))[:2])(jax.random.key(seed))


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


def without_methods(arm: Arm) -> Any:
    """An agent that acts and does not learn."""
    return arm.agent(lambda name: optax.identity())


def evaluate(
    arm: Arm, params: Any, state: Any, split: Any, key: Any
) -> dict[str, jax.Array]:
    """Whole episodes with the mean action."""
    del split
    own = state.agent._replace(actor=params[ACTOR])
    found = on_device.evaluate(without_methods(arm), ENV, own, key, END)
    return {
        "success": 100 * found["success"],
        "any success": 100 * found["any_success"],
        "return": found["return"],
    }


def transformation(
    arm: Arm, method: Method, recipe: Recipe, lane: Lanes, name: str
) -> optax.GradientTransformation:
    """The method for the losses of the actor or of the critics, and what follows it."""
    rate = SCHEDULES[recipe.schedule](lane.learning_rate, recipe.steps)
    adam = OPTIMIZERS[recipe.optimizer].make(rate)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), adam)
    one = problem(arm)._replace(name=name, tasks=arm.losses)
    of = Ingredients(one, optimizer, jax.random.key(lane.seed), lane.trained)
    return method(of, **lane.settings)


def programs(arm: Arm, method: Method, recipe: Recipe) -> tuple[Any, Any]:
    """As `engine.program.programs`: states of both methods, and a chunk of steps."""
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

    def init(params: Any, lane: Lanes) -> Any:
        txs = (transformation(arm, method, recipe, lane, x) for x in (ACTOR, CRITIC))
        return tuple(
            tx.init(params[name]) for tx, name in zip(txs, (ACTOR, CRITIC), strict=True)
        )

    def of_lane(carry: Carry, lane: Lanes, steps: int, done: Any) -> Any:
        agent = arm.agent(partial(transformation, arm, method, recipe, lane))

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
