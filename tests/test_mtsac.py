"""MT-SAC beside its specification, and the faults that others' code is known for."""

import jax
import jax.numpy as jnp
import mtsac_reference as reference
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from mtsac_runs import (
    ACTION,
    ACTIVE,
    OBS,
    ROWS,
    TASKS,
    agent_of,
    batch,
    cagrad_agent,
    noises,
    started,
)

import mtl_optax as mtl
from mtl_optax import rl
from mtl_optax.nn import temperature_task_weights

KEY = jax.random.key(7)
FIELDS = "actor", "critic", "target", "log_alpha"


def assert_close(tree, wanted, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **tolerance), tree, wanted
    )


def assert_equal(tree, wanted):
    jax.tree.map(np.testing.assert_array_equal, tree, wanted)


def changed(tree, like):
    return any(
        (np.asarray(x) != np.asarray(y)).any()
        for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True)
    )


# Beside NumPy

RULES = {
    "sum": (lambda: mtl.unitary(3), reference.total, None),
    "cagrad": (lambda: mtl.cagrad(3, c=0.5), reference.cagrad, "weighed"),
    "pcgrad": (lambda: mtl.pcgrad(3, key=0, order="fixed"), reference.pcgrad, None),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.slow
def test_three_updates_are_those_of_the_specification_in_float64(name, x64):
    """Losses, surgery on the trunk alone, clipping behind it, Adam, all parameters."""
    make, rule, weighed = RULES[name]
    clip = 0.5
    agent = agent_of(
        make,
        *(optax.clip_by_global_norm(clip), optax.adam(1e-2)),
        alpha_tx=optax.adam(3e-2),
        weights=temperature_task_weights if weighed else None,
    )
    state, update = started(agent), jax.jit(agent.update)
    by_hand = reference.Reference(
        *jax.tree.map(np.array, (state.actor, state.critic)),
        *(rule, np.array(state.log_alpha), jax.tree.map(np.array, state.target)),
        **{"rate": 1e-2, "clip": clip, "alpha_rate": 3e-2},
        weights=(lambda x: 3 * np.exp(-x) / np.exp(-x).sum()) if weighed else None,
    )
    for step in range(3):
        key = jax.random.fold_in(KEY, step)
        with jax.numpy_rank_promotion("allow"):
            next_noise, noise = noises(key)
        alpha = np.exp(by_hand.log_alpha)
        losses = by_hand.update(batch(step), next_noise, noise)
        state, info = update(state, batch(step), key)
        assert_close((info.critic_losses, info.actor_losses), losses, rtol=1e-8)
        np.testing.assert_allclose(info.alpha, alpha, rtol=1e-8)
        np.testing.assert_allclose(info.entropy, by_hand.entropy, rtol=1e-8)
    assert by_hand.clipped >= 2  # the test would not see clipping otherwise
    found = state.actor, state.critic, state.target, state.log_alpha
    wanted = by_hand.actor, by_hand.critic, by_hand.target, by_hand.log_alpha
    assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(found))
    assert_close(found, wanted, rtol=2e-6, atol=1e-9)


# What another JAX code got wrong, by name


def plain(num_tasks=3, **options):
    """An agent whose chains nobody asks for."""
    return agent_of(lambda: mtl.unitary(num_tasks), num_tasks=num_tasks, **options)


def test_bootstrap_action_is_of_the_next_observation():
    """Targets depend on the next observations alone; here the critics are zero."""
    agent = plain()
    state = started(agent)
    zero = jax.tree.map(jnp.zeros_like, state.critic)

    @jax.jit
    def losses(obs, next_obs):
        here = rl.Batch(*batch())._replace(obs=obs, next_obs=next_obs)
        return agent.critic_losses(state, here, KEY)(zero)

    obs, next_obs = batch().obs, batch().next_obs
    found = losses(obs, next_obs)
    np.testing.assert_array_equal(losses(-obs, next_obs), found)
    assert (losses(obs, -next_obs) != found).all()
    # The value: of the action that the policy draws there
    by_hand = reference.Reference(
        *jax.tree.map(lambda x: np.array(x, float), (state.actor, zero)),
        *(None, np.array(state.log_alpha, float)),
        jax.tree.map(lambda x: np.array(x, float), state.target),
    )
    draws = [jax.random.normal(jax.random.fold_in(KEY, k), (ROWS, 2)) for k in range(3)]
    wanted = by_hand.critic_losses(by_hand.critic, batch(), np.array(draws))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_task_weights_weigh_the_losses_of_their_own_task():
    """No `[K, n, 1]` against `[n, 1]`: each loss is its own number times its weight."""
    scale = jnp.array([1.0, 2.0, 4.0])
    without, weighed = plain(), plain(weights=lambda log_alpha: scale)
    state = started(without)

    @jax.jit
    def losses():
        return [
            (
                agent.critic_losses(state, rl.Batch(*batch()), KEY)(state.critic),
                agent.actor_losses(state, rl.Batch(*batch()), KEY)(state.actor),
            )
            for agent in (without, weighed)
        ]

    before, after = losses()
    for x, y in zip(before, after, strict=True):
        assert x.shape == (3,)
        np.testing.assert_allclose(y, x * scale, rtol=1e-6)


def noise_itself():
    """A policy of mean 0 and sd 1 everywhere: its actions are its draws."""
    shape = (1, 1, 2 * ACTION)
    return rl.Network(
        lambda key: {"bias": jnp.zeros(shape)},
        lambda params, x: jnp.broadcast_to(params["bias"], (*x.shape[:2], shape[-1])),
        lambda params: {"bias": True},
    )


def test_keys_differ_by_task_and_know_of_no_other():
    def draws(num_tasks):
        tasks = TASKS[:num_tasks]
        tx = mtl.unitary(num_tasks)
        critic = rl.one_hot_mlp(num_tasks, OBS + ACTION, 1, hidden=(2,))
        agent = rl.mtsac(tasks, noise_itself(), critic, tx, tx)
        state = agent.init(jax.random.key(0))
        equal = jax.tree.map(lambda x: np.repeat(x[:1], num_tasks, 0), batch())

        @jax.jit
        def look(state):
            _, info = agent.update(state, equal, KEY)
            return agent.act(state, jnp.ones((num_tasks, OBS)), KEY), info.entropy

        return look(state)

    three, two = draws(3), draws(2)
    actions, entropy = three
    assert len(np.unique(actions)) == 3 * ACTION
    assert len(np.unique(entropy)) == 3
    np.testing.assert_array_equal(two[0], actions[:2])
    np.testing.assert_array_equal(two[1], entropy[:2])


def with_itself(rows):
    """The same with a task's own gradient among those that it is projected off."""
    found = rows.copy()
    for i, own in enumerate(found):
        for j in (*np.delete(np.arange(len(rows)), i), i):
            inner = own @ rows[j]
            if inner < 0:
                own -= inner / (rows[j] @ rows[j]) * rows[j]
    return found.sum(axis=0)


def test_no_self_projection_in_pcgrad():
    """Where what is left of a gradient has a negative product with the gradient."""
    rng = np.random.default_rng(0)
    tx = mtl.pcgrad(num_tasks=5, key=0, order="fixed")
    params = {"w": jnp.zeros(4)}
    update = jax.jit(lambda g: tx.update({"w": g}, tx.init(params), params)[0]["w"])
    cases = 0
    for _ in range(200):
        rows = rng.normal(size=(5, 4))
        wanted = reference.pcgrad(rows) @ rows
        if np.allclose(wanted, with_itself(rows), rtol=1e-2):
            continue
        cases += 1
        found = update(jnp.asarray(rows, jnp.float32))
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert cases >= 5


@pytest.mark.slow
def test_critic_split_equals_unsplit_under_the_mean(x64):
    """All rows in one batch, shuffled: plain jax.grad of the mean over rows."""
    agent = agent_of(lambda: mtl.mean(3), optax.sgd(1.0))
    state, data = started(agent), rl.Batch(*map(jnp.asarray, batch()))
    critic = rl.multi_head(3, OBS + ACTION, 1, hidden=(4, 3))
    actor = rl.multi_head(3, OBS, 2 * ACTION, hidden=(4, 3))
    order = np.random.default_rng(0).permutation(3 * ROWS)
    task = np.repeat(np.arange(3), ROWS)[order]
    mix = lambda x: x.reshape(3 * ROWS, *x.shape[2:])[order]  # noqa: E731
    next_noise, noise = (mix(x) for x in noises(KEY))

    def rows(network, params, x):
        """Every input through all heads, then the head of its task."""
        every = network.apply(params, jnp.broadcast_to(x[None], (3, *x.shape)))
        return every[task, jnp.arange(len(x))]

    def values(params, obs, action):
        x = jnp.concatenate([obs, action], axis=1)
        return jnp.stack([rows(critic, params[i], x)[:, 0] for i in ("0", "1")])

    def policy(params, obs, noise):
        mean, log_std = jnp.split(rows(actor, params, obs), 2, axis=1)
        u = mean + jnp.exp(log_std) * noise
        density = jax.scipy.stats.norm.logpdf(u, mean, jnp.exp(log_std))
        return jnp.tanh(u), (density - jnp.log(1 - jnp.tanh(u) ** 2)).sum(axis=1)

    @jax.jit
    def look(state):
        data_rows = jax.tree.map(mix, data)
        alpha = jnp.exp(state.log_alpha)[task]
        action, log_prob = policy(state.actor, data_rows.next_obs, next_noise)
        ahead = values(state.target, data_rows.next_obs, action).min(axis=0)
        ahead = 0.99 * (1 - data_rows.terminated) * (ahead - alpha * log_prob)
        goal = (data_rows.reward + ahead)[None]

        def critic_loss(params):
            errors = values(params, data_rows.obs, data_rows.action) - goal
            return (errors**2).sum(axis=0).mean()

        def actor_loss(params, critic):
            action, log_prob = policy(params, data_rows.obs, noise)
            value = values(critic, data_rows.obs, action).min(axis=0)
            return (alpha * log_prob - value).mean()

        new, _ = agent.update(state, data, KEY)
        grads = jax.grad(critic_loss)(state.critic)
        return new, grads, jax.grad(actor_loss)(state.actor, new.critic)

    new, *grads = look(state)
    heads = [(grads[0]["0"], "0"), (grads[0]["1"], "1"), (grads[1], None)]
    for grad, _ in heads:  # under on_shared a head has its own gradient, not a third
        grad["heads"] = jax.tree.map(lambda x: 3 * x, grad["heads"])
    steps = jax.tree.map(jnp.subtract, (state.critic, state.actor), new_of(new))
    assert_close(steps, tuple(grads), rtol=1e-7, atol=1e-9)


def new_of(state):
    return state.critic, state.actor


def recorder():
    """A transformation whose state has what reached it."""

    def init(params):
        return {"losses": jnp.zeros(3), "active": jnp.zeros(3, bool)}

    def update(updates, state, params=None, *, losses_fn, active, **extra):
        return updates, {"losses": losses_fn(params), "active": active}

    return optax.GradientTransformationExtraArgs(init, update)


def test_extra_arguments_reach_the_method():
    """`losses_fn` and `active` reach a chain, and FAMO sees the losses."""
    ceiling = dict.fromkeys(TASKS, -100.0)
    agent = agent_of(
        lambda: mtl.famo(3, min_losses=ceiling), recorder(), optax.sgd(0.1)
    )
    present = {task: bool(ACTIVE[k]) for k, task in enumerate(TASKS)}
    update = jax.jit(lambda state: agent.update(state, batch(), KEY, present))
    state, info = update(started(agent))
    for opt_state, losses in (
        (state.critic_opt, info.critic_losses),
        (state.actor_opt, info.actor_losses),
    ):
        method, recorded, _ = opt_state
        np.testing.assert_allclose(recorded["losses"], losses, rtol=1e-6)
        np.testing.assert_array_equal(recorded["active"], ACTIVE)
        wanted = np.where(ACTIVE, 1 / (losses + 100), 0)
        np.testing.assert_allclose(
            mtl.task_weights(method), wanted / wanted.sum(), rtol=1e-5
        )


@pytest.mark.slow
def test_methods_that_ask_again_and_values_by_name():
    """`flat_mtl` takes gradients elsewhere by `losses_fn`; weights by task name."""
    weights = {"c": 4.0, "a": 1.0, "b": 2.0}
    by_name = agent_of(lambda: mtl.constant(3, weights=weights), optax.sgd(0.1))
    in_order = agent_of(
        lambda: mtl.constant(3, weights=[1.0, 2.0, 4.0]), optax.sgd(0.1)
    )
    state = started(by_name)
    one, two = (
        jax.jit(agent.update)(state, batch(), KEY)[0] for agent in (by_name, in_order)
    )
    assert_equal(one, two)
    assert changed(one.actor["trunk"], state.actor["trunk"])
    agent = agent_of(lambda: mtl.mgda(3), optax.sgd(0.1))
    actor = rl.multi_head(3, OBS, 2 * ACTION, hidden=(4, 3))
    critic = rl.multi_head(3, OBS + ACTION, 1, hidden=(4, 3))
    flat = optax.chain(mtl.flat_mtl(mtl.mean(3), rho_shared=0.1), optax.sgd(0.1))
    agent = rl.mtsac(TASKS, actor, critic, flat, flat)
    state = jax.eval_shape(agent.init, KEY)
    assert jax.eval_shape(agent.update, state, batch(), KEY)[0] == state


# Missing tasks


@pytest.mark.slow
def test_a_missing_task_reaches_nothing_and_keeps_what_is_its_own():
    """Whatever is in its rows: NaN, infinities, or large numbers."""
    agent, update = cagrad_agent()
    state = started(agent)

    def with_rows(value):
        return jax.tree.map(
            lambda x: np.where(ACTIVE.reshape(3, *[1] * (x.ndim - 1)), x, value),
            batch(),
        )

    for_nan, *others = (
        update(state, with_rows(value), KEY, ACTIVE) for value in (np.nan, np.inf, 1e30)
    )
    for other in others:
        assert_equal(other, for_nan)
    new, info = for_nan
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((new, info)))
    own = lambda state: jax.tree.map(  # noqa: E731
        lambda x: x[1],
        (
            *(state.log_alpha, state.alpha_opt, state.actor["heads"]),
            *(state.critic["0"]["heads"], state.critic["1"]["heads"]),
        ),
    )
    assert_equal(own(new), own(state))
    assert (np.asarray(new.log_alpha != state.log_alpha) == ACTIVE).all()
    np.testing.assert_array_equal(new.alpha_opt[0].count, ACTIVE)
    # Its row of the one-hot part of a trunk is nobody else's.
    first = lambda state: state.actor["trunk"][0]["kernel"][OBS + 1]  # noqa: E731
    np.testing.assert_array_equal(first(new), first(state))
    # Nobody there: nothing moves but the targets, towards the critics.
    still, _ = update(state, with_rows(np.nan), KEY, np.zeros(3, bool))
    assert_equal(
        (still.actor, still.critic, still.log_alpha),
        (state.actor, state.critic, state.log_alpha),
    )


@pytest.mark.slow
def test_the_others_get_what_they_get_without_a_missing_task():
    """Beside an agent that has two tasks only; it lacks a row of the first kernels."""
    agent, update = cagrad_agent()
    state, key = started(agent), KEY

    def fewer(state):
        def cut(net):
            kernel = net["trunk"][0]["kernel"][:-1]
            return {
                "trunk": [net["trunk"][0] | {"kernel": kernel}, *net["trunk"][1:]],
                "heads": jax.tree.map(lambda x: x[:2], net["heads"]),
            }

        of_critic = lambda critic: {i: cut(net) for i, net in critic.items()}  # noqa: E731
        return cut(state.actor), of_critic(state.critic), of_critic(state.target)

    new, info = update(state, batch(), key, np.array([True, True, False]))
    small = agent_of(lambda: mtl.cagrad(2, c=0.5), num_tasks=2)
    actor, critic, target = fewer(state)
    few = small.init(key)._replace(
        actor=actor, critic=critic, target=target, log_alpha=state.log_alpha[:2]
    )
    few, few_info = jax.jit(small.update)(
        few, jax.tree.map(lambda x: x[:2], batch()), key
    )
    assert_close((few.actor, few.critic, few.target), fewer(new), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(few.log_alpha, new.log_alpha[:2], rtol=1e-6)
    assert_close(tuple(few_info), tuple(x[:2] for x in info), rtol=1e-5)


# CAGrad-Fast


@pytest.mark.slow
def test_fewer_losses_keep_the_mean_and_heads_their_own_gradient():
    """Weighed by the prior they give the mean of all; the first is one of the tasks."""
    _, prior = mtl.subsample_tasks(KEY, jnp.ones(3), 2)
    whole = agent_of(lambda: mtl.mean(3), optax.sgd(0.1))
    state = started(whole)
    wanted, _ = jax.jit(whole.update)(state, batch(), KEY)

    @jax.jit
    def update(weights, data, key):
        method = lambda: mtl.constant(2, weights=weights)  # noqa: E731
        few = agent_of(method, optax.sgd(0.1), subsample=2)
        start = few.init(key)._replace(**{x: getattr(state, x) for x in FIELDS})
        return few.update(start, data, key)

    found, info = update(prior, batch(), KEY)
    assert_close(new_of(found), new_of(wanted), rtol=1e-4, atol=1e-6)
    assert info.critic_losses.shape == (3,)
    # Where all transitions are the last ones no noise is in the critics' gradients.
    ended = batch()._replace(terminated=np.ones((3, ROWS)))
    one = jnp.array([1.0, 0.0])
    critics = [
        update(one, ended, key)[0].critic["0"] for key in jax.random.split(KEY, 12)
    ]
    kernels = [np.asarray(net["trunk"][0]["kernel"]).tobytes() for net in critics]
    assert len(set(kernels)) == 3
    heads = [net["heads"] for net in critics]
    assert_close(heads[1:], [heads[0]] * 11, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_cagrad_fast_of_all_tasks_is_cagrad():
    agent, update = cagrad_agent()
    state = started(agent)
    wanted, _ = update(state, batch(), KEY)
    every = agent_of(lambda: mtl.cagrad(3, c=0.5), subsample=3)
    found, _ = jax.jit(every.update)(state, batch(), KEY)
    assert_close(new_of(found), new_of(wanted), rtol=1e-3, atol=1e-5)


# One step of a program


def test_one_trace_and_states_of_their_own():
    """Of Python and device numbers alike; actor and critics keep different states."""
    agent, _ = cagrad_agent()
    traces = []

    @jax.jit
    def update(*arguments):
        traces.append(1)
        return agent.update(*arguments)

    state = agent.init(jax.random.key(0))
    for step in range(3):
        state, _ = update(state, batch(step), jax.random.fold_in(KEY, step))
    assert len(traces) == 1
    moments = [opt_state[-1][0].mu for opt_state in (state.actor_opt, state.critic_opt)]
    for moment, params in zip(moments, (state.actor, state.critic), strict=True):
        assert jax.tree.structure(moment) == jax.tree.structure(params)


@pytest.mark.slow
def test_seeds_in_one_program_donated_and_scanned(tmp_path):
    """Lanes of vmap over a scan are single updates; a checkpoint goes on as before."""
    agent, update = cagrad_agent()
    keys = jax.random.split(KEY, 2)
    batches = [batch(step) for step in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)

    def lane(state, key):
        def body(carry, data):
            state, key = carry
            key, own = jax.random.split(key)
            state, info = agent.update(state, data, own)
            return (state, key), info

        (state, _), _ = jax.lax.scan(body, (state, key), stacked)
        return state

    run = jax.jit(jax.vmap(lane), donate_argnums=0)
    lanes = run(jax.jit(jax.vmap(agent.init))(keys), keys)
    state, key = agent.init(keys[1]), keys[1]
    with ocp.StandardCheckpointer() as checkpointer:
        for step, data in enumerate(batches):
            key, own = jax.random.split(key)
            state, _ = update(state, data, own)
            if step == 1:
                checkpointer.save(tmp_path / "state", state)
                checkpointer.wait_until_finished()
                like = jax.eval_shape(agent.init, keys[1])
                restored = checkpointer.restore(tmp_path / "state", like)
                assert_equal(restored, state)
                state = jax.tree.map(lambda like, x: x, state, restored)
    assert_close(jax.tree.map(lambda x: x[1], lanes), state, rtol=2e-3, atol=2e-5)


def of(state, at):
    """What some tasks own, where networks share nothing."""
    parts = {field: getattr(state, field) for field in FIELDS}
    return jax.tree.map(lambda x: x[at], parts)


@pytest.mark.slow
def test_networks_that_share_nothing_are_agents_of_one_task():
    """Whichever task is first; the sum of what each task owns is its own."""

    def nets(num_tasks):
        one = lambda d, out: rl.independent(  # noqa: E731
            num_tasks, rl.multi_head(1, d, out, hidden=(3,))
        )
        txs = (optax.chain(mtl.unitary(num_tasks), optax.adam(1e-2)) for _ in range(2))
        agent = rl.mtsac(
            TASKS[:num_tasks], one(OBS, 2 * ACTION), one(OBS + ACTION, 1), *txs
        )
        return agent, jax.jit(agent.update)

    (every, update), (alone, update_alone) = nets(3), nets(1)
    state = started(every)
    for task in range(3):
        order = np.roll(np.arange(3), -task)
        turned = jax.tree.map(lambda x, order=order: x[order], batch())
        mine = every.init(KEY)._replace(**of(state, order))
        single = alone.init(KEY)._replace(**of(state, order[:1]))
        mine, info = update(mine, turned, KEY)
        single, of_one = update_alone(
            single, jax.tree.map(lambda x: x[:1], turned), KEY
        )
        assert_close(of(mine, slice(1)), of(single, slice(1)), rtol=2e-5, atol=1e-6)
        assert_close(tuple(x[:1] for x in info), tuple(of_one), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["soft_modules", "one_hot_mlp"])
def test_other_networks_and_numbers_in_bfloat16(kind):
    """Observations, or all that a network calculates; actions are float32 ones."""
    small = {"num_modules": 2, "module_dim": 3, "embed_dim": 4, "gate_dim": 4}
    make = {
        "soft_modules": lambda d, out: rl.soft_modules(
            3, d, out, **small, dtype=jnp.bfloat16
        ),
        "one_hot_mlp": lambda d, out: rl.one_hot_mlp(3, d, out, hidden=(3,)),
    }[kind]
    actor, critic = make(OBS, 2 * ACTION), make(OBS + ACTION, 1)
    txs = (
        optax.chain(mtl.on_shared(mtl.imtl_g(3), net.shared), optax.sgd(0.1))
        for net in (actor, rl.twin(critic))
    )
    if kind == "one_hot_mlp":
        txs = (optax.chain(mtl.imtl_g(3), optax.sgd(0.1)) for _ in range(2))
    agent = rl.mtsac(TASKS, actor, critic, *txs)
    state = agent.init(KEY)
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), batch())
    new, info = jax.jit(agent.update)(state, low, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((new, info)))
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype, new, state)
    assert all(jax.tree.leaves(same))
    assert changed(new.actor, state.actor)
    assert changed(new.critic, state.critic)
    action = jax.eval_shape(agent.act, state, low.obs[:, 0], KEY)
    assert (action.shape, action.dtype) == ((3, ACTION), jnp.float32)
    assert {x.dtype for x in info} == {jnp.dtype(jnp.float32)}


def test_temperatures_follow_a_schedule_and_their_own_entropy():
    """SGD on log alpha: `rate (log pi + H)`, rates by the count of the task."""
    rates = optax.piecewise_constant_schedule(0.1, {1: 0.5})
    bars = np.array([-1.0, -2.0, 0.5])
    agent = agent_of(
        lambda: mtl.unitary(3),
        *(optax.sgd(0.0),),
        **{"alpha_tx": optax.sgd(rates), "target_entropy": bars, "init_alpha": 0.5},
    )
    update = jax.jit(agent.update)
    state = agent.init(KEY)
    np.testing.assert_allclose(state.log_alpha, np.log(0.5), rtol=1e-6)
    by_hand, counts = np.array(state.log_alpha), np.zeros(3)
    for active in (ACTIVE, np.ones(3, bool), np.ones(3, bool)):
        state, info = update(state, batch(), KEY, active)
        rate = np.where(counts >= 1, 0.05, 0.1)
        by_hand = np.where(active, by_hand + rate * (bars - info.entropy), by_hand)
        np.testing.assert_allclose(state.log_alpha, by_hand, rtol=1e-5, atol=1e-6)
        counts = counts + active


def test_actions_are_the_policy_at_its_own_task():
    """`mode` is the squashed mean; `act` moves around it, within the bounds."""
    agent, _ = cagrad_agent()
    state = started(agent)
    obs = np.random.default_rng(3).normal(size=(3, OBS))
    params = jax.tree.map(lambda x: np.array(x, float), state.actor)
    wanted = [
        np.tanh(reference.network(params, obs[k : k + 1], k)[0, :ACTION])
        for k in range(3)
    ]
    mode = jax.jit(agent.mode)(state, obs)
    np.testing.assert_allclose(mode, wanted, rtol=1e-5, atol=1e-6)
    act = jax.jit(agent.act)
    action, again = act(state, obs, KEY), act(state, obs, jax.random.key(8))
    assert action.shape == mode.shape == (3, ACTION)
    assert (action != again).all()
    assert (np.abs(action) <= 1).all()


# Errors

NAMES = ("b", "a", "c"), ("a", "a", "b"), ()
PER_TASK = r"must be a number or one a task, \[3\]; got"
OPTIONS = [
    ({"target_entropy": np.ones((3, 1))}, PER_TASK),
    ({"target_entropy": np.ones(2)}, PER_TASK),
    ({"init_alpha": np.ones(2)}, PER_TASK),
    ({"init_alpha": 0.0}, "init_alpha must be positive"),
]


@pytest.mark.parametrize("names", NAMES)
def test_names_that_are_not_sorted(names):
    net = noise_itself()
    with pytest.raises(ValueError, match="sorted order of their names, each once"):
        rl.mtsac(names, net, net, optax.identity(), optax.identity())


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_numbers_that_are_not_one_a_task(options, message):
    with pytest.raises(ValueError, match=message):
        plain(**options)


@pytest.mark.parametrize("weights", [2.0, np.ones(1), np.ones((3, 1))])
def test_weights_that_are_not_one_a_task(weights):
    with pytest.raises(
        ValueError, match=r"weights= must give one number a task, \[3\]"
    ):
        traced(plain(weights=lambda log_alpha: weights), batch())


def traced(agent, data, **extra):
    state = jax.eval_shape(agent.init, KEY)
    return jax.eval_shape(lambda s: agent.update(s, data, KEY, **extra), state)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("reward", lambda x: x[:2], r"reward must be \[3, n\]; got \(2, 4\)"),
        ("reward", lambda x: x[..., None], r"reward must be \[3, n\]"),
        ("terminated", lambda x: x[..., None], r"terminated is \(3, 4, 1\)"),
        ("terminated", lambda x: x[:, :1], r"terminated is \(3, 1\)"),
        ("action", lambda x: x[..., 0], r"action is \(3, 4\)"),
        ("action", lambda x: x[..., :1], "an actor has 2 A outputs"),
        ("obs", lambda x: x[:, :1], r"obs is \(3, 1, 3\)"),
        ("next_obs", lambda x: x[..., :1], "they must agree"),
    ],
)
def test_batches_of_other_shapes(part, change, message):
    data = batch()._replace(**{part: change(getattr(batch(), part))})
    with pytest.raises(ValueError, match=message):
        traced(plain(), data)


def test_active_of_another_shape_or_beside_a_choice_of_tasks():
    with pytest.raises(ValueError, match=r"active= must be .* shape \(3,\)"):
        traced(plain(), batch(), active=np.ones(2, bool))
    with pytest.raises(ValueError, match="Tasks are named differently"):
        traced(plain(), batch(), active=dict.fromkeys("abd", True))
    with pytest.raises(ValueError, match="subsample draws from all tasks"):
        traced(plain(subsample=2), batch(), active=ACTIVE)
