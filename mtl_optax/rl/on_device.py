"""A whole run of MT-SAC on the device: environment, buffer, learning and evaluation.

`start` makes a run and `step` takes it one step on: act, step the environment, store,
sample, update. `train` is a scan of steps with an evaluation after each block, so that
one compiled program holds the run, and `jax.vmap` takes it over seeds. The environment
is any :class:`mtl_optax.rl.Env`: two functions, of which `step` gives a
`Stepped` and begins a new episode by itself, each task's where that one `ended`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax import per_sample_grads
from mtl_optax.analysis.conflict import cosine_similarity
from mtl_optax.rl import replay
from mtl_optax.rl.environment import Env


class RunSettings(NamedTuple):
    """How a run collects and learns, beside what the agent holds."""

    batch_size: int = 64  # transitions of each task in an update
    capacity: int = 10_000  # transitions of each task that the buffer keeps
    random_steps: int = 500  # of random actions, before the first update
    episodes: int = 10  # of each task in an evaluation
    normalized_rewards: bool = False  # divided by their task's standard deviation


class Moments(NamedTuple):
    """Of all rewards of each task so far."""

    mean: jax.Array  # [K]
    squares: jax.Array  # [K]: sum of squared distances from the mean


class Run(NamedTuple):
    """A run between two steps: all that it needs to go on."""

    agent: Any  # AgentState
    env: Any
    obs: jax.Array  # [K, d]
    buffer: replay.Buffer
    rewards: Moments
    time: jax.Array  # [] int32: steps done
    key: jax.Array


def start(agent: Any, env: Env, settings: RunSettings, key: jax.Array) -> Run:
    """A run before its first step.

    Args:
      agent: of :func:`mtl_optax.rl.mtsac.mtsac`, for the environment's tasks.
      env: K tasks that step together.
      settings: :class:`RunSettings`; static.
      key: all that is random in the run follows from it.

    Returns:
      A :class:`Run`, for `step`.

    Raises:
      ValueError: if the agent is for other tasks, or for the same in another order.
    """
    if agent.tasks != env.tasks:
        raise ValueError(
            f"The agent's tasks {agent.tasks} are not those of the environment, "
            f"{env.tasks}, in this order: make it with mtsac(env.tasks, ...)."
        )
    key, for_agent, for_env = jax.random.split(key, 3)
    state, obs = env.reset(for_env)
    num_tasks = len(env.tasks)
    buffer = replay.init(num_tasks, settings.capacity, env.obs_dim, env.action_dim)
    zeros = jnp.zeros(num_tasks, jnp.float32)
    time = jnp.zeros((), jnp.int32)
    moments = Moments(zeros, zeros)
    return Run(agent.init(for_agent), state, obs, buffer, moments, time, key)


def step(agent: Any, env: Env, settings: RunSettings, run: Run) -> tuple[Run, Any]:
    """One transition of every task, and one update.

    Args:
      agent: as given to `start`.
      env: likewise.
      settings: likewise.
      run: of `start` or of the step before.

    Returns:
      The run, and the `Info` of the update: zeros during the random steps, which have
      none.
    """
    keys = jax.random.split(run.key, 5)
    exploring = run.time < settings.random_steps
    shape = (len(env.tasks), env.action_dim)
    action = jnp.where(
        exploring,
        jax.random.uniform(keys[1], shape, minval=-1, maxval=1),
        agent.act(run.agent, run.obs, keys[2]),
    )
    state, after = env.step(run.env, action)
    seen = (run.obs, action, after.reward, after.next_obs, after.terminated)
    buffer = replay.add(run.buffer, replay.Batch(*seen))
    rewards = _moved(run.rewards, after.reward, run.time)

    run = run._replace(env=state, obs=after.obs, buffer=buffer, rewards=rewards)
    run = run._replace(time=run.time + 1, key=keys[0])
    batch = sampled(settings, run, keys[3])

    update = jax.jit(agent.update)  # so that it is traced once, though asked for twice
    like = jax.eval_shape(update, run.agent, batch, keys[4])[1]
    learnt, info = lax.cond(  # The buffer stays outside: no branch copies it.
        exploring,
        lambda old: (old, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)),
        lambda old: update(old, batch, keys[4]),
        run.agent,
    )
    return run._replace(agent=learnt), info


def sampled(settings: RunSettings, run: Run, key: jax.Array) -> replay.Batch:
    """A batch as an update gets it."""
    batch = replay.sample(run.buffer, key, settings.batch_size)
    if not settings.normalized_rewards:
        return batch
    return batch._replace(reward=batch.reward / _std(run.rewards, run.time)[:, None])


def evaluate(
    agent: Any, env: Env, agent_state: Any, key: jax.Array, episodes: int
) -> dict[str, jax.Array]:
    """Whole episodes of the policy's mean action, which nothing learns from.

    An episode ends where the environment first says `ended`, or after its horizon.

    Returns:
      Three numbers a task, each `[K]` over `episodes` episodes: "success", the share
      that succeed at their last step; "any_success", at one step or more; "return", the
      mean sum of rewards.
    """

    def episode(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def act(carry: Any, _: None) -> Any:
            state, obs = carry
            state, after = env.step(state, agent.mode(agent_state, obs))
            return (state, after.obs), (after.success, after.reward, after.ended)

        return lax.scan(act, env.reset(key), None, env.horizon)[1]

    success, reward, ended = jax.vmap(episode)(jax.random.split(key, episodes))
    # The steps of the first episode, [episodes, horizon, K]: a task that terminates
    # early begins another, which is none of this look.
    first = jnp.cumsum(ended, axis=1) - ended == 0
    last = jnp.sum(first, axis=1, keepdims=True) - 1
    at_last = jnp.take_along_axis(success, last, axis=1)[:, 0]
    found = {
        "success": at_last.astype(jnp.float32),
        "any_success": jnp.any(success & first, axis=1).astype(jnp.float32),
        "return": jnp.sum(jnp.where(first, reward, 0), axis=1),
    }
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), found)


def conflict(
    agent: Any, agent_state: Any, batch: replay.Batch, key: jax.Array
) -> dict[str, jax.Array]:
    """How the tasks' gradients on a batch lie to one another on what tasks share.

    Returns:
      Cosines "actor" and "critic", each `[K, K]` in the order of the tasks, negative
      where two tasks conflict; only the diagonal where nothing is shared.
    """
    losses = {
        "actor": agent.actor_losses(agent_state, batch, key),
        "critic": agent.critic_losses(agent_state, batch, key),
    }
    found = {}
    for name, losses_fn in losses.items():
        params = getattr(agent_state, name)
        gradients = jax.tree.leaves(per_sample_grads(losses_fn)(params)[1].stack())
        mask = jax.tree.leaves(getattr(agent, f"{name}_shared")(params))
        kept = [g for g, shared in zip(gradients, mask, strict=True) if shared]
        found[name] = cosine_similarity(kept) if kept else jnp.eye(len(agent.tasks))
    return found


def train(
    agent: Any, env: Env, settings: RunSettings, key: jax.Array, steps: int, every: int
) -> tuple[Run, dict[str, Any]]:
    """A whole run: steps, and a look at the policy after each `every` of them.

    Args:
      agent: as given to `start`.
      env: likewise.
      settings: likewise.
      key: likewise.
      steps: of the run, a multiple of `every`; Python ints.
      every: steps between two looks.

    Returns:
      The run after its last step, and records with the looks as the first axis: "step";
      "success", "any_success" and "return" of `evaluate`; "cosines" of `conflict` on a
      batch drawn for it; "info" of the last update.

    Raises:
      ValueError: if `steps` is no multiple of `every`, or the agent is for other tasks.

    Cost: one update a step after the random ones. The buffer is written in place, once
    a lane. Under `jax.vmap` the random steps stay without updates, as the count of
    steps is the same in all lanes.

    When not to use it: for environments outside JAX; `mtsac` itself asks for none.

    Example:
      >>> import jax, mtl_optax as mtl, optax
      >>> from mtl_optax import rl
      >>> from mtl_optax.rl.on_device import RunSettings, train
      >>> from mtl_optax.rl.point_mass import TASKS, point_mass
      >>> env = point_mass(TASKS[:2], horizon=5)
      >>> actor = rl.multi_head(2, env.obs_dim, 2 * env.action_dim, hidden=(8,))
      >>> critic = rl.multi_head(2, env.obs_dim + env.action_dim, 1, hidden=(8,))
      >>> def chain(network):
      ...     method = mtl.on_shared(mtl.imtl_g(num_tasks=2), network.shared)
      ...     return optax.chain(method, optax.adam(3e-3))
      >>> chains = chain(actor), chain(rl.twin(critic))
      >>> agent = rl.mtsac(env.tasks, actor, critic, *chains)
      >>> settings = RunSettings(batch_size=4, capacity=20, random_steps=4, episodes=2)
      >>> over_seeds = jax.vmap(lambda key: train(agent, env, settings, key, 10, 5))
      >>> run, records = jax.jit(over_seeds)(jax.random.split(jax.random.key(0), 3))
      >>> records["success"].shape, records["step"][0]  # seeds, looks, tasks
      ((3, 2, 2), Array([ 5, 10], dtype=int32))
    """
    if steps % every:
        raise ValueError(
            f"train: steps={steps} must be a multiple of every={every}, so that the "
            f"last look is at the end; {steps - steps % every} is one."
        )

    def one(run: Run, _: None) -> tuple[Run, Any]:
        return step(agent, env, settings, run)

    def block(run: Run, _: None) -> tuple[Run, dict[str, Any]]:
        run, infos = lax.scan(one, run, None, every)
        key, *keys = jax.random.split(run.key, 4)
        batch = sampled(settings, run, keys[0])
        record = {
            "step": run.time,
            **evaluate(agent, env, run.agent, keys[1], settings.episodes),
            "cosines": conflict(agent, run.agent, batch, keys[2]),
            "info": jax.tree.map(lambda x: x[-1], infos),
        }
        return run._replace(key=key), record

    return lax.scan(block, start(agent, env, settings, key), None, steps // every)


def _moved(old: Moments, reward: jax.Array, count: jax.Array) -> Moments:
    """The moments after one more reward (Welford)."""
    away = reward - old.mean
    mean = old.mean + away / (count + 1)
    return Moments(mean, old.squares + away * (reward - mean))


def _std(moments: Moments, count: jax.Array) -> jax.Array:
    """Standard deviations `[K]`; 1 for a task whose rewards were all the same."""
    variance = moments.squares / jnp.maximum(count, 1)
    return jnp.where(variance > 0, jnp.sqrt(variance), 1)
