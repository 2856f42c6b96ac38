"""Methods as lanes of one program do what each does alone, and cost what was said."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import mtl_optax as mtl
from mtl_optax.rl.one_of import one_of

T, SEEDS, STEPS = 3, 2, 4
METHODS = {
    "unitary": lambda: mtl.unitary(T),
    "famo": lambda: mtl.famo(T),
    "pcgrad": lambda: mtl.pcgrad(T, key=3),
}
MASK = {"trunk": True, "head": False}


def made():
    return [make() for make in METHODS.values()]


def start(seed):
    key = jax.random.key(seed)
    return {"trunk": jax.random.normal(key, (4, 8)), "head": jnp.ones((T, 8))}


def losses_fn(params):
    x = jnp.sin(jnp.arange(5 * 4.0)).reshape(1, 5, 4)
    guesses = jnp.tanh(x @ params["trunk"]) @ params["head"][..., None]
    wanted = jnp.array([1.0, -2.0, 30.0])[:, None]
    losses = jnp.mean((guesses[..., 0] - wanted) ** 2, axis=1)
    return tuple(losses[t] for t in range(T))


def trained(method, seed, grads=mtl.task_grads):
    """Parameters and losses after some steps."""
    tx = optax.chain(mtl.on_shared(method, MASK), optax.adam(0.05))
    params = start(seed)

    def step(carry, _):
        params, state = carry
        losses, gradients = grads(losses_fn)(params)
        updates, state = tx.update(gradients, state, params, losses=losses)
        return (optax.apply_updates(params, updates), state), losses

    return jax.lax.scan(step, (params, tx.init(params)), None, STEPS)


def params_and_losses(method, seed, grads=mtl.task_grads):
    (params, _), losses = trained(method, seed, grads)
    return params, losses


@pytest.mark.slow
def test_seeds_times_methods_are_what_each_method_gives_alone():
    over_seeds = jax.vmap(
        lambda which, seed: params_and_losses(one_of(made(), which), seed),
        in_axes=(None, 0),
    )
    over_both = jax.jit(jax.vmap(over_seeds, in_axes=(0, None)))
    lanes = over_both(jnp.arange(len(METHODS)), jnp.arange(SEEDS))
    for at, make in enumerate(METHODS.values()):
        one = jax.vmap(lambda seed, make=make: params_and_losses(make(), seed))
        alone = jax.jit(one)(jnp.arange(SEEDS))
        lane = jax.tree.map(lambda x, at=at: x[at], lanes)
        chex.assert_trees_all_close(lane, alone, rtol=1e-4, atol=1e-5)
    trunks = lanes[0]["trunk"].reshape(len(METHODS), SEEDS, -1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert jnp.min(jnp.abs(trunks[one] - trunks[other]).max(axis=-1)) > 1e-3
    assert jnp.max(jnp.abs(trunks[:, 0] - trunks[:, 1])) > 1e-3


def test_errors_name_cause_and_cure():
    with pytest.raises(ValueError, match="one transformation or more; got none"):
        one_of([], 0)
    with pytest.raises(ValueError, match=r"which=4 is no index.*from 0 to 2"):
        one_of(made(), 4)
    params = start(0)
    stacked = jax.tree.map(lambda x: jnp.ones((T, *x.shape)), params)
    tx = one_of([mtl.unitary(T), optax.identity()], 0)
    with pytest.raises(ValueError, match=r"0 and 1 must agree.*come out stacked"):
        jax.eval_shape(tx.update, stacked, tx.init(params), params)


def test_a_chain_with_it_is_checked_like_others():
    params = start(0)
    clip = optax.clip_by_global_norm(1.0)
    for parts in ([mtl.unitary(T), mtl.imtl_g(T)], [mtl.unitary(T), mtl.famo(T)]):
        tx = optax.chain(mtl.on_shared(one_of(parts, 1), MASK), optax.adam(1e-3))
        mtl.check_chain(tx, params, T)
    wrong = one_of([mtl.unitary(T), optax.chain(clip, mtl.imtl_g(T))], 1)
    with pytest.raises(ValueError, match="stands before the method"):
        mtl.check_chain(optax.chain(wrong, optax.adam(1e-3)), params, T)
