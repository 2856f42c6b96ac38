"""How the toy is trained: one optimiser or one a task, with the trunk free or frozen.

The rates are fixed here; where weights are 1 / loss, plain steps are a tenth as long.
"""

from collections.abc import Callable
from typing import Any

import optax

import mtl_optax as mtl
from mtl_optax.study.engine.transformations import Ingredients

RATES = {"adam": 3e-3, "sgd": 3e-2}
Arm = Callable[[Ingredients], optax.GradientTransformation]


def adam(eps: float = 1e-30) -> optax.GradientTransformation:
    """With an epsilon of 0, as the statement has it, but for gradients that are 0."""
    return optax.adam(RATES["adam"], eps=eps)


def sgd(rate: float = RATES["sgd"]) -> optax.GradientTransformation:
    """With momentum."""
    return optax.sgd(rate, momentum=0.9)


def summed(
    make: Callable[[], optax.GradientTransformation], frozen: bool = False
) -> Arm:
    """One optimiser for the sum of all gradients."""

    def arm(of: Ingredients) -> Any:
        chain = optax.chain(mtl.unitary(of.num_tasks), make())
        return optax.chain(chain, _still(of)) if frozen else chain

    return arm


def one_a_task(of: Ingredients) -> optax.GradientTransformation:
    """An Adam for each task; their steps are added."""
    each = mtl.per_task(adam(), of.num_tasks)
    return optax.chain(each, mtl.unitary(of.num_tasks))


def by_loss(make: Callable[[], optax.GradientTransformation]) -> Arm:
    """Each gradient over its loss: the analytic uncertainty weighting."""
    return lambda of: optax.chain(mtl.uw_o(of.num_tasks, eps=0.0), make())


def _still(of: Ingredients) -> optax.GradientTransformation:
    """No update of the trunk."""
    return optax.masked(optax.set_to_zero(), of.problem.shared)


ARMS: dict[str, Arm] = {
    "adam": summed(adam),
    "adam_frozen": summed(adam, frozen=True),
    "adam_frozen_eps": summed(lambda: adam(1e-8), frozen=True),
    "adam_per_task": one_a_task,
    "uw_o_adam": by_loss(lambda: adam(1e-8)),
    "uw_o_sgd": by_loss(lambda: sgd(0.1 * RATES["sgd"])),
    "sgd": summed(sgd),
    "sgd_frozen": summed(sgd, frozen=True),
}
