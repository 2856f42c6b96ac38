"""Ways to make one training step of several tasks: the library's, and by hand.

Each is a function `train(params, state, inputs, targets) -> (params, state, weights)`
and a state to begin with: forward pass, task gradients, UPGrad on the trunk, each
head's own gradient, Adam. UPGrad is regularised as TorchJD's is, so that all have the
same weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from benchmarks.step_models import Problem

LEARNING_RATE = 1e-3
PLAIN, PASSES, LAZY, STACKED = "plain", "T passes", "lazy", "stacked"
REG_EPS = 1e-4


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


def ours(tx: Any, task_grads: Callable[..., Any], problem: Problem) -> Way:
    """A step with a method of the library, from gradients of either form."""
    tx = optax.chain(tx, optax.adam(LEARNING_RATE))

    def train(params: Any, state: Any, *data: Any) -> Any:
        losses, grads = task_grads(problem.losses)(params, *data)
        updates, state = tx.update(grads, state, params, losses=losses)
        weights = mtl.task_weights(state)
        return optax.apply_updates(params, updates), state, weights

    return Way(train, tx.init)


def by_hand(grads_of: Callable[..., tuple[Any, jax.Array]], problem: Problem) -> Way:
    """A step with Adam after gradients and weights that `grads_of` makes."""
    adam = optax.adam(LEARNING_RATE)

    def train(params: Any, state: Any, *data: Any) -> Any:
        losses_fn = partial(_tuple_of_losses, problem, *data)
        grads, weights = grads_of(losses_fn, params)
        updates, state = adam.update(grads, state, params)
        return optax.apply_updates(params, updates), state, weights

    return Way(train, adam.init)


def _tuple_of_losses(problem: Problem, inputs: Any, targets: Any, params: Any) -> Any:
    return tuple(problem.losses(params, inputs, targets).values())


def _plain(losses_fn: Any, params: Any) -> Any:
    grads = jax.grad(lambda p: sum(losses_fn(p)))(params)
    return grads, jnp.ones(len(params["heads"]))


def _pullbacks(losses_fn: Any, params: Any) -> tuple[Any, Any]:
    """One forward pass; then the gradient of any sum of the losses."""
    losses, push = jax.linearize(losses_fn, params)

    # Of one output only, for a vector of cotangents with zeros in it would be pulled
    # through the heads of all tasks.
    def gradient(scalar_of: Callable[[Any], jax.Array]) -> Any:
        transpose = jax.linear_transpose(lambda dp: scalar_of(push(dp)), params)
        return transpose(jnp.ones_like(losses[0]))[0]

    return losses, gradient


def _passes(losses_fn: Any, params: Any) -> Any:
    """T backward passes one after the other: a list of trees, products by pairs."""
    losses, gradient = _pullbacks(losses_fn, params)
    num_tasks = len(losses)
    rows = [gradient(lambda out, t=t: out[t])["trunk"] for t in range(num_tasks)]
    products = {
        (s, t): optax.tree.vdot(rows[s], rows[t])
        for t in range(num_tasks)
        for s in range(t + 1)
    }
    gram = jnp.stack(
        [
            jnp.stack([products[min(s, t), max(s, t)] for s in range(num_tasks)])
            for t in range(num_tasks)
        ]
    )
    weights = _upgrad(gram, jnp.stack(losses))
    trunk = jax.tree.map(
        lambda *leaves: sum(w * x for w, x in zip(weights, leaves, strict=True)), *rows
    )
    return {"trunk": trunk, "heads": gradient(sum)["heads"]}, weights


def _vmapped(losses_fn: Any, params: Any) -> Any:
    """One pull-back mapped over one-hot cotangents: one tree of `[T, *param]`."""
    losses, pullback = jax.vjp(lambda p: jnp.stack(losses_fn(p)), params)
    (stacked,) = jax.vmap(pullback)(jnp.eye(len(losses)))
    flat = [x.reshape(len(losses), -1) for x in jax.tree.leaves(stacked["trunk"])]
    products = [jnp.matmul(x, x.T, precision="highest") for x in flat]
    weights = _upgrad(sum(products[1:], products[0]), losses)
    trunk = jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), stacked["trunk"])
    heads = jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked["heads"])
    return {"trunk": trunk, "heads": heads}, weights


def _upgrad(gram: jax.Array, losses: jax.Array) -> jax.Array:
    rule = mtl.upgrad.weighting(reg_eps=REG_EPS)
    num_tasks = len(gram)
    active = jnp.ones(num_tasks, bool)
    weights, _ = rule.update(gram, rule.init(num_tasks), losses=losses, active=active)
    return weights


BY_HAND = {PLAIN: _plain, PASSES: _passes, "vmapped": _vmapped}
# Ways of the same method, and two methods that need no Gramian
EXACT = (LAZY, STACKED, PASSES, "vmapped")
LOSSES_ONLY = ("unitary", "uw")
WAYS = (PLAIN, *EXACT, *LOSSES_ONLY)


def make(name: str, problem: Problem) -> Way:
    """One of `WAYS`."""
    if name in BY_HAND:
        return by_hand(BY_HAND[name], problem)
    if name in LOSSES_ONLY:
        method = getattr(mtl, name)(problem.num_tasks)
        return ours(method, mtl.lazy_task_grads, problem)
    method = mtl.on_shared(
        mtl.upgrad(problem.num_tasks, reg_eps=REG_EPS), {"trunk": True, "heads": False}
    )
    form = {LAZY: mtl.lazy_task_grads, STACKED: mtl.task_grads}[name]
    return ours(method, form, problem)
