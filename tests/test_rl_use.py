"""What a newcomer does with `mtl_optax.rl`: an own environment, and what goes wrong."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax import rl
from mtl_optax.rl.on_device import evaluate

K, D, A = 3, 5, 2
TASKS = ("hop", "kick", "roll")
ACTOR = rl.multi_head(K, D, 2 * A, hidden=(4,))
CRITIC = rl.multi_head(K, D + A, 1, hidden=(4,))


def chain(network, wrap=lambda tx: tx):
    method = mtl.on_shared(mtl.unitary(K), network.shared)
    return wrap(optax.chain(method, optax.adam(1e-3)))


def agent(actor=ACTOR, critic=CRITIC, wrap=lambda tx: tx, **options):
    chains = chain(ACTOR, wrap), chain(rl.twin(CRITIC), wrap)
    return rl.mtsac(TASKS, actor, critic, *chains, **options)


def batch(n=4):
    rng = np.random.default_rng(0)
    shapes = (K, n, D), (K, n, A), (K, n), (K, n, D), (K, n)
    return rl.Batch(*(rng.uniform(-1, 1, shape) for shape in shapes))


def trace(agent, batch):
    def of(key):
        return agent.update(agent.init(key), batch, key)

    return jax.eval_shape(of, jax.random.key(0))


class Count(NamedTuple):
    episode: Any  # [K], which one it is
    time: Any  # [K], steps in it


def counting(horizon):
    """The second task terminates at its third step, with success; then all are bad."""

    def reset(_):
        return Count(jnp.zeros(K), jnp.zeros(K)), jnp.zeros((K, D))

    def step(state, _):
        time = state.time + 1
        dead = (jnp.arange(K) == 1) & (time == 3)
        ended = dead | (time == horizon)
        success = (state.episode == 0) & (time == 3)
        reward = jnp.where(state.episode == 0, 1.0, -100.0)
        obs = jnp.zeros((K, D))
        after = rl.Stepped(obs, obs, reward, dead * 1.0, success, ended)
        return Count(state.episode + ended, jnp.where(ended, 0, time)), after

    return rl.Env(TASKS, D, A, horizon, reset, step)


def test_a_look_ends_where_a_task_terminates():
    one = agent()
    state = one.init(jax.random.key(0))
    found = evaluate(one, counting(8), state, jax.random.key(1), episodes=2)
    np.testing.assert_array_equal(found["success"], [0, 1, 0])
    np.testing.assert_array_equal(found["any_success"], [1, 1, 1])
    np.testing.assert_array_equal(found["return"], [8, 3, 8])


@pytest.mark.slow
def test_nan_in_an_observation_leaves_the_task_as_it_was():
    skipping = agent(wrap=lambda tx: mtl.skip_nonfinite_tasks(tx, K))
    update = jax.jit(skipping.update)
    before = skipping.init(jax.random.key(0))
    bad = batch()
    bad.obs[1, 0, 0] = np.nan
    state, _ = update(before, bad, jax.random.key(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    moved = np.asarray(state.log_alpha != before.log_alpha)
    np.testing.assert_array_equal(moved, [True, False, True])
    state, info = update(state, batch(), jax.random.key(2))  # and it learns again
    assert np.isfinite(info.critic_losses).all()
    assert state.log_alpha[1] != before.log_alpha[1]


NETWORKS = {
    "multi_head": rl.multi_head(K, D, 2 * A, hidden=(4,)),
    "one_hot_mlp": rl.one_hot_mlp(K, D, 2 * A, hidden=(4,)),
    "soft_modules": rl.soft_modules(K, D, 2 * A, num_layers=2, num_modules=2),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(2, 4, D), (1, 4, D), (K, 4, D + 1), (K, D)])
def test_a_network_says_which_rows_it_takes(name, shape):
    init, apply, _ = NETWORKS[name]
    params = jax.eval_shape(init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"takes rows \[3, n, 5\].*in_dim"):
        jax.eval_shape(apply, params, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_networks_of_single_tasks_say_so_too():
    own = rl.independent(K, rl.one_hot_mlp(1, D, 2 * A, hidden=(4,)))
    params = jax.eval_shape(own.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"takes rows \[3, n, d\]"):
        jax.eval_shape(own.apply, params, jnp.ones((1, 4, D)))


def test_rows_and_actions_of_another_width_name_the_network():
    wide = batch()
    with pytest.raises(ValueError, match=r"takes rows \[3, n, 5\]"):
        trace(agent(), wide._replace(obs=wide.obs[..., :4], next_obs=wide.obs[..., :4]))
    with pytest.raises(ValueError, match="2 A outputs"):
        trace(agent(), wide._replace(action=wide.action[..., :1]))
    with pytest.raises(ValueError, match=r"rl\.Batch\(\*\*batch\)"):
        trace(agent(), wide._asdict())
    with pytest.raises(ValueError, match=r"takes rows \[3, n, 5\]"):
        agent().mode(agent().init(jax.random.key(0)), jnp.ones((2, D)))


@pytest.mark.parametrize(
    ("mask_of", "params_of"),
    [(ACTOR, rl.twin(CRITIC)), (CRITIC, rl.twin(CRITIC)), (rl.twin(CRITIC), ACTOR)],
    ids=["actor for critics", "one critic for two", "critics for actor"],
)
def test_a_mask_of_the_wrong_network(mask_of, params_of):
    params = jax.eval_shape(params_of.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"These are no parameters of .*actor\.shared"):
        chain(mask_of).init(params)


@pytest.mark.parametrize("name", ["discount", "tau"])
def test_numbers_that_must_be_one_number(name):
    with pytest.raises(ValueError, match=f"{name}= must be one number"):
        agent(**{name: jnp.array([0.9, 0.8, 0.7])})  # n = K would broadcast in silence
    with pytest.raises(ValueError, match=f"{name} must be at most 1"):
        agent(**{name: 1.5})
    with pytest.raises(ValueError, match=f"{name} must be at least 0"):
        agent(**{name: -0.5})


def test_they_may_be_traced():
    def alpha(x):
        one = agent(discount=x, tau=x, init_alpha=x)
        return one.update(one.init(jax.random.key(0)), batch(), jax.random.key(0))[1]

    info = jax.eval_shape(jax.vmap(alpha), jnp.array([0.9, 0.8]))
    assert info.alpha.shape == (2, K)
