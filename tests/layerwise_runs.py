"""What tests of lazy gradients compare with: gradients made by JAX alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import mtl_optax as mtl
from benchmarks.zoo import MODELS, WITH_AUX


def vector(losses):
    """In the order of sorted names."""
    if isinstance(losses, dict):
        losses = [losses[name] for name in sorted(losses)]
    return jnp.stack(losses) if isinstance(losses, list | tuple) else losses


def with_aux(losses_fn, has_aux):
    return losses_fn if has_aux else lambda *args: (losses_fn(*args), None)


def stacked_by_jax(losses_fn, params, *batch, has_aux=False):
    """Gradients of all tasks `[T, ...]`, and the auxiliary output."""

    def losses(params):
        out, aux = with_aux(losses_fn, has_aux)(params, *batch)
        return vector(out), aux

    return jax.jacrev(losses, has_aux=True)(params)


def rows(stacked):
    """One leaf after the other, `[T, numbers]` in float64."""
    return [
        np.asarray(leaf, np.float64).reshape(leaf.shape[0], -1)
        for leaf in jax.tree.leaves(stacked)
    ]


def inner_products(each):
    return sum(leaf @ leaf.T for leaf in each)


def weighted(weights, each):
    return np.concatenate([np.asarray(weights, np.float64) @ leaf for leaf in each])


def flat(tree):
    return np.concatenate(
        [np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)]
    )


def gramian_error(found, wanted):
    """Of the largest entry."""
    return np.max(abs(np.asarray(found, np.float64) - wanted)) / np.max(abs(wanted))


def cosine_error(found, wanted):
    """Of the norms of both tasks, so that a short gradient does not hide."""
    norms = np.sqrt(np.diag(wanted))
    norms = np.where(norms > 0, norms, 1)
    found = np.asarray(found, np.float64)
    return np.max(abs(found - wanted) / np.outer(norms, norms))


def update_error(found, wanted):
    """Of the norm."""
    return np.linalg.norm(flat(found) - wanted) / np.linalg.norm(wanted)


def _by_length(gramian, state, **_):
    weights = 1 / (1 + jnp.sqrt(jnp.diag(gramian)))
    return weights.at[0].multiply(-0.5), state


# A method that compiles quickly: shorter gradients weigh more, and one is negative.
BY_LENGTH = mtl.Weighting(init=lambda num_tasks: (), update=_by_length)


def lazy_step(losses_fn, tx, has_aux=False, **options):
    """`(params, *batch) -> (update, state, losses, aux)`."""
    grads_fn = mtl.lazy_task_grads(
        with_aux(losses_fn, has_aux), has_aux=True, **options
    )

    def step(params, *batch, **extra):
        (losses, aux), lazy = grads_fn(params, *batch)
        update, state = tx.update(lazy, tx.init(params), params, **extra)
        return update, state, losses, aux

    return step


@functools.cache
def model_and_rows(name):
    """A model of the zoo; its losses, auxiliary output, and gradients by JAX."""
    model = MODELS[name]("small")
    has_aux = name in WITH_AUX

    @jax.jit
    def reference(params, *batch):
        losses, aux = with_aux(model.losses_fn, has_aux)(params, *batch)
        stacked, _ = stacked_by_jax(model.losses_fn, params, *batch, has_aux=has_aux)
        return stacked, vector(losses), aux

    return model, *jax.device_get(reference(model.params, *model.batch))
