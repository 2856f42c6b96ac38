"""Point masses as a problem that trains itself: its data come while it learns."""

from functools import partial
from typing import Any

import jax
import optax

from mtl_optax.rl import on_device
from mtl_optax.study.engine.problem import Metric, Problem
from mtl_optax.study.studies.rl.arms import (
    ACTOR,
    ALPHA,
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
from mtl_optax.study.studies.rl.training import CAPACITY, CLIP, divided, programs

END = 100  # episodes of each task, at the end
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


def problem(arm: Arm = PLAIN) -> Problem:
    """Six point masses, learned by MT-SAC as this arm has it."""
    one = Problem(
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
        about=ABOUT,
        facts={"discount": DISCOUNT, "hidden": HIDDEN, "horizon": ENV.horizon},
    )
    return one._replace(programs=partial(programs, one, arm))


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
