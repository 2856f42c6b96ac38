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
from benchmarks import zoo
from benchmarks.step_models import SIZES, TRUNKS, Problem, from_the_zoo, head_loss
from benchmarks.step_models import problem as make_problem

LEARNING_RATE = 1e-3
REG_EPS = 1e-4
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


def _in_a_tuple(problem: Problem, data: Any) -> Callable[[Any], tuple[jax.Array, ...]]:
    def losses_fn(params: Any) -> tuple[jax.Array, ...]:
        losses = problem.losses_fn(params, *data)
        if isinstance(losses, dict):
            return tuple(losses[task] for task in sorted(losses))
        return tuple(losses[t] for t in range(problem.num_tasks))

    return losses_fn


def _plain(problem: Problem, params: Any, data: Any) -> Any:
    losses_fn = _in_a_tuple(problem, data)
    grads = jax.grad(lambda p: sum(losses_fn(p)))(params)
    return grads, jnp.ones(problem.num_tasks)


def _one(problem: Problem, params: Any, data: Any) -> Any:
    """The first task alone: what a method that renews one task a step is held to."""
    losses_fn = _in_a_tuple(problem, data)
    return jax.grad(lambda p: losses_fn(p)[0])(params), jnp.ones(problem.num_tasks)


def _passes(problem: Problem, params: Any, data: Any) -> Any:
    """T backward passes one after the other: a list of trees, products by pairs."""
    losses, push = jax.linearize(_in_a_tuple(problem, data), params)

    # Of one output only, for a vector of cotangents with zeros in it would be pulled
    # through the heads of all tasks.
    def gradient(scalar_of: Callable[[Any], jax.Array]) -> Any:
        transpose = jax.linear_transpose(lambda dp: scalar_of(push(dp)), params)
        return transpose(jnp.ones_like(losses[0]))[0]

    tasks = range(problem.num_tasks)
    each = [gradient(lambda out, t=t: out[t]) for t in tasks]
    rows = [row["trunk"] for row in each] if problem.trunk else each
    upper = {
        (s, t): optax.tree.vdot(rows[s], rows[t]) for t in tasks for s in tasks[: t + 1]
    }
    gram = [jnp.stack([upper[min(s, t), max(s, t)] for s in tasks]) for t in tasks]
    weights = _upgrad(jnp.stack(gram), jnp.stack(losses))

    def total(*leaves: jax.Array) -> jax.Array:
        return sum(weights[t] * leaves[t] for t in tasks)

    mixed = jax.tree.map(total, *rows)
    if problem.trunk:
        mixed = {"trunk": mixed, "heads": gradient(sum)["heads"]}
    return mixed, weights


def _vmapped(problem: Problem, params: Any, data: Any) -> Any:
    """One pull-back mapped over one-hot cotangents: one tree of `[T, *param]`."""
    losses_fn = _in_a_tuple(problem, data)
    losses, pullback = jax.vjp(lambda p: jnp.stack(losses_fn(p)), params)
    (stacked,) = jax.vmap(pullback)(jnp.eye(problem.num_tasks))
    rows = stacked["trunk"] if problem.trunk else stacked
    flat = [x.reshape(problem.num_tasks, -1) for x in jax.tree.leaves(rows)]
    products = [jnp.matmul(x, x.T, precision="highest") for x in flat]
    weights = _upgrad(sum(products[1:], products[0]), losses)
    mixed = jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), rows)
    if problem.trunk:
        heads = jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked["heads"])
        mixed = {"trunk": mixed, "heads": heads}
    return mixed, weights


def _by_vjp(problem: Problem, params: Any, data: Any) -> Any:
    """The trunk's own pull-back, and cotangents that each head gave by itself."""
    inputs, targets = data
    trunk, heads = params["trunk"], params["heads"]
    features, pullback = jax.vjp(lambda t: TRUNKS[problem.model](t, inputs), trunk)
    of_head = jax.value_and_grad(head_loss, argnums=(0, 1))
    each = {task: of_head(heads[task], features, targets[task]) for task in heads}
    losses = jnp.stack([loss for loss, _ in each.values()])
    cotangents = jnp.stack([grads[1] for _, grads in each.values()])
    gram, combine = mtl.gramian_vjp(pullback, cotangents)
    weights = _upgrad(gram, losses)
    own = {task: grads[0] for task, (_, grads) in each.items()}
    return {"trunk": combine(weights)[0], "heads": own}, weights


def _upgrad(gram: jax.Array, losses: jax.Array) -> jax.Array:
    rule = mtl.upgrad.weighting(reg_eps=REG_EPS)
    num_tasks = len(gram)
    active = jnp.ones(num_tasks, bool)
    weights, _ = rule.update(gram, rule.init(num_tasks), losses=losses, active=active)
    return weights


def _upgrad_tx(num_tasks: int) -> Any:
    return mtl.upgrad(num_tasks, reg_eps=REG_EPS)


def _on_trunk(
    method: Callable[[int], Any],
    task_grads: Callable[..., Any] = mtl.lazy_task_grads,
    **options: Any,
) -> Callable[[Problem], Way]:
    """A method for the trunk, by its number of tasks; heads get their own gradient."""

    def make(problem: Problem) -> Way:
        tx = _shared(method(problem.num_tasks), problem)
        return ours(tx, task_grads, problem, **options)

    return make


def _shared(tx: Any, problem: Problem) -> Any:
    shared = {"trunk": True, "heads": False}
    return mtl.on_shared(tx, shared) if problem.trunk else tx


def _everywhere(
    method: Callable[[int], Any], **options: Any
) -> Callable[[Problem], Way]:
    """A method for trunk and heads alike."""
    return lambda problem: ours(
        method(problem.num_tasks), mtl.lazy_task_grads, problem, **options
    )


def _stale(problem: Problem) -> Way:
    """UPGrad on momenta, of which a step renews one."""
    method = _shared(_upgrad_tx(problem.num_tasks), problem)
    return _everywhere(partial(mtl.stale, method))(problem)


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
    BY_VJP: partial(by_hand, _by_vjp),
    PASSES: partial(by_hand, _passes),
    VMAPPED: partial(by_hand, _vmapped),
}
# Ways that renew one task a step, of which the first T make no update
IN_TURN: dict[str, Callable[[Problem], Way]] = {
    "stale upgrad": _stale,
    "mconfig": _everywhere(mtl.mconfig, then=optax.scale(-LEARNING_RATE)),
}
# Other methods. A new one is a line here, `"name": _on_trunk(method)` with `method` a
# function of the number of tasks; where it contains its optimiser,
# `_on_trunk(method, then=optax.scale(-LEARNING_RATE))`.
OTHERS: dict[str, Callable[[Problem], Way]] = IN_TURN | {
    ONE: partial(by_hand, _one),
    "unitary": _everywhere(mtl.unitary),
    "uw": _everywhere(mtl.uw),
    FEATURES: _at_features,
    "lazy cagrad": _on_trunk(mtl.cagrad),
    "lazy mgda": _on_trunk(mtl.mgda),
}
MAKE = {PLAIN: partial(by_hand, _plain)} | SAME | OTHERS
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
