"""MT-SAC: soft actor-critic for K tasks, with any method in its optimisers.

Each task has transitions of its own, a temperature of its own, and a loss of its own in
the actor and in the critics. The gradients of these losses go to two chains of optax,
each of which begins with a method of `mtl_optax`: that of the actor and that of the
critics keep states of their own. As no task sees another's rows, a task is to
`per_sample_grads` what a sample is: one backward pass has the gradients of all.

After Haarnoja et al., `Soft Actor-Critic Algorithms and Applications
<https://arxiv.org/abs/1812.05905>`_, with the temperatures of each task of Yu et al.,
`Gradient Surgery <https://arxiv.org/abs/2001.06782>`_.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import active_mask, by_position, sorted_names
from mtl_optax.core.trees.task_axis import where_active
from mtl_optax.rl.networks import Network, twin
from mtl_optax.rl.replay import Batch

Array = jax.Array
LOG_STD = -20.0, 2.0  # bounds of the logarithm of the policy's standard deviation


class AgentState(NamedTuple):
    """All that an update changes."""

    actor: Any
    critic: Any  # of two networks
    target: Any  # like critic: its slow mean
    log_alpha: Array  # [K], logarithms of the temperatures
    actor_opt: Any
    critic_opt: Any
    alpha_opt: Any  # one a task, leaves [K, ...]


class Info(NamedTuple):
    """What an update saw, `[K]` each, in the order of `tasks`."""

    critic_losses: Array
    actor_losses: Array
    alpha: Array
    entropy: Array  # of the policy on the batch


class Agent(NamedTuple):
    """Pure functions."""

    tasks: tuple[str, ...]
    init: Callable[..., AgentState]  # key
    act: Callable[..., Array]  # state, obs [K, d], key -> [K, A]
    mode: Callable[..., Array]  # state, obs [K, d] -> [K, A], without noise
    update: Callable[..., tuple[AgentState, Info]]  # state, batch, key, active=None
    # For a look at the gradients of tasks: state, batch, key -> a function from
    # parameters to the losses [K], as `mtl_optax.per_sample_grads` takes it
    critic_losses: Callable[..., Callable[[Any], Array]]
    actor_losses: Callable[..., Callable[[Any], Array]]
    critic_shared: Callable[[Any], Any]  # parameters -> True on what all tasks share
    actor_shared: Callable[[Any], Any]


def tanh_gaussian(outputs: Array, noise: Array) -> tuple[Array, Array]:
    r"""Actions :math:`\tanh(\mu + \sigma \epsilon)`, and their log densities.

    The logarithm of :math:`1 - \tanh^2 u` is :math:`2 (\log 2 - u -
    \mathrm{softplus}(-2 u))`, which stays finite and exact for every u.

    Args:
      outputs: `[..., 2 A]`, :math:`\mu` and :math:`\log \sigma`.
      noise: `[..., A]`, standard normal.
    """
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    log_std = jnp.clip(log_std, *LOG_STD)
    u = mean + jnp.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    slope = 2 * (np.log(2) - u - jax.nn.softplus(-2 * u))
    return jnp.tanh(u), (normal - slope).sum(axis=-1)


def mtsac(
    tasks: Sequence[str],
    actor: Network,
    critic: Network,
    actor_tx: optax.GradientTransformation,
    critic_tx: optax.GradientTransformation,
    *,
    alpha_tx: optax.GradientTransformation | None = None,
    discount: Any = 0.99,
    tau: Any = 0.005,
    target_entropy: Any = None,
    init_alpha: Any = 1.0,
    weights: Callable[[Array], Array] | None = None,
    subsample: int | None = None,
) -> Agent:
    r"""Soft actor-critic for several tasks at once.

    For each task k, with means over its own transitions and :math:`a', \tilde a \sim
    \pi`:

    .. math::
      y = r + \gamma (1 - \text{terminated}) \big( \min_i \bar Q_i(s', a')
        - \alpha_k \log \pi(a' | s') \big), \quad
      J^Q_k = \overline{\sum_i (Q_i(s, a) - y)^2}

    .. math::
      J^\pi_k = \overline{\alpha_k \log \pi(\tilde a | s) - \min_i Q_i(s, \tilde a)},
        \quad
      J^\alpha_k = - \log \alpha_k \, \overline{\log \pi(\tilde a | s) + \bar H}

    An update steps the critics, then the actor, then the temperatures, then moves
    :math:`\bar Q` by `tau` towards Q.

    Args:
      tasks: K names in sorted order, which is that of the axis of tasks everywhere.
      actor: network from observations `[K, n, d]` to mean and log sd, `[K, n, 2 A]`.
      critic: network from `[K, n, d + A]` to `[K, n, 1]`; it is made twice.
      actor_tx: chain that begins with a method for K tasks, around which `on_shared`
        leaves each head its own gradient; clipping goes behind the method.
      critic_tx: likewise; its parameters are `{"0": ..., "1": ...}` of two critics, and
        `twin(critic).shared` tells what tasks share.
      alpha_tx: optimiser of each log temperature; None: `optax.adam(3e-4)`.
      discount: :math:`\gamma`, one number for all tasks, which may be traced.
      tau: share of the new critics in the targets, each update.
      target_entropy: :math:`\bar H`, a number, `[K]` or a dict by name; None: -A.
      init_alpha: temperatures at the start, likewise.
      weights: log temperatures `[K]` -> weights `[K]` of the losses of actor and
        critics, such as `mtl_optax.nn.temperature_task_weights`; missing tasks have
        theirs too.
      subsample: n, as of :func:`mtl_optax.subsample_tasks`: both methods are then for n
        losses, and each head still gets its own gradient. None: K losses.

    Returns:
      An :class:`Agent`. Its `update` takes a :class:`Batch` of n transitions of each
      task, a key, and `active` where tasks are missing, `[K]` bool or a dict by name:
      those move neither their temperature nor what is shared, whatever is in their
      rows. (Their heads go on with the momentum of Adam, if that is in the chain.)

    Raises:
      ValueError: for names that are not sorted, each once; a batch of another number of
        tasks, or of other shapes; `active` together with `subsample`.

    Cost: one forward and, with a method that sees losses or inner products, about one
    backward pass over all rows for actor and critics each, since tasks have rows of
    their own; a method that sees coordinates needs K gradients in memory.

    When not to use it: for discrete actions, or where tasks differ in their action
    spaces. A time limit must not be told as `terminated`.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl, optax
      >>> from mtl_optax import rl
      >>> actor = rl.multi_head(2, in_dim=3, out_dim=2, hidden=(8,))
      >>> critic = rl.multi_head(2, in_dim=4, out_dim=1, hidden=(8,))
      >>> def chain(shared):
      ...     method = mtl.on_shared(mtl.cagrad(num_tasks=2, c=0.4), shared)
      ...     clip = optax.clip_by_global_norm(1.0)
      ...     return optax.chain(method, clip, optax.adam(3e-4))
      >>> txs = chain(actor.shared), chain(rl.twin(critic).shared)
      >>> agent = rl.mtsac(("left", "right"), actor, critic, *txs)
      >>> state = agent.init(jax.random.key(0))
      >>> batch = rl.Batch(
      ...     obs=jnp.ones((2, 5, 3)),
      ...     action=jnp.zeros((2, 5, 1)),
      ...     reward=jnp.ones((2, 5)),
      ...     next_obs=jnp.ones((2, 5, 3)),
      ...     terminated=jnp.zeros((2, 5)),
      ... )
      >>> state, info = jax.jit(agent.update)(state, batch, jax.random.key(1))
      >>> info.alpha
      Array([1., 1.], dtype=float32)
      >>> agent.act(state, jnp.ones((2, 3)), jax.random.key(2)).shape
      (2, 1)
    """
    tasks = tuple(tasks)
    if not tasks or tasks != sorted_names(set(tasks)):
        raise ValueError(
            f"tasks are taken in sorted order of their names, each once; got "
            f"{list(tasks)}. Sort them, and the axis of tasks everywhere with them."
        )
    num_tasks = len(tasks)
    target_entropy = by_position(target_entropy, "target_entropy", tasks)
    init_alpha = by_position(init_alpha, "init_alpha", tasks)
    _one_a_task("target_entropy", target_entropy, num_tasks)
    _one_a_task("init_alpha", init_alpha, num_tasks)
    checks.positive("init_alpha", init_alpha)
    _fraction("discount", discount)
    _fraction("tau", tau)
    critics = twin(critic)
    # One a task, so that the count of a missing one stands still.
    alpha_tx = optax.adam(3e-4) if alpha_tx is None else alpha_tx

    def init(key: Array) -> AgentState:
        of_actor, of_critic = jax.random.split(key)
        actor_params, critic_params = actor.init(of_actor), critics.init(of_critic)
        first = jnp.log(jnp.asarray(init_alpha, jnp.result_type(float)))
        log_alpha = jnp.full(num_tasks, first)
        return AgentState(
            *(actor_params, critic_params),
            jax.tree.map(jnp.copy, critic_params),  # so that a state may be donated
            log_alpha,
            *(actor_tx.init(actor_params), critic_tx.init(critic_params)),
            jax.vmap(alpha_tx.init)(log_alpha),
        )

    def policy(params: Any, obs: Array, key: Array) -> tuple[Array, Array]:
        """Actions `[K, n, A]` and log densities `[K, n]`, from a key for each task."""
        outputs = actor.apply(params, obs)
        # Actions next to 1, and their densities, want more than half precision.
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        shape = outputs.shape[1], outputs.shape[2] // 2
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_tasks))
        noise = jax.vmap(lambda own: jax.random.normal(own, shape, outputs.dtype))(keys)
        return tanh_gaussian(outputs, noise)

    def values(params: Any, obs: Array, action: Array) -> Array:
        """Of both critics, `[2, K, n]`."""
        return critics.apply(params, jnp.concatenate([obs, action], axis=-1))

    def weighed(losses: Array, log_alpha: Array) -> Array:
        if weights is None:
            return losses
        found = jnp.asarray(weights(log_alpha))
        if found.shape != losses.shape:
            raise ValueError(
                f"weights= must give one number a task, [{num_tasks}]; got "
                f"{found.shape}."
            )
        return losses * found

    def critic_losses(state: AgentState, batch: Batch, key: Array) -> Any:
        action, log_prob = policy(state.actor, batch.next_obs, key)
        if action.shape != jnp.shape(batch.action):
            raise ValueError(
                f"The actor's actions are {action.shape}, those of the batch "
                f"{jnp.shape(batch.action)}: a network of an actor has 2 A outputs, "
                "and action is [K, n, A]."
            )
        ahead = values(state.target, batch.next_obs, action).min(axis=0)
        ahead = ahead - jnp.exp(state.log_alpha)[:, None] * log_prob
        goal = batch.reward + discount * (1 - batch.terminated) * ahead

        def losses(params: Any) -> Array:
            errors = values(params, batch.obs, batch.action) - goal[None]
            return weighed((errors**2).sum(axis=0).mean(axis=-1), state.log_alpha)

        return losses

    def actor_losses(state: AgentState, batch: Batch, key: Array) -> Any:
        def losses(params: Any) -> Array:
            action, log_prob = policy(params, batch.obs, key)
            value = values(state.critic, batch.obs, action).min(axis=0)
            found = jnp.exp(state.log_alpha)[:, None] * log_prob - value
            return weighed(found.mean(axis=-1), state.log_alpha)

        return losses

    def learn(
        tx: optax.GradientTransformation,
        losses_fn: Callable[[Any], Array],
        params: Any,
        opt_state: Any,
        shared: Any,
        key: Array,
        active: Any,
    ) -> tuple[Any, Any, Array]:
        """One step of a chain; losses `[K]` before it."""
        losses, grads = mtl.per_sample_grads(losses_fn, names=tasks)(params)
        extra: dict[str, Any] = {} if active is None else {"active": active}
        if subsample is None:
            extra["losses_fn"] = losses_fn
        else:
            grads, extra["losses"] = _fewer(
                grads.stack(), losses, shared, key, subsample
            )
        updates, opt_state = optax.with_extra_args_support(tx).update(
            grads, opt_state, params, **extra
        )
        return optax.apply_updates(params, updates), opt_state, losses

    def cool(state: AgentState, log_prob: Array, bar: Any, active: Any) -> Any:
        """Log temperatures and their optimiser's state; missing tasks keep theirs.

        So does one whose slope is not finite: `skip_nonfinite_tasks` saves the networks
        from an observation with NaN, and would leave this task out for ever after.
        """
        slope = -(log_prob.mean(axis=-1) + bar)
        finite = jnp.isfinite(slope)
        active = finite if active is None else active & finite
        steps, opt_state = jax.vmap(alpha_tx.update)(
            slope, state.alpha_opt, state.log_alpha
        )
        after = optax.apply_updates(state.log_alpha, steps), opt_state
        return where_active(active, after, (state.log_alpha, state.alpha_opt))

    def update(
        state: AgentState, batch: Batch, key: Array, active: Any = None
    ) -> tuple[AgentState, Info]:
        batch = _checked(batch, num_tasks)
        if active is not None:
            if subsample is not None:
                raise ValueError(
                    "subsample draws from all tasks, so none may be missing: leave "
                    "active=None, or subsample=None."
                )
            active = active_mask(by_position(active, "active", tasks), num_tasks)
            # 0 times what a missing task has there may be NaN.
            batch = where_active(active, batch, jax.tree.map(jnp.zeros_like, batch))
        next_key, key, draw = jax.random.split(key, 3)
        of_critic, of_actor = jax.random.split(draw)
        shared = critics.shared(state.critic)
        critic_params, critic_opt, critic_every = learn(
            *(critic_tx, critic_losses(state, batch, next_key)),
            *(state.critic, state.critic_opt, shared, of_critic, active),
        )
        state = state._replace(critic=critic_params, critic_opt=critic_opt)
        shared = actor.shared(state.actor)
        actor_params, actor_opt, actor_every = learn(
            *(actor_tx, actor_losses(state, batch, key)),
            *(state.actor, state.actor_opt, shared, of_actor, active),
        )
        _, log_prob = policy(state.actor, batch.obs, key)  # as in the actor's losses
        bar = -batch.action.shape[-1] if target_entropy is None else target_entropy
        bar = jnp.asarray(bar, log_prob.dtype)
        log_alpha, alpha_opt = cool(state, log_prob, bar, active)
        info = Info(
            *(critic_every, actor_every, jnp.exp(state.log_alpha)),
            -log_prob.mean(axis=-1),
        )
        target = optax.incremental_update(state.critic, state.target, tau)
        state = state._replace(actor=actor_params, actor_opt=actor_opt, target=target)
        return state._replace(log_alpha=log_alpha, alpha_opt=alpha_opt), info

    def act(state: AgentState, obs: Array, key: Array) -> Array:
        return policy(state.actor, obs[:, None], key)[0][:, 0]

    def mode(state: AgentState, obs: Array) -> Array:
        mean, _ = jnp.split(actor.apply(state.actor, obs[:, None]), 2, axis=-1)
        return jnp.tanh(mean[:, 0])

    functions = init, act, mode, update, critic_losses, actor_losses
    return Agent(tasks, *functions, critics.shared, actor.shared)


def _fewer(
    grads: Any, losses: Array, shared: Any, key: Array, n: int
) -> tuple[Any, Array]:
    """Gradients of the n losses that `subsample_tasks` makes, and these losses.

    On what a task owns their sum is its own gradient, as it is without a choice.
    """
    choice = jax.vmap(lambda x: jnp.stack(mtl.subsample_tasks(key, x, n)[0]), 1, 1)(
        jnp.eye(len(losses), dtype=losses.dtype)
    )
    whole = jnp.zeros_like(choice).at[-1].set(1)

    def few(g: Array, s: bool) -> Array:
        return jnp.tensordot(choice if s else whole, g, axes=1)

    return jax.tree.map(few, grads, shared), choice @ losses


def _one_a_task(name: str, value: Any, num_tasks: int) -> None:
    """Raises unless it is None, a number, or one of each task."""
    if value is not None and np.shape(value) not in ((), (num_tasks,)):
        raise ValueError(
            f"{name}= must be a number or one a task, [{num_tasks}]; got "
            f"{np.shape(value)}."
        )


def _fraction(name: str, value: Any) -> None:
    """Raises unless it is one number from 0 to 1, or a traced one."""
    if np.shape(value) != ():
        raise ValueError(
            f"{name}= must be one number; got {value!r}. A batch divides its axes by "
            "tasks and transitions, so that one a task would not fit."
        )
    checks.at_least(name, value, 0)
    checks.at_most(name, value, 1)


def _checked(batch: Batch, num_tasks: int) -> Batch:
    """The batch as arrays of one float type, if shapes agree."""
    if isinstance(batch, Mapping):
        raise ValueError("update takes an rl.Batch, not a dict: rl.Batch(**batch).")
    batch = Batch(*(jnp.asarray(x, jnp.result_type(float)) for x in batch))
    rows = batch.reward.shape
    if batch.reward.ndim != 2 or rows[0] != num_tasks:
        raise ValueError(
            f"A batch has n transitions of each of {num_tasks} tasks: reward must be "
            f"[{num_tasks}, n]; got {rows}."
        )
    for name, x in batch._asdict().items():
        axes = 2 if name in ("reward", "terminated") else 3
        if x.shape[:2] != rows or x.ndim != axes:
            raise ValueError(
                f"{name} is {x.shape}, but reward is {rows}: all have the tasks first, "
                "then the transitions; obs, next_obs and action have a third axis."
            )
    if batch.obs.shape != batch.next_obs.shape:
        raise ValueError(
            f"obs is {batch.obs.shape} and next_obs {batch.next_obs.shape}: they must "
            "agree."
        )
    return batch
