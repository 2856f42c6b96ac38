"""Joint training that also asks what separate steps would have done.

At every step the optimiser starts from the same parameters, state and batch with one
step on the sum of all losses, which is kept, and with a step for each half of the
tasks, one after the other, which is only looked at. Both are `group_steps`, of one
group and of two.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from mtl_optax.core.arguments.leaf_groups import owned, owners
from mtl_optax.core.group_steps import Sweep, by_owner, group_steps
from mtl_optax.core.task_grads.at_other_params import group_grads_at
from mtl_optax.study.engine.transformations import Ingredients

# Rows of `decrease`, each the fall of log losses on the batch.
STEPS = ("the joint step", "the step of its own half", "the steps of both halves")
KINDS = ("Optimiser of the run", "Plain SGD")
SGD_RATE = 0.01
LOOK_AHEAD = 0.01  # rate of TAG's plain steps, see benchmarks/groups_tuning.py
ORDERS = ((0, 1), (0, 1), (1, 0))  # all together; both halves, in both orders


class HalvesState(NamedTuple):
    """State of the joint training."""

    # [2, 3, T]: KINDS of optimiser, STEPS, tasks; each log of loss before over after,
    # mean over both orders of the halves
    decrease: jax.Array
    inner: Any  # of the optimiser, on shared leaves and each task's own apart


def joint(of: Ingredients) -> optax.GradientTransformation:
    """The plain sum, watched by TAG at every step, and what halves would have done.

    Under `jax.vmap` over runs a step that is not measured costs as much.
    """
    owner = of.problem.owner
    watch = mtl.task_affinity(
        of.num_tasks, owner=owner, learning_rate=LOOK_AHEAD, every_k=1
    )
    return optax.chain(watch, joint_against_halves(of.num_tasks, of.optimizer, owner))


def joint_against_halves(
    num_tasks: int,
    optimizer: optax.GradientTransformation,
    owner: Callable[[Any], Any],
) -> optax.GradientTransformationExtraArgs:
    """The step on the sum of all losses; its state has the `decrease`."""
    half_of = 2 * jnp.arange(num_tasks, dtype=jnp.int32) // num_tasks

    def init(params: optax.Params) -> HalvesState:
        apart = by_owner(optimizer, owners(owner, params, num_tasks), params)
        return HalvesState(jnp.zeros((2, 3, num_tasks)), apart.init(params))

    def update(
        updates: Any,
        state: HalvesState,
        params: optax.Params | None = None,
        *,
        losses_fn: Callable[[optax.Params], Any],
        **extra_args: Any,
    ) -> tuple[Any, HalvesState]:
        del updates, extra_args
        of_leaf = owned(owners(owner, params, num_tasks), None, num_tasks)
        everyone, nobody = jnp.zeros_like(half_of), jnp.zeros((num_tasks, num_tasks))
        # Of each sequence the groups and their order. In the first a single group has
        # all tasks; there is no second one, and so no step for it.
        sequences = jnp.stack([everyone, half_of, half_of]), jnp.array(ORDERS)

        def compare(inner: Any, state: Any) -> tuple[jax.Array, Sweep]:
            def sequence(division: Any) -> tuple[jax.Array, Sweep]:
                labels, order = division
                sweep = group_steps(
                    *(inner, of_leaf, params, (state, nobody, jnp.zeros(num_tasks))),
                    *((order, labels, jnp.ones(num_tasks, bool)), 0.0, False),
                    ask=group_grads_at(losses_fn),
                    extra_args={},
                )
                after = jnp.stack(losses_fn(optax.apply_updates(params, sweep.moved)))
                return jnp.log(jnp.stack([sweep.losses, sweep.before, after])), sweep

            logs, sweeps = jax.lax.map(sequence, sequences)
            return decrease(logs, half_of), jax.tree.map(lambda x: x[0], sweeps)

        found, joint = compare(optimizer, state.inner)
        plain = optax.sgd(SGD_RATE)
        fresh = by_owner(plain, of_leaf.labels, params).init(params)
        found = jnp.stack([found, compare(plain, fresh)[0]])
        return joint.moved, HalvesState(found, joint.inner)

    return optax.GradientTransformationExtraArgs(init, update)


def decrease(logs: jax.Array, half_of: jax.Array) -> jax.Array:
    """Rows STEPS `[3, T]`, from log losses `[3, 3, T]`.

    Those are of the sequences with ORDERS, each before its first step, before its last,
    and after all.
    """
    before, between, after = jnp.moveaxis(logs, 1, 0)
    goes_first = half_of[None, :] == jnp.array(ORDERS)[1:, :1]
    first, second = before - between, between - after
    own = jnp.where(goes_first, first[1:], second[1:])
    whole = before - after
    return jnp.stack([whole[0], own.mean(axis=0), whole[1:].mean(axis=0)])
