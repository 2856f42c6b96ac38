"""Whole runs on the device: what is stored, when it is learnt from, and lanes."""

from types import SimpleNamespace
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax import rl
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
    assert np.all(run_and_infos[0].buffer.filled == STEPS)


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


@pytest.mark.slow
@pytest.mark.optimized
def test_the_buffer_is_written_in_place():
    """A larger one needs no more room beside itself, with several lanes."""

    def room(capacity, lanes):
        settings = SETTINGS._replace(capacity=capacity)
        keys = jax.random.split(jax.random.key(0), lanes)
        run = jax.jit(jax.vmap(lambda key: steps(settings, key)[0]))
        memory = run.lower(keys).compile().memory_analysis()
        return memory.temp_size_in_bytes, memory.output_size_in_bytes

    small, large = room(100, lanes=3), room(10_100, lanes=3)
    rows = K * 10_000 * 4
    # Zeros for the scalars of a row, with which all lanes begin, and not 3 x 16 rows.
    assert large[0] - small[0] < 1.1 * rows
    assert large[1] - small[1] > 3 * 15 * rows


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

    def first(key):
        run = on_device.start(COUNTING, env, settings, key)
        return on_device.step(COUNTING, env, settings, run)[1]["batch"].reward

    rewards = jax.jit(first)(jax.random.key(0))
    np.testing.assert_array_equal(rewards, jnp.full((K, 5), -3.0))


def test_a_look_tells_success_at_the_end_from_success_on_the_way():
    """In an environment of counting: a task succeeds at the steps that are listed."""
    at = {"never": (), "on the way": (1, 2), "at the end": (3,), "both": (0, 3)}
    succeeds = jnp.array([[t in steps for t in range(4)] for steps in at.values()])

    def step(time, action):
        rewards = action[:, 0] * jnp.array([1.0, 2.0, 3.0, 4.0])
        now = succeeds[:, time], jnp.full(4, time == 3)
        return time + 1, SimpleNamespace(
            obs=0, success=now[0], ended=now[1], reward=rewards
        )

    env = SimpleNamespace(horizon=4, step=step, reset=lambda key: (jnp.int32(0), 0))
    agent = SimpleNamespace(mode=lambda state, obs: jnp.full((4, 2), state))
    found = on_device.evaluate(agent, env, 0.5, jax.random.key(0), episodes=3)
    np.testing.assert_array_equal(found["success"], [0, 0, 1, 1])
    np.testing.assert_array_equal(found["any_success"], [0, 1, 1, 1])
    np.testing.assert_array_equal(found["return"], [2.0, 4.0, 6.0, 8.0])


def test_a_look_solves_what_can_be_solved():
    """With different starts in each episode, and no noise."""
    env = point_mass()
    wind = jnp.array([task.wind for task in TASKS])
    mass = jnp.array([[task.mass] for task in TASKS])

    def mode(state, obs):
        force = 3 * (obs[:, 4:] - obs[:, :2]) - 2 * obs[:, 2:4]
        return MIRROR * mass * (force - wind) * state

    agent = SimpleNamespace(mode=mode)
    look = jax.jit(
        lambda strength: on_device.evaluate(agent, env, strength, jax.random.key(0), 8)
    )
    assert jnp.all(look(1.0)["success"] == 1)
    assert jnp.all(look(0.0)["success"] < 0.5)
    assert jnp.all(look(0.0)["return"] < look(1.0)["return"])


TWO = point_mass((TASKS[5], TASKS[0]), horizon=5)
SLOPES = jnp.array([[3.0, 4.0], [-1.0, 0.0]])  # of the losses, along what is shared


class Weights(NamedTuple):
    """Of an agent that learns something cheaply."""

    actor: dict[str, jax.Array]
    critic: dict[str, jax.Array]


def learning():
    """Such an agent, and how often its update was traced."""
    traces = []

    def init(key):
        params = {"all": jax.random.normal(key, (2,)), "own": jnp.ones(2)}
        return Weights(params, params)

    def act(state, obs, key=None):
        noise = 0 if key is None else jax.random.normal(key, (2, 2))
        return state.actor["all"][None] * (obs[:, 4:] - obs[:, :2]) + noise

    def update(state, batch, key):
        traces.append(1)
        change = 0.01 * batch.reward.mean() * jax.random.normal(key, (2,))
        return jax.tree.map(lambda x: x + change, state), change

    def losses(sign):
        def of(state, batch, key):
            def losses_fn(params):
                return sign * SLOPES @ params["all"] + 7 * params["own"]

            return losses_fn

        return of

    def shared(params):
        return {"all": True, "own": False}

    agent = SimpleNamespace(
        **{"tasks": TWO.tasks, "init": init, "act": act, "mode": act, "update": update},
        **{"actor_losses": losses(1), "critic_losses": losses(jnp.array([[1], [-1]]))},
        **{"actor_shared": shared, "critic_shared": shared},
    )
    return agent, traces


@pytest.mark.slow
def test_runs_of_several_seeds_are_lanes_of_one_program():
    agent, traces = learning()

    def run(key):
        run, records = on_device.train(agent, TWO, SETTINGS, key, 20, 10)
        return run._replace(key=jax.random.key_data(run.key)), records

    keys = jax.random.split(jax.random.key(0), 3)
    over_seeds = jax.jit(jax.vmap(run))
    lanes, records = over_seeds(keys)
    once = len(traces)
    others, _ = over_seeds(jax.random.split(jax.random.key(1), 3))
    assert len(traces) == once  # a second call compiles nothing

    lane = lanes._replace(env=lanes.env._replace(key=jnp.zeros(3)))
    lane = jax.tree.map(lambda x: x[1], (lane, records))
    alone, looks = jax.jit(run)(keys[1])
    alone = alone._replace(env=alone.env._replace(key=jnp.float32(0)))
    chex.assert_trees_all_close(lane, (alone, looks), rtol=1e-4, atol=1e-5)
    weights = np.concatenate([x.agent.actor["all"] for x in (lanes, others)])
    assert len(np.unique(weights[:, 0])) == 6

    assert np.array_equal(records["step"], [[10, 20]] * 3)
    assert records["success"].shape == records["return"].shape == (3, 2, 2)
    assert records["cosines"]["actor"].shape == (3, 2, 2, 2)
    assert np.all(records["info"] != 0)  # of the last update before each look


def test_conflict_is_told_on_what_tasks_share():
    agent, _ = learning()
    state = Weights(*2 * ({"all": jnp.ones(2), "own": jnp.ones(2)},))

    @jax.jit
    def found(state):
        return on_device.conflict(agent, state, None, None)

    cosines = found(state)
    np.testing.assert_allclose(cosines["actor"], [[1, -0.6], [-0.6, 1]], rtol=1e-6)
    np.testing.assert_allclose(cosines["critic"], [[1, 0.6], [0.6, 1]], rtol=1e-6)
    agent.actor_shared = lambda _: {"all": False, "own": False}
    none = jax.jit(lambda x: on_device.conflict(agent, x, None, None))(state)
    np.testing.assert_array_equal(none["actor"], np.eye(2))


@pytest.mark.slow
def test_small_networks_learn_in_some_hundred_steps():
    """MT-SAC itself, from the sum of losses of two tasks without a conflict."""
    env = point_mass((TASKS[0], TASKS[0]._replace(name="calm_2")))
    actor = rl.multi_head(2, env.obs_dim, 2 * env.action_dim, hidden=(32,))
    critic = rl.multi_head(2, env.obs_dim + env.action_dim, 1, hidden=(32,))

    def chain():
        return optax.chain(mtl.unitary(num_tasks=2), optax.adam(5e-3))

    agent = rl.mtsac(
        *(env.tasks, actor, critic, chain(), chain()),
        **{"alpha_tx": optax.adam(5e-3), "init_alpha": 0.1},
        **{"discount": 0.9, "tau": 0.02},
    )
    settings = RunSettings(batch_size=32, capacity=1500, random_steps=300, episodes=20)
    run = jax.jit(lambda key: on_device.train(agent, env, settings, key, 1500, 300)[1])
    returns = run(jax.random.key(0))["return"]
    assert jnp.all(returns[-1] > 0.55 * returns[0])  # of negative rewards


def test_errors_name_cause_and_cure():
    with pytest.raises(ValueError, match=r"not those of the environment.*env.tasks"):
        on_device.start(COUNTING, TWO, SETTINGS, jax.random.key(0))
    with pytest.raises(ValueError, match=r"multiple of every=10.*20 is one"):
        on_device.train(COUNTING, ENV, SETTINGS, jax.random.key(0), 25, 10)
