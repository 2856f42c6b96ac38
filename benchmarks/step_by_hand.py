"""Steps by hand with JAX alone: gradients and weights of one loss, of all, of each.

Functions of a problem, parameters and data that return gradients and `[T]` weights, for
`step_ways.by_hand`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from benchmarks.step_models import TRUNKS, Problem, head_loss

REG_EPS = 1e-4  # of UPGrad, as TorchJD has it


def _in_a_tuple(problem: Problem, data: Any) -> Callable[[Any], tuple[jax.Array, ...]]:
    def losses_fn(params: Any) -> tuple[jax.Array, ...]:
        losses = problem.losses_fn(params, *data)
        if isinstance(losses, dict):
            return tuple(losses[task] for task in sorted(losses))
        return tuple(losses[t] for t in range(problem.num_tasks))

    return losses_fn


def plain(problem: Problem, params: Any, data: Any) -> Any:
    losses_fn = _in_a_tuple(problem, data)
    grads = jax.grad(lambda p: sum(losses_fn(p)))(params)
    return grads, jnp.ones(problem.num_tasks)


def one(problem: Problem, params: Any, data: Any) -> Any:
    """The first task alone: what a method that renews one task a step is held to."""
    losses_fn = _in_a_tuple(problem, data)
    return jax.grad(lambda p: losses_fn(p)[0])(params), jnp.ones(problem.num_tasks)


def passes(problem: Problem, params: Any, data: Any) -> Any:
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


def vmapped(problem: Problem, params: Any, data: Any) -> Any:
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


def by_vjp(problem: Problem, params: Any, data: Any) -> Any:
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
