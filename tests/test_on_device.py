"""Whole runs on the device: what is stored, when it is learnt from, and lanes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.rl import on_device
from mtl_optax.rl.on_device import RunSettings
from mtl_optax.rl.point_mass import TASKS, point_mass

K = len(TASKS)
MIRROR = jnp.array([task.mirror for task in TASKS])
HORIZON, EXPLORING, STEPS = 10, 7, 33
ENV = point_mass(horizon=HORIZON)
SETTINGS = RunSettings(batch_size=5, capacity=40, random_steps=EXPLORING, episodes=3)


def towards_the_goal(state, obs, key=None):
    """As an agent that knows the mirrors would act, if weakly."""
    del state, key
    return 0.9 * MIRROR * jnp.sign(obs[:, 4:] - obs[:, :2])


# In place of MT-SAC: it counts its updates and tells which batches they had.
COUNTING = SimpleNamespace(
    tasks=ENV.tasks,
    init=lambda key: jnp.int32(0),
    act=towards_the_goal,
    mode=towards_the_goal,
    update=lambda state, batch, key: (state + 1, {"batch": batch, "key": key}),
)


def steps(settings, key, number=STEPS):
    """The run after so many steps, and the infos of all."""
    run = on_device.start(COUNTING, ENV, settings, key)

    def one(run, _):
        return on_device.step(COUNTING, ENV, settings, run)

    return jax.lax.scan(one, run, None, number)


@pytest.fixture(scope="module")
def run_and_infos():
    return jax.jit(lambda key: steps(SETTINGS, key))(jax.random.key(0))


def stored(run):
    """All transitions in the buffer by name, time first."""
    return {
        name: np.asarray(jnp.swapaxes(x, 0, 1)[: run.time])
        for name, x in zip(run.buffer.rows._fields, run.buffer.rows, strict=True)
    }


def test_transitions_are_stored_with_what_followed_in_their_episode(run_and_infos):
    rows = stored(run_and_infos[0])
    ends = np.arange(HORIZON, STEPS, HORIZON) - 1
    goes_on = np.setdiff1d(np.arange(STEPS - 1), ends)
    after, following = rows["next_obs"], rows["obs"][1:]
    # XLA may compute the same number twice, in two fusions.
    same = {"atol": 1e-6}
    np.testing.assert_allclose(after[goes_on], following[goes_on], **same)
    assert np.all(after[ends][..., 2:4] != 0)  # the last state of the episode
    assert np.all(following[ends][..., 2:4] == 0)  # the first of the next
    np.testing.assert_allclose(run_and_infos[0].obs, after[-1], **same)
    assert not np.any(rows["terminated"])
    assert np.all(run_and_infos[0].buffer.count == STEPS)


def test_random_actions_first_and_then_the_agents(run_and_infos):
    rows = stored(run_and_infos[0])
    own = jax.vmap(lambda obs: towards_the_goal(None, obs))(rows["obs"])
    np.testing.assert_array_equal(rows["action"][EXPLORING:], own[EXPLORING:])
    drawn = rows["action"][:EXPLORING]
    assert np.all(np.abs(drawn) <= 1)
    assert len(np.unique(drawn)) == drawn.size  # for each task and step its own


def test_one_update_a_step_after_the_random_ones(run_and_infos):
    run, infos = run_and_infos
    assert run.agent == STEPS - EXPLORING
    assert not np.any(infos["batch"].obs[:EXPLORING])
    keys = np.unique(jax.random.key_data(infos["key"][EXPLORING:]), axis=0)
    assert len(keys) == STEPS - EXPLORING


def test_batches_hold_what_the_task_itself_has_seen(run_and_infos):
    run, infos = run_and_infos
    rows = stored(run)
    batches = infos["batch"]
    for at in (EXPLORING, STEPS - 1):
        for k in range(K):
            sampled = np.asarray(batches.obs[at, k])
            seen = rows["obs"][: at + 1, k]
            assert np.all((sampled[:, None] == seen[None]).all(-1).any(1))


def test_rewards_divided_by_their_tasks_standard_deviation():
    key = jax.random.key(1)
    settings = SETTINGS._replace(normalized_rewards=True)
    both = jax.jit(lambda key: (steps(SETTINGS, key), steps(settings, key)))(key)
    (run, plain), (_, divided) = both
    rewards = stored(run)["reward"]
    np.testing.assert_allclose(run.rewards.mean, rewards.mean(0), rtol=1e-4)
    for at in (EXPLORING, STEPS - 1):
        std = rewards[: at + 1].std(0)[:, None]
        given = plain["batch"].reward[at]
        np.testing.assert_allclose(divided["batch"].reward[at], given / std, rtol=1e-3)


def test_rewards_that_are_all_the_same_stay_as_they_are():
    def still(key):
        state, obs = ENV.reset(key)
        return state._replace(position=state.goal), obs

    def never(state, action):
        _, after = ENV.step(state, action)
        return state, after._replace(reward=jnp.full(K, -3.0))

    env = ENV._replace(reset=still, step=never)
    settings = SETTINGS._replace(normalized_rewards=True, random_steps=0)
    run = on_device.start(COUNTING, env, settings, jax.random.key(0))
    _, info = on_device.step(COUNTING, env, settings, run)
    np.testing.assert_array_equal(info["batch"].reward, jnp.full((K, 5), -3.0))
