"""Updates in which the weights cancel the gradients up to rounding."""

import operator
from functools import reduce

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.solvers.linalg import cancels, noise_floor
from mtl_optax.core.stacked import task_norms
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.trees.branches import zeros_of


def zero_if_cancelling(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """Weights `[..., T]`, or zeros where they cancel the Gramian's rows to rounding.

    A Gramian tells a squared norm to within its own rounding only: this is the test
    where the numbers that are summed are not those that it is of, and block by block.
    """
    test = jnp.vectorize(cancels, signature="(t),(t,t)->()")
    return jnp.where(test(weights, gramian)[..., None], 0, weights)


def zero_if_noise(
    gradients: TaskGrads, weights: jax.Array, gramian: jax.Array, unit: jax.Array
) -> optax.Updates:
    """The weighted sum of the gradients, or zeros if it is noise.

    The Gramian is that of the gradients, in the unit that `measure` gave. Where it
    cannot tell, and only there, the norm of the update decides.
    """
    update = gradients.pull(weights)
    suspect = cancels(weights, gramian)

    def is_noise() -> jax.Array:
        floor = noise_floor(weights.shape[0], weights.dtype)
        largest = jnp.max(jnp.abs(weights))  # whose square may be no number
        largest = jnp.where(largest > 0, largest, 1)
        apart = jnp.sum((weights / largest) ** 2 * jnp.diag(gramian))
        again = gradients.pulled_again(update, weights)
        return _squared_norm(again, unit * largest) <= floor**2 * apart

    # The branch returns no update: one that goes through it would be written and
    # copied, where otherwise it melts into the optimiser that reads it.
    known = jax.eval_shape(is_noise)
    noise = lax.cond(suspect, is_noise, lambda: zeros_of(known))
    return jax.tree.map(lambda x: jnp.where(noise, 0, x), update)


def sum_of_rows(rows: optax.Updates) -> tuple[optax.Updates, jax.Array]:
    """The sum of a stack `[T, *param]` over tasks, and its norm; zeros if it is noise.

    For rows that belong to no weights, beside the largest of each coordinate.
    """
    total = jax.tree.map(lambda x: jnp.sum(x, axis=0), rows)
    largest = jax.tree.map(lambda x: jnp.max(jnp.abs(x), axis=0), rows)
    size, apart = (
        task_norms(jax.tree.map(lambda x: x[None], tree))[0]
        for tree in (total, largest)
    )
    num_tasks = jax.tree.leaves(rows)[0].shape[0]
    noise = size <= noise_floor(num_tasks, size.dtype) * apart
    total = jax.tree.map(lambda x: jnp.where(noise, 0, x), total)
    return total, jnp.where(noise, 0, size)


def _squared_norm(tree: optax.Updates, unit: jax.Array) -> jax.Array:
    """Sum of squares over all leaves, in the precision of T-sized numbers."""
    wide = [leaf.astype(unit.dtype) / unit for leaf in jax.tree.leaves(tree)]
    return reduce(operator.add, [jnp.sum(leaf * leaf) for leaf in wide])
