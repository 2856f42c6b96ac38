"""What every method owes its caller when tasks are missing."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_runs import EACH, PARAMS, T, assert_close, expected, gradients, statistics
from methods import METHODS

import mtl_optax as mtl

ACTIVE = np.array([True, False, True])
ALL, NONE = np.ones(T, bool), np.zeros(T, bool)


def has_task_sized_hyper(method):
    return any(np.shape(two[1]) == (T,) for two in method.hyper.values())


# Hyper-parameters at the defaults of the row (the weights of `constant` there restrict
# to those for two tasks), and [T] ones given, to be restricted.
ACTIVE_CASES = [
    pytest.param(
        method,
        given,
        id=f"{method.name}-{'given' if given else 'default'}",
        marks=[pytest.mark.slow] if given else [],
    )
    for method in METHODS
    for given in (False, True)
    if not given or has_task_sized_hyper(method)
]
EACH_ACTIVE = pytest.mark.parametrize(("method", "given"), ACTIVE_CASES)


class Masked:
    """A method of T tasks with `active`, and the method on the active tasks alone."""

    def __init__(self, method, given):
        hyper = {}
        if given:
            hyper = {k: jnp.asarray(two[1]) for k, two in method.hyper.items()}
        restricted = jax.tree.map(lambda x: x[ACTIVE] if x.ndim else x, hyper)
        self.method = method
        self.tx = method.make(T, **hyper)
        self.alone = method.make(2, **restricted)
        self._masked, self._plain = jax.jit(self.tx.update), jax.jit(self.alone.update)

    def start(self):
        return self.tx.init(PARAMS)

    def update(self, stacked, state, active, extras):
        return self._masked(stacked, state, PARAMS, active=active, **extras)

    def update_alone(self, stacked, extras, state=None):
        kept = jax.tree.map(lambda g: g[ACTIVE], stacked)
        extras = self.method.restrict(extras, ACTIVE)
        state = self.alone.init(PARAMS) if state is None else state
        return self._plain(kept, state, PARAMS, **extras)


masked = functools.cache(Masked)


@EACH_ACTIVE
def test_active_tasks_get_what_they_would_alone(method, given):
    both, extras = masked(method, given), method.extras(T, PARAMS)
    wanted, alone = both.update_alone(gradients(), extras)
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), gradients())
    if method.losses:
        extras["losses"] = extras["losses"].at[1].set(jnp.nan)
    update, state = both.update(broken, both.start(), ACTIVE, extras)
    assert_close(method, update, wanted, factor=5)
    chex.assert_tree_all_finite(state)
    pairs = zip(statistics(restricted(state)), statistics(alone), strict=True)
    for mine, other in pairs:
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    if hasattr(state, "task_weights"):
        weights = mtl.task_weights(state)
        np.testing.assert_array_equal(weights[~ACTIVE], 0)
        np.testing.assert_allclose(weights[ACTIVE], alone.task_weights, rtol=1e-4)


@EACH_ACTIVE
def test_statistics_of_inactive_tasks_stay(method, given):
    both, extras = masked(method, given), method.extras(T, PARAMS)
    _, before = both.update(gradients(), both.start(), ALL, extras)
    _, after = both.update(gradients(seed=1), before, ACTIVE, extras)
    for old, new in zip(statistics(before), statistics(after), strict=True):
        if old.shape[:1] == (T,):
            np.testing.assert_array_equal(new[~ACTIVE], old[~ACTIVE])
        if old.shape[1:2] == (T,):
            np.testing.assert_array_equal(new[:, ~ACTIVE], old[:, ~ACTIVE])


def restricted(tree, active=ACTIVE):
    """State of the method on the active tasks alone: their entries of every T axis."""

    def among(leaf):
        for axis in range(min(leaf.ndim, 2)):
            if leaf.shape[axis] == T:
                leaf = jnp.compress(active, leaf, axis=axis)
        return leaf

    return jax.tree.map(among, tree)


@EACH
def test_active_tasks_go_on_alone_and_the_others_come_back(method):
    """From a state in mid-course; the mask changes from step to step."""
    both = masked(method, False)
    steps = [method.extras(T, PARAMS, seed) for seed in range(4)]
    state = both.start()
    for seed in range(2):
        _, state = both.update(gradients(seed=seed), state, ALL, steps[seed])
    wanted, alone = both.update_alone(gradients(seed=2), steps[2], restricted(state))
    update, away = both.update(gradients(seed=2), state, ACTIVE, steps[2])
    assert_close(method, update, wanted, factor=5)
    chex.assert_trees_all_close(
        statistics(restricted(away)), statistics(alone), rtol=1e-4, atol=1e-5
    )
    update, back = both.update(gradients(seed=3), away, ALL, steps[3])
    chex.assert_tree_all_finite((update, back))
    if hasattr(back, "task_weights"):
        assert np.all(np.isfinite(mtl.task_weights(back)))


@EACH_ACTIVE
def test_without_an_active_task_nothing_moves(method, given):
    both, extras = masked(method, given), method.extras(T, PARAMS)
    _, before = both.update(gradients(), both.start(), ALL, extras)
    nan = jax.tree.map(lambda g: jnp.full_like(g, jnp.nan), gradients())
    update, after = both.update(nan, before, NONE, extras)
    chex.assert_trees_all_equal(update, PARAMS)
    chex.assert_trees_all_equal(statistics(after), statistics(before))
    if hasattr(after, "task_weights"):
        np.testing.assert_array_equal(mtl.task_weights(after), 0)


@EACH
def test_all_tasks_active_is_the_default(method):
    both, extras = masked(method, False), method.extras(T, PARAMS)
    update, state = both.update(gradients(), both.start(), ALL, extras)
    wanted, plain = expected(method)
    assert_close(method, update, wanted)
    chex.assert_trees_all_close(state, plain, rtol=1e-5, atol=1e-6)
