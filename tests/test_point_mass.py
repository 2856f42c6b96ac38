"""Point masses move as written down, can be solved, and begin anew by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.rl.point_mass import GOAL, REACHED, START, TASKS, point_mass

K = len(TASKS)
MIRROR = np.array([task.mirror for task in TASKS], np.float32)
WIND = np.array([task.wind for task in TASKS], np.float32)
MASS = np.array([[task.mass] for task in TASKS], np.float32)
SCALE = np.array([task.reward_scale for task in TASKS], np.float32)
CENTRE = np.array([task.goal for task in TASKS], np.float32)


def controller(obs):
    """Pushes towards the goal, brakes, and knows each task's twist."""
    position, velocity, goal = obs[:, :2], obs[:, 2:4], obs[:, 4:]
    force = 3 * (goal - position) - 2 * velocity
    return jnp.clip(MIRROR * MASS * (force - WIND), -1, 1)


def run(env, key, policy, steps):
    """Every Stepped, stacked, behind the first observation."""
    state, first = env.reset(key)

    def step(carry, at):
        state, obs = carry
        state, stepped = env.step(state, policy(obs, at))
        return (state, stepped.obs), stepped

    return first, jax.lax.scan(step, (state, first), jnp.arange(steps))[1]


@pytest.fixture(scope="module")
def episodes():
    """64 times an episode of the controller, and the first step of the next one."""
    env = point_mass()
    keys = jax.random.split(jax.random.key(0), 64)

    def policy(obs, at):
        return controller(obs)

    return jax.jit(jax.vmap(lambda key: run(env, key, policy, env.horizon + 1)))(keys)


def test_masses_move_as_a_loop_in_numpy_says():
    env, steps = point_mass(horizon=40), 39
    pushes = np.random.default_rng(0).uniform(-1.5, 1.5, (steps, K, 2))
    pushes = np.float32(pushes + 0.5)  # into walls, and beyond the limit of ±1
    given = jnp.asarray(pushes)
    first, seen = jax.jit(lambda key: run(env, key, lambda obs, at: given[at], steps))(
        jax.random.key(0)
    )

    first = np.asarray(first)
    position, velocity, goal = first[:, :2], first[:, 2:4], first[:, 4:]
    hits = 0
    for t in range(steps):
        force = MIRROR * np.clip(pushes[t], -1, 1) / MASS + WIND
        velocity = 0.9 * velocity + 0.1 * force
        free = position + 0.1 * velocity
        position = np.clip(free, -1, 1)
        velocity = np.where(np.abs(free) > 1, 0, velocity)
        hits += np.sum(np.abs(free) > 1)
        distance = np.hypot(*(position - goal).T)
        wanted = np.concatenate([position, velocity, goal], axis=1)
        np.testing.assert_allclose(seen.next_obs[t], wanted, atol=2e-6)
        np.testing.assert_allclose(seen.reward[t], -SCALE * distance, rtol=1e-4)
        np.testing.assert_array_equal(seen.success[t], distance < REACHED)
        np.testing.assert_allclose(seen.obs[t], seen.next_obs[t], atol=1e-6)
    assert hits > 10
    assert not np.any(seen.ended)


def test_every_task_can_be_solved(episodes):
    """From everywhere; and by nobody at once, nor by the controller of another task."""
    _, seen = episodes
    last = point_mass().horizon - 1
    assert np.all(seen.success[:, last])
    assert np.mean(seen.success[:, 0]) < 0.1
    assert np.all(np.sum(seen.success[:, : last + 1], axis=1) > 5)


def test_an_episode_ends_by_time_and_the_next_begins(episodes):
    first, seen = episodes
    last = point_mass().horizon - 1
    assert np.array_equal(np.unique(np.nonzero(seen.ended)[1]), [last])
    assert np.all(seen.ended[:, last])
    assert not np.any(seen.terminated)  # by time alone: a target bootstraps

    ended, begun = seen.next_obs[:, last], np.asarray(seen.obs[:, last])
    distance = np.linalg.norm(ended[..., :2] - ended[..., 4:], axis=-1)
    assert np.all(distance < REACHED)  # this episode's last state
    for start in (np.asarray(first), begun):
        assert np.all(start[..., 2:4] == 0)
        assert np.all(np.abs(start[..., :2]) <= START)
        assert np.all(np.abs(start[..., 4:] - CENTRE) <= GOAL + 1e-6)
    # All that is drawn differs: by task, by seed and by episode.
    drawn = np.concatenate([np.asarray(first), begun])[..., [0, 1, 4, 5]]
    drawn[..., 2:] -= CENTRE
    assert len(np.unique(drawn.reshape(-1, 4), axis=0)) == drawn.size // 4
    assert len(np.unique(drawn.reshape(-1, 4)[:, 0])) == drawn.size // 4
    # The step after goes on from there.
    moved = seen.next_obs[:, last + 1, :, :2] - begun[..., :2]
    assert np.all(np.abs(moved) < 0.02)


def test_rewards_have_the_scale_of_their_task(episodes):
    _, seen = episodes
    assert np.all(seen.reward <= 0)
    assert np.all(seen.reward >= -np.sqrt(8) * SCALE[None, None, :])
    typical = np.mean(-seen.reward, axis=(0, 1))
    assert typical.max() / typical.min() > 50


def test_lanes_of_one_program_are_single_runs(episodes):
    env = point_mass()
    key = jax.random.split(jax.random.key(0), 64)[3]
    first, seen = jax.jit(
        lambda key: run(env, key, lambda obs, at: controller(obs), env.horizon + 1)
    )(key)
    lane = jax.tree.map(lambda x: x[3], episodes)
    np.testing.assert_array_equal(first, lane[0])
    np.testing.assert_allclose(seen.obs, lane[1].obs, atol=1e-5)


def test_some_tasks_alone_and_old_style_keys():
    env = point_mass(TASKS[2:4])
    assert env.tasks == ("heavy", "mirror_x")
    typed, raw = (
        env.reset(key)[1] for key in (jax.random.key(5), jax.random.PRNGKey(5))
    )
    np.testing.assert_array_equal(typed, raw)


def test_errors_name_cause_and_cure():
    with pytest.raises(ValueError, match=r"different names; got \['calm', 'calm'\]"):
        point_mass([TASKS[0], TASKS[0]._replace(mass=3.0)])
    with pytest.raises(ValueError, match=r"one task or more.*got \[\]"):
        point_mass(())
    with pytest.raises(ValueError, match="mass of 'calm' must be positive; got 0"):
        point_mass([TASKS[0]._replace(mass=0)])
    with pytest.raises(ValueError, match="horizon must be 1 or more steps; got 0"):
        point_mass(horizon=0)
    env = point_mass()
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    for shape in ((2,), (K, 3), (1, 2)):
        with pytest.raises(ValueError, match=rf"one action \[2\] for each of {K} task"):
            jax.eval_shape(env.step, state, jnp.zeros(shape))
