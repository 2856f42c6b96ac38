"""What optax asks of every optimiser it ships, asked of every method.

A lift stacks one gradient T = 2 times and puts SGD behind the method, so that the
method is an ordinary optimiser. Equal rows are also the hardest Gramian: rank 1.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax
from methods import METHODS

T = 2
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
TARGET = {"matrix": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "vector": jnp.array([-1.5])}
START = jax.tree.map(jnp.zeros_like, TARGET)


def parabola(params):
    """One for all tasks, with curvature 1 and 3."""
    away = jax.tree.map(jnp.subtract, params, TARGET)
    return 0.5 * jnp.sum(away["matrix"] ** 2) + 1.5 * jnp.sum(away["vector"] ** 2)


def optimiser(method, learning_rate=0.1):
    """The method with SGD behind it."""
    return optax.chain(method.make(T), optax.sgd(learning_rate))


def extras(method, params=START):
    given = method.extras(T, params)
    # Losses of 1 keep learned scalars where they are.
    return {**given, "losses": jnp.ones(T)} if method.losses else given


def lift(gradient):
    return jax.tree.map(lambda g: jnp.stack([g] * T), gradient)


@functools.cache
def step(method, accumulate=1):
    """One jitted step on the parabola, behind `MultiSteps` if it accumulates."""
    tx = method.make(T)
    rest = optax.sgd(0.1)
    if accumulate > 1:
        rest = optax.MultiSteps(rest, accumulate).gradient_transformation()
    tx = optax.chain(tx, rest)

    def move(params, state, given):
        gradient = jax.grad(parabola)(params)
        updates, state = tx.update(lift(gradient), state, params, **given)
        return optax.apply_updates(params, updates), state

    return tx, jax.jit(move)


@EACH
def test_converges_on_a_parabola(method):
    """200 steps inside a scan, shrinking where the gradient's length does not rule."""
    shrinking = optax.exponential_decay(0.3, 1, 0.96)
    # That of balancer rules too, beside its usual one.
    rules = method.degree >= 1 or method.name == "balancer"
    learning_rate = 0.1 if rules else shrinking
    tx = optimiser(method, learning_rate)
    given = extras(method)

    @jax.jit
    def train():
        def move(carry, _):
            params, state = carry
            gradient = jax.grad(parabola)(params)
            updates, state = tx.update(lift(gradient), state, params, **given)
            return (optax.apply_updates(params, updates), state), None

        start = START, tx.init(START)
        return lax.scan(move, start, length=200)[0][0]

    chex.assert_trees_all_close(train(), TARGET, rtol=1e-2, atol=1e-2)


@EACH
def test_a_step_goes_down_and_compiles_once(method):
    tx, move = step(method)
    given = extras(method)
    params, state = START, tx.init(START)
    for _ in range(3):
        before = parabola(params)
        params, state = move(params, state, given)
        assert parabola(params) < before
    assert move._cache_size() == 1


@EACH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_state_and_update_keep_their_types_through_cond(method, dtype):
    """Also with an extra argument of a dtype that nobody expects."""
    tx = optimiser(method)
    params = jax.tree.map(lambda p: p.astype(dtype), START)
    given = {**extras(method), "value": jnp.ones((), jnp.int8)}

    def move(params, state):
        gradient = jax.tree.map(lambda p: p + 1, params)
        updates, state = tx.update(lift(gradient), state, params, **given)
        return updates, state

    def both(params):
        state = tx.init(params)
        return lax.cond(True, move, lambda p, s: (p, s), params, state)

    updates, state = jax.eval_shape(both, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


@EACH
def test_multi_steps_behind_the_method_accumulates_updates(method):
    """Parameters rest while the updates of two micro-batches are averaged."""
    tx, move = step(method, accumulate=2)
    _, plain = step(method)
    given = extras(method)
    state = tx.init(START)
    once, state = move(START, state, given)
    chex.assert_trees_all_equal(once, START)
    twice, state = move(once, state, given)
    tx, plain = step(method)
    first, state = plain(START, tx.init(START), given)
    second, _ = plain(START, state, given)
    wanted = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    chex.assert_trees_all_close(twice, wanted, rtol=1e-5, atol=1e-6)
    assert parabola(twice) < parabola(START)


@EACH
def test_map_params_finds_no_parameter_where_there_is_none(method):
    """The identity changes nothing, and T-sized state is not taken for params."""
    tx = optimiser(method)
    state = tx.init(START)
    chex.assert_trees_all_equal(optax.tree.map_params(tx, lambda p: p, state), state)
    if method.family != "gradients":
        moved = optax.tree.map_params(tx, lambda p: p + 1, state)
        chex.assert_trees_all_equal(moved, state)


@EACH
def test_init_needs_shapes_only(method):
    tx = optimiser(method)
    abstract = jax.eval_shape(lambda: START)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(tx.init, abstract), tx.init(START)
    )
