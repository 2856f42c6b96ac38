"""K point masses that share their dynamics and disagree about what to do with them.

Pure JAX, so that whole training runs stay on the device. All K tasks step together, the
task axis first. A mass is pushed about a box and shall come to rest at a goal, drawn
anew for each episode from the task's own region. Each task has a twist: wind, a heavier
mass, axes that push the other way; and a scale of its own for the reward, from 0.1 to
10, as tasks of different origin have. To mirrored tasks one and the same observation
means opposite actions, so that gradients on shared parameters conflict.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.trees.task_axis import where_active
from mtl_optax.rl.environment import Env, Stepped

DRAG, GAIN, SPAN = 0.9, 0.1, 0.1  # v <- DRAG v + GAIN force; x <- x + SPAN v
REACHED = 0.1  # success: within this distance of the goal
START, GOAL = 0.9, 0.3  # starts within ±START, goals within ±GOAL of their centre


class Task(NamedTuple):
    """What sets a task apart from the others."""

    name: str
    goal: tuple[float, float]  # centre of the region of its goals
    mirror: tuple[float, float] = (1.0, 1.0)  # -1 where an action pushes the other way
    wind: tuple[float, float] = (0.0, 0.0)  # a force that always blows
    mass: float = 1.0
    reward_scale: float = 1.0


TASKS = (
    Task("calm", goal=(0.5, 0.5)),
    Task("crosswind", goal=(0.5, -0.5), wind=(0.0, 0.4), reward_scale=10.0),
    Task("heavy", goal=(-0.5, 0.5), mass=2.0, reward_scale=0.1),
    Task("mirror_x", goal=(-0.5, -0.5), mirror=(-1.0, 1.0), reward_scale=10.0),
    Task("mirror_y", goal=(0.0, 0.0), mirror=(1.0, -1.0), reward_scale=0.1),
    Task("turned", goal=(0.5, 0.5), mirror=(-1.0, -1.0)),
)


class State(NamedTuple):
    """Where the K masses are."""

    position: jax.Array  # [K, 2], within ±1
    velocity: jax.Array  # [K, 2]
    goal: jax.Array  # [K, 2]
    time: jax.Array  # [K] int32: steps of this episode
    key: jax.Array  # [K]: each task draws from its own


def point_mass(tasks: Sequence[Task] = TASKS, horizon: int = 50) -> Env:
    r"""Point masses in a box, one a task.

    .. math::
      v \leftarrow 0.9\, v + 0.1\, (m \odot a / \text{mass} + \text{wind}), \quad
      x \leftarrow \text{clip}(x + 0.1\, v, \pm 1), \quad
      r = -\text{scale} \cdot \|x - \text{goal}\|

    with the mirror :math:`m`. At a wall the velocity into it is lost. From rest at full
    force a mass of 1 crosses the box in 29 steps, one of 2 in 49.

    Args:
      tasks: what sets them apart; their order is the order of the task axis.
      horizon: steps of an episode. It ends by time only, which is no termination: the
        value of the state goes on, and a target bootstraps from `next_obs`.

    Returns:
      An :class:`Env`. `reset(key)` gives a state and observations `[K, 6]`: position,
      velocity, goal. `step(state, action)` with actions `[K, 2]`, clipped to ±1, gives
      the next state and :class:`Stepped`; it is a pure function that begins a new
      episode by itself.

    Raises:
      ValueError: without tasks, if two have one name, for a mass or a horizon that is
        not positive; in `step` if there is not one action `[2]` a task.

    When not to use it: to compare algorithms of reinforcement learning. It is made for
    tasks that conflict at the price of some multiplications a step.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from mtl_optax.rl.point_mass import point_mass
      >>> env = point_mass()
      >>> env.tasks
      ('calm', 'crosswind', 'heavy', 'mirror_x', 'mirror_y', 'turned')
      >>> state, obs = env.reset(jax.random.key(0))
      >>> state, stepped = env.step(state, jnp.ones((6, 2)))
      >>> (stepped.next_obs - obs)[:, 2]  # velocities along x: two go the other way
      Array([ 0.1 ,  0.1 ,  0.05, -0.1 ,  0.1 , -0.1 ], dtype=float32)
    """
    _check(tasks, horizon)
    num_tasks = len(tasks)
    centre, mirror, wind = (
        jnp.array([getattr(task, field) for task in tasks], jnp.float32)
        for field in ("goal", "mirror", "wind")
    )
    mass = jnp.array([task.mass for task in tasks], jnp.float32)[:, None]
    scale = jnp.array([task.reward_scale for task in tasks], jnp.float32)

    def begin(keys: jax.Array) -> State:
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
        within = jax.vmap(lambda k: jax.random.uniform(k, (2,), minval=-1, maxval=1))
        start, goal = START * within(keys[:, 1]), centre + GOAL * within(keys[:, 2])
        time = jnp.zeros(num_tasks, jnp.int32)
        return State(start, jnp.zeros_like(start), goal, time, keys[:, 0])

    def reset(key: jax.Array) -> tuple[State, jax.Array]:
        state = begin(jax.random.split(key, num_tasks))
        return state, observed(state)

    def step(state: State, action: jax.Array) -> tuple[State, Stepped]:
        if jnp.shape(action) != (num_tasks, 2):
            raise ValueError(
                f"point_mass: step needs one action [2] for each of {num_tasks} tasks, "
                f"an array of shape {(num_tasks, 2)}; got {jnp.shape(action)}."
            )
        force = mirror * jnp.clip(action, -1, 1) / mass + wind
        velocity = DRAG * state.velocity + GAIN * force
        free = state.position + SPAN * velocity
        position = jnp.clip(free, -1, 1)
        velocity = jnp.where(position == free, velocity, 0)
        moved = state._replace(
            position=position, velocity=velocity, time=state.time + 1
        )
        distance = jnp.linalg.norm(position - state.goal, axis=-1)
        ended = moved.time >= horizon
        # Drawn at every step and kept at few: cheaper than a branch, also under vmap.
        state = where_active(ended, begin(state.key), moved)
        return state, Stepped(
            next_obs=observed(moved),
            obs=observed(state),
            reward=-scale * distance,
            terminated=jnp.zeros(num_tasks, jnp.float32),
            success=distance < REACHED,
            ended=ended,
        )

    names = tuple(task.name for task in tasks)
    return Env(names, obs_dim=6, action_dim=2, horizon=horizon, reset=reset, step=step)


def observed(state: State) -> jax.Array:
    """Observations `[K, 6]`: position, velocity, goal."""
    return jnp.concatenate([state.position, state.velocity, state.goal], axis=-1)


def _check(tasks: Sequence[Task], horizon: int) -> None:
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"point_mass needs one task or more, of different names; got {names}. Give "
            'a copy another name: task._replace(name="calm_2").'
        )
    if horizon < 1:
        raise ValueError(f"point_mass: horizon must be 1 or more steps; got {horizon}.")
    for task in tasks:
        if task.mass <= 0:
            raise ValueError(
                f"point_mass: the mass of {task.name!r} must be positive; got "
                f"{task.mass}."
            )
