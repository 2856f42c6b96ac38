"""Random stacks, their steps stacked and lazy, and momenta in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import mtl_optax as mtl

PARAMS = {"w": jnp.zeros(6), "v": jnp.zeros((2, 2))}


def stacks(num_tasks, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {k: rng.normal(size=(num_tasks, *p.shape)).astype(np.float32) + 0.5
         for k, p in PARAMS.items()}
        for _ in range(steps)
    ]  # fmt: skip


def flat(tree, num_tasks=None):
    lead = () if num_tasks is None else (num_tasks,)
    return np.concatenate(
        [np.asarray(tree[k], np.float64).reshape(*lead, -1) for k in sorted(tree)], -1
    )


def run(tx, grads, extras=({},), params=PARAMS):
    step, state, found = jax.jit(tx.update), tx.init(params), []
    for i, g in enumerate(grads):
        update, state = step(g, state, params, **extras[i % len(extras)])
        found.append(flat(update))
    return np.array(found), state


def lazily(tx, grads, num_tasks, active=None):
    """The same steps on losses that are linear, one function for all steps."""

    @jax.jit
    def step(g, state, active):
        def losses_fn(p):
            return {
                f"task {t}": sum(jnp.sum(g[k][t] * p[k]) for k in p)
                for t in range(num_tasks)
            }

        _, lazy = mtl.lazy_task_grads(losses_fn)(PARAMS)
        return tx.update(lazy, state, PARAMS, active=active)

    state, found = tx.init(PARAMS), []
    for i, g in enumerate(grads):
        update, state = step(g, state, None if active is None else active[i])
        found.append(flat(update))
    return np.array(found), state


def numpy_rows(grads, num_tasks, decay, turns):
    """Bias-corrected momenta after each step, or None while a task is unseen."""
    m, n = np.zeros((num_tasks, 10)), np.zeros(num_tasks)
    for g, tasks in zip(grads, turns, strict=True):
        g = flat(g, num_tasks)
        for t in tasks:
            n[t] += 1
            m[t] = decay * m[t] + (1 - decay) * g[t]
        yield m / (1 - decay**n)[:, None] if n.all() else None
