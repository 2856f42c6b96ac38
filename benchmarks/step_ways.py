"""Ways to make one training step of several tasks: the library's, and by hand.

Each is a function `train(params, state, inputs, targets) -> (params, state, weights)`
and a state to begin with: forward pass, task gradients, UPGrad on the trunk, each
head's own gradient, Adam. UPGrad is regularised as TorchJD's is, so that all have the
same weights. Some more ways are of other methods: they compute something else, and
stand beside the exact ones for what they cost.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from benchmarks import step_by_hand, zoo
from benchmarks.step_by_hand import REG_EPS
from benchmarks.step_models import SIZES, TRUNKS, Problem, from_the_zoo, head_loss
from benchmarks.step_models import problem as make_problem

LEARNING_RATE = 1e-3
PLAIN, PASSES, VMAPPED = "plain", "T passes", "vmapped"
LAZY, STACKED, BY_VJP = "lazy", "stacked", "gramian_vjp"
FEATURES, ONE = "features", "one task"


class Way(NamedTuple):
    """A training step, not compiled yet, and its first state."""

    train: Callable[..., tuple[Any, Any, jax.Array]]
    init: Callable[[Any], Any]

    def lower(self, problem: Problem) -> Any:
        """Traced and lowered, with parameters and state given away."""
        state = jax.eval_shape(self.init, problem.params)
        step = jax.jit(self.train, donate_argnums=(0, 1))
        return step.lower(problem.params, state, *problem.data)


class Step:
    """A compiled step; each call replaces parameters and state in place."""

    def __init__(self, way: Way, problem: Problem):
        self.params = jax.tree.map(jnp.array, problem.params)
        self.state = way.init(self.params)
        self.data = jax.tree.map(jnp.asarray, problem.data)
        self.compiled = way.lower(problem).compile()
        self.weights: Any = None

    def __call__(self) -> None:
        self.params, self.state, self.weights = self.compiled(
            self.params, self.state, *self.data
        )
        jax.block_until_ready((self.params, self.state, self.weights))


def ours(
    tx: Any, task_grads: Callable[..., Any], problem: Problem, then: Any = None
) -> Way:
    """A step with a method of the library, and `then`, Adam if nothing is given."""
    tx = optax.chain(tx, then or optax.adam(LEARNING_RATE))

    def train(params: Any, state: Any, *data: Any) -> Any:
        losses, grads = task_grads(problem.losses_fn)(params, *data)
        updates, state = tx.update(grads, state, params, losses=losses)
        weights = mtl.task_weights(state)
        return optax.apply_updates(params, updates), state, weights

    return Way(train, tx.init)


def by_hand(grads_of: Callable[..., tuple[Any, jax.Array]], problem: Problem) -> Way:
    """A step with Adam after gradients and weights that `grads_of` makes."""
    adam = optax.adam(LEARNING_RATE)

    def train(params: Any, state: Any, *data: Any) -> Any:
        grads, weights = grads_of(problem, params, data)
        updates, state = adam.update(grads, state, params)
        return optax.apply_updates(params, updates), state, weights

    return Way(train, adam.init)


def _upgrad_tx(num_tasks: int) -> Any:
    return mtl.upgrad(num_tasks, reg_eps=REG_EPS)


def _stale_upgrad(num_tasks: int) -> Any:
    return mtl.stale(_upgrad_tx(num_tasks), num_tasks)


def _on_trunk(
    method: Callable[[int], Any],
    task_grads: Callable[..., Any] = mtl.lazy_task_grads,
    **options: Any,
) -> Callable[[Problem], Way]:
    """A method for the trunk, by its number of tasks; heads get their own gradient."""

    def make(problem: Problem) -> Way:
        tx = method(problem.num_tasks)
        if problem.trunk:
            tx = mtl.on_shared(tx, {"trunk": True, "heads": False})
        return ours(tx, task_grads, problem, **options)

    return make


def _everywhere(
    method: Callable[[int], Any], **options: Any
) -> Callable[[Problem], Way]:
    """A method for trunk and heads alike."""
    return lambda problem: ours(
        method(problem.num_tasks), mtl.lazy_task_grads, problem, **options
    )


def _at_features(problem: Problem) -> Way:
    """UPGrad of the gradients at the trunk's output: one pass through the trunk."""

    def heads_fn(params: Any, features: Any, inputs: Any, targets: Any) -> Any:
        heads = params["heads"]
        return {t: head_loss(heads[t], features, targets[t]) for t in heads}

    def task_grads(losses_fn: Any) -> Any:
        trunk = TRUNKS[problem.model]
        return mtl.feature_task_grads(
            lambda params, inputs, targets: trunk(params["trunk"], inputs), heads_fn
        )

    return _on_trunk(_upgrad_tx, task_grads)(problem)


# Ways to the same update, that of UPGrad on the trunk
SAME: dict[str, Callable[[Problem], Way]] = {
    LAZY: _on_trunk(_upgrad_tx),
    STACKED: _on_trunk(_upgrad_tx, mtl.task_grads),
    BY_VJP: partial(by_hand, step_by_hand.by_vjp),
    PASSES: partial(by_hand, step_by_hand.passes),
    VMAPPED: partial(by_hand, step_by_hand.vmapped),
}
# Ways that renew one task a step, of which the first T make no update
IN_TURN: dict[str, Callable[[Problem], Way]] = {
    "stale upgrad": _on_trunk(_stale_upgrad),
    "mconfig": _everywhere(mtl.mconfig, then=optax.scale(-LEARNING_RATE)),
}
# Other methods. A new one is a line here, `"name": _on_trunk(method)` with `method` a
# function of the number of tasks; where it contains its optimiser,
# `_on_trunk(method, then=optax.scale(-LEARNING_RATE))`.
OTHERS: dict[str, Callable[[Problem], Way]] = IN_TURN | {
    ONE: partial(by_hand, step_by_hand.one),
    "unitary": _everywhere(mtl.unitary),
    "uw": _everywhere(mtl.uw),
    FEATURES: _at_features,
    "lazy cagrad": _on_trunk(mtl.cagrad),
    "lazy mgda": _on_trunk(mtl.mgda),
}
MAKE = {PLAIN: partial(by_hand, step_by_hand.plain)} | SAME | OTHERS
EXACT, WAYS = tuple(SAME), tuple(MAKE)


def make(name: str, problem: Problem) -> Way:
    """One of `WAYS`."""
    return MAKE[name](problem)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """What to measure, in every script that measures steps."""
    parser.add_argument("--quick", action="store_true", help="tiny models")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--tasks", nargs="+", type=int, help="numbers of tasks")
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument(
        "--zoo", nargs="*", choices=zoo.MODELS, help="models of zoo.py instead"
    )


def chosen(options: argparse.Namespace) -> Iterator[tuple[Problem, list[str]]]:
    """Problems and ways that the command line asks for, made one by one."""

    def among(ways: Sequence[str]) -> list[str]:
        return [name for name in ways if name in (options.ways or ways)]

    if options.zoo is not None:
        for name in options.zoo or zoo.MODELS:
            problem = from_the_zoo(name, quick=options.quick)
            yield problem, among((PLAIN, PASSES, LAZY))
        return
    for model in options.models:
        for num_tasks in options.tasks or SIZES[model][: 1 if options.quick else None]:
            yield make_problem(model, num_tasks, quick=options.quick), among(WAYS)
