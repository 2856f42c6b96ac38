"""The arms of the study: MT-SAC with a method of the engine, or changed in one place.

All have two hidden layers of 64 units in the actor and in each critic. With the plain
network all tasks share every parameter: a task is told by its one-hot vector alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax import rl
from mtl_optax.nn import temperature_task_weights
from mtl_optax.rl.point_mass import point_mass
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.transformations import Ingredients, among_tasks

ENV = point_mass()
TASKS = ENV.tasks
HIDDEN = (64, 64)
DISCOUNT = 0.95  # a horizon of 20 steps, in episodes of 50
ALPHA = 0.1  # temperatures at the start
HIGHEST = 0.5  # temperature that famo reckons with
FAST = 3  # losses of cagrad_fast: those of two tasks, and the mean of the others
DECAY = 3e-4  # of sum_regularised
ACTOR, CRITIC = "actor", "critic"  # names of the problems that methods are made for


def one_hot(in_dim: int, out_dim: int) -> rl.Network:
    """One network for all."""
    return rl.one_hot_mlp(len(TASKS), in_dim, out_dim, HIDDEN)


def modules(in_dim: int, out_dim: int) -> rl.Network:
    """Two layers of two modules, of half the width each."""
    sizes = {
        "module_dim": HIDDEN[0] // 2,
        "embed_dim": HIDDEN[0],
        "gate_dim": HIDDEN[0],
    }
    return rl.soft_modules(len(TASKS), in_dim, out_dim, **sizes)


def alone(in_dim: int, out_dim: int) -> rl.Network:
    """A network a task."""
    return rl.independent(len(TASKS), rl.one_hot_mlp(1, in_dim, out_dim, HIDDEN))


class Arm(NamedTuple):
    """What one differs in from the others, beside its method."""

    network: Callable[[int, int], rl.Network] = one_hot
    normalized_rewards: bool = False
    subsample: int | None = None
    weights: Callable[[jax.Array], jax.Array] | None = None

    @property
    def losses(self) -> tuple[str, ...]:
        """Those that methods see, by name."""
        return TASKS[: self.subsample]

    def agent(self, transformation: Callable[[str], Any]) -> rl.Agent:
        """MT-SAC, with transformations of ACTOR and CRITIC."""
        return rl.mtsac(
            TASKS,
            self.network(ENV.obs_dim, 2 * ENV.action_dim),
            self.network(ENV.obs_dim + ENV.action_dim, 1),
            *map(transformation, (ACTOR, CRITIC)),
            discount=DISCOUNT,
            init_alpha=ALPHA,
            alpha_tx=optax.adam(1e-3),
            weights=self.weights,
            subsample=self.subsample,
        )


PLAIN = Arm()
ARMS = {
    "sum_regularised": Arm(normalized_rewards=True),
    "cagrad_fast": Arm(subsample=FAST),
    "soft_modules": Arm(network=modules, weights=temperature_task_weights),
    "independent": Arm(network=alone),
}


def sum_regularised(of: Ingredients) -> optax.GradientTransformation:
    """The sum, with L2 on the actor as Kurin et al. have it: before Adam.

    The bound of the gradients' norm comes behind, as for all arms.
    """
    decay = DECAY if of.problem.name == ACTOR else 0.0
    added = optax.add_decayed_weights(decay)
    rule = among_tasks(mtl.unitary(of.num_tasks), of.problem)
    return optax.chain(rule, added, of.optimizer)


def cagrad_fast(of: Ingredients, **settings: Any) -> optax.GradientTransformation:
    """CAGrad on the losses of `subsample_tasks`."""
    every = np.zeros(max(len(TASKS), of.num_tasks))
    _, prior = mtl.subsample_tasks(jax.random.key(0), every, of.num_tasks)
    rule = mtl.cagrad(of.num_tasks, preference=prior, **settings)
    return optax.chain(among_tasks(rule, of.problem), of.optimizer)


def lowest_actor_loss(alpha: float) -> float:
    r"""A bound of :math:`\alpha \log \pi - \min Q`, for temperatures up to `alpha`.

    Rewards are at most 0, and no density on :math:`[-1, 1]^A` has more entropy than
    the uniform one, :math:`A \log 2`: so Q is at most the discounted sum of
    :math:`\alpha A \log 2` over the steps to come, and the loss at least minus that sum
    with the present step.
    """
    return -alpha * ENV.action_dim * float(np.log(2)) / (1 - DISCOUNT)


def famo(of: Ingredients, alpha: Any = HIGHEST) -> optax.GradientTransformation:
    """FAMO above a bound of the losses; those of critics are squares, above 0."""
    bound = lowest_actor_loss(alpha) if of.problem.name == ACTOR else 0.0
    rule = mtl.famo(of.num_tasks, min_losses=jnp.full(of.num_tasks, bound))
    return optax.chain(among_tasks(rule, of.problem), of.optimizer)


OWN = {
    "sum_regularised": sum_regularised,
    "cagrad_fast": cagrad_fast,
    "famo": famo,
    "soft_modules": METHODS["unitary"],
    "independent": METHODS["unitary"],
}
