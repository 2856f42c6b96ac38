"""What tests of MT-SAC start from: three tasks, small networks, one batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax import rl

TASKS = "a", "b", "c"
OBS, ACTION, ROWS = 3, 2, 4
ACTIVE = np.array([True, False, True])


def networks(num_tasks=3, hidden=(4, 3)):
    actor = rl.multi_head(num_tasks, OBS, 2 * ACTION, hidden=hidden)
    return actor, rl.multi_head(num_tasks, OBS + ACTION, 1, hidden=hidden)


def chain(method, shared, *behind):
    return optax.chain(mtl.on_shared(method, shared), *behind)


def agent_of(make, *behind, num_tasks=3, **options):
    """An agent with a method of its own for actor and critics, and what is behind."""
    actor, critic = networks(num_tasks)
    behind = behind or (optax.clip_by_global_norm(0.5), optax.adam(1e-2))
    txs = (chain(make(), net.shared, *behind) for net in (actor, rl.twin(critic)))
    return rl.mtsac(TASKS[:num_tasks], actor, critic, *txs, **options)


@functools.cache
def cagrad_agent():
    """The agent of most tests, and its compiled update."""
    agent = agent_of(lambda: mtl.cagrad(3, c=0.5))
    return agent, jax.jit(agent.update)


def noisy(tree, seed):
    """Numbers of a size at which no layer is dead; last layers start near zero."""
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.asarray(0.6 * rng.normal(size=x.shape), x.dtype)  # noqa: E731
    return jax.tree.map(draw, tree)


@functools.cache
def started(agent):
    """A state, with targets and temperatures of their own."""
    state = agent.init(jax.random.key(0))
    return state._replace(
        actor=noisy(state.actor, 1),
        critic=noisy(state.critic, 2),
        target=noisy(state.target, 3),
        log_alpha=jnp.array([-0.5, 0.2, -1.5], state.log_alpha.dtype)[
            : len(agent.tasks)
        ],
    )


@functools.cache
def batch(seed=0, num_tasks=3):
    """Rewards of different scale; some transitions are the last ones."""
    rng = np.random.default_rng(seed)
    scales = np.array([1.0, 5.0, 0.2])[:num_tasks, None]
    found = rl.Batch(
        rng.normal(size=(num_tasks, ROWS, OBS)),
        rng.uniform(-1, 1, size=(num_tasks, ROWS, ACTION)),
        scales * rng.normal(size=(num_tasks, ROWS)),
        rng.normal(size=(num_tasks, ROWS, OBS)),
        (rng.uniform(size=(num_tasks, ROWS)) < 0.3).astype(float),
    )
    return found


def noises(key, num_tasks=3, rows=ROWS):
    """What an update draws with a key: for the next actions, and for the present ones.

    The first two of three keys, folded with the number of the task.
    """
    return [
        np.stack(
            [
                jax.random.normal(jax.random.fold_in(own, k), (rows, ACTION), float)
                for k in range(num_tasks)
            ]
        )
        for own in jax.random.split(key, 3)[:2]
    ]
