"""What the papers prove, and what rounding must not take away: over the rows.

These run over the rows of methods.py that claim a property; test_equations_*.py hold
each method to the equations that define it. Everything is measured in float64 from
what a float32 user gets.
"""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_runs import (
    EACH,
    EPS,
    TASKS,
    WIDTH,
    assert_same,
    claiming,
    columns,
    compiled,
    cosines_with,
    direction,
    lengths,
    run,
    seen,
)
from methods import BY_NAME, METHODS
from problems import (
    HAND,
    flat,
    hostile,
    params_of,
    random_matrix,
    stationary,
    tree_of,
)

# --- Over the rows --------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("num_tasks", TASKS)
def test_hostile_gradients_give_finite_updates(method, num_tasks):
    num_tasks = max(num_tasks, method.min_tasks)
    for name, matrix in hostile(num_tasks).items():
        update, state = run(method, matrix)
        assert np.all(np.isfinite(update)), name
        for leaf in jax.tree.leaves(state):
            assert np.all(np.isfinite(leaf)), name
        if not matrix.any():
            assert not update.any(), name


@EACH
@pytest.mark.parametrize("name", HAND)
def test_hand_checked_examples(method, name):
    matrix = HAND[name]
    extras = method.extras(2, params_of(tree_of(matrix, width=WIDTH)))
    if method.draw == "uniforms":
        extras["uniforms"] = jax.tree.map(
            lambda u: jnp.full_like(u, 0.25), extras["uniforms"]
        )
    update, _ = run(method, matrix, extras)
    np.testing.assert_allclose(update, method.hand[name], rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.common], ids=lambda method: method.name
)
@pytest.mark.parametrize("num_tasks", TASKS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_equal_rows_give_a_known_multiple(method, num_tasks, size):
    row = size * random_matrix(1)[0]
    num_tasks = max(num_tasks, method.min_tasks)
    update, _ = run(method, np.tile(row, (num_tasks, 1)))
    factor = method.common(num_tasks, np.linalg.norm(row))
    assert factor > 0
    assert_same(update, factor * row, 5 * method.tolerance)


@claiming("permutation_equivariant")
@pytest.mark.parametrize("num_tasks", TASKS[1:])
def test_order_of_tasks_does_not_matter(method, num_tasks):
    matrix = random_matrix(num_tasks, seed=7)
    order = np.random.default_rng(0).permutation(num_tasks)
    params = params_of(tree_of(matrix, width=columns(num_tasks)))
    extras = method.extras(num_tasks, params)
    permuted = dict(extras)
    if "losses" in extras:
        permuted["losses"] = extras["losses"][order]
    if method.draw == "order":
        place = jnp.asarray(np.argsort(order), jnp.int32)
        permuted["order"] = place[extras["order"][order]]
    if method.draw == "normals":
        permuted["normals"] = extras["normals"][order]
    update, _ = run(method, matrix, extras)
    again, _ = run(method, matrix[order], permuted)
    size = lengths(matrix).max() if method.degree else 1
    np.testing.assert_allclose(again, update, rtol=0, atol=5 * method.tolerance * size)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.homogeneous], ids=lambda method: method.name
)
@pytest.mark.parametrize("scale", [2.0**-80, 2.0**-33, 2.0**33, 2.0**66])
def test_global_scale(method, scale):
    """Powers of two, so that rounding is the same; the outer two have no square."""
    matrix = random_matrix(3, seed=3)
    wanted, _ = run(method, matrix)
    update, state = run(method, scale * matrix)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert_same(update / scale**method.degree, wanted, method.tolerance)


@claiming("simplex")
@pytest.mark.parametrize("num_tasks", TASKS)
def test_weights_are_on_the_simplex(method, num_tasks):
    for name, matrix in hostile(num_tasks).items():
        _, state = run(method, matrix)
        task_weights = np.asarray(state.task_weights, np.float64)
        assert np.all(task_weights >= 0), name
        assert abs(task_weights.sum() - 1) <= num_tasks * EPS, name


@claiming("non_conflicting")
@pytest.mark.parametrize("num_tasks", TASKS)
def test_update_harms_no_task(method, num_tasks):
    for name, matrix in hostile(num_tasks).items():
        update, _ = run(method, matrix)
        assert np.min(cosines_with(seen(matrix), update)) >= -1e-5, name
        # More tasks than dimensions surround 0, where the only such update is zero.
        solvable = num_tasks < WIDTH and name in ("random", "row_scales", "tiny")
        assert update.any() or not solvable, name


LOSS_SCALES = np.array([4.0, 32.0, 0.125])


def promised(method):
    """What the docstring says not to depend on the scale of any loss, or "none"."""
    text = inspect.getdoc(method.factory).split("Invariances: ")[1].split("\n\n")[0]
    text = " ".join(text.split())
    said = re.match(r"the (\w+) do(?:es)? not depend on the scale of any loss", text)
    assert said or text.startswith("none"), text
    return said[1] if said else "none"


@functools.cache
def stepping(method):
    """The method for three tasks, and one jitted update from any state."""
    tx = method.make(3)
    return tx, jax.jit(
        lambda g, state, params, extras: tx.update(g, state, params, **extras)
    )


def after_some_steps(method, scales):
    """The third update, and its weights, with every loss multiplied."""
    tx, step = stepping(method)
    params = params_of(tree_of(random_matrix(3), "float64", WIDTH))
    state = tx.init(params)
    for seed in range(3):
        matrix = scales[:, None] * random_matrix(3, seed=seed)
        extras = method.extras(3, params, seed)
        if method.losses:
            extras["losses"] = scales * extras["losses"]
        update, state = step(tree_of(matrix, "float64", WIDTH), state, params, extras)
    return flat(update), getattr(state, "task_weights", None)


@EACH
def test_loss_scales_matter_as_the_docstring_says(method):
    with precision("float64"):
        plain, weights = after_some_steps(method, np.ones(3))
        update, scaled = after_some_steps(method, LOSS_SCALES)
    said = promised(method)
    cosine = update @ plain / np.linalg.norm(update) / np.linalg.norm(plain)
    assert (cosine > 1 - 1e-7) == (said in ("update", "direction"))
    assert np.allclose(update, plain, rtol=1e-5) == (said == "update")
    if said == "weights":
        np.testing.assert_allclose(scaled, weights, rtol=1e-5)


@claiming("row_scale_invariant_direction")
@pytest.mark.parametrize("num_tasks", TASKS)
def test_direction_does_not_depend_on_row_scales(method, num_tasks):
    matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=5)
    scales = 2.0 ** np.round(np.linspace(-20, 20, num_tasks))
    wanted, _ = run(method, matrix)
    update, _ = run(method, scales[:, None] * matrix)
    cosine = update @ wanted / np.linalg.norm(update) / np.linalg.norm(wanted)
    assert cosine >= 1 - 1e-5


# Rounding is what may spoil a zero, so as users compile; many tasks would take minutes.
FEW = [pytest.param(n, marks=pytest.mark.optimized) for n in TASKS[1:3]]


@claiming("zero_at_stationary")
@pytest.mark.parametrize("num_tasks", [*FEW, *TASKS[3:]])
def test_exactly_zero_at_stationary_points(method, num_tasks):
    for seed in range(5):
        update, _ = run(method, stationary(num_tasks, seed=seed))
        np.testing.assert_array_equal(update, 0)


CANCELLING = ["mgda", "pcgrad", "imtl_g", "nash_mtl", "upgrad", "db_mtl"]
CANCELLING += ["fairgrad", "dualproj", "conflictfree", "gradvac"]


@pytest.mark.parametrize("name", CANCELLING)
@pytest.mark.parametrize("ratio", [1.0, 3.0, 1e6])
@pytest.mark.optimized
def test_exactly_zero_for_two_opposite_gradients(name, ratio):
    row = random_matrix(1)[0]
    update = direction(name, np.stack([row, -ratio * row]))
    np.testing.assert_array_equal(update, 0)


# --- Random trees ---------------------------------------------------------------------

RANDOM = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# One shape, as each compiles anew; values and scales vary freely.
SCALES = st.floats(-6, 6)


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
@EACH
@given(seed=st.integers(0, 2**32 - 1), exponents=st.tuples(SCALES, SCALES, SCALES))
@RANDOM
def test_random_trees(method, dtype, seed, exponents):
    """Finite, of the parameters' dtype, and blind to the order of the tasks."""
    matrix = random_matrix(3, seed=seed) * 10.0 ** np.array(exponents)[:, None]
    stacked = tree_of(matrix, dtype, WIDTH)
    params = params_of(stacked)
    step = compiled(method, 3)
    update, state = step(stacked, (), method.extras(3, params))
    assert jax.tree.map(jnp.shape, update) == jax.tree.map(jnp.shape, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(update)} == {jnp.dtype(dtype)}
    assert np.all(np.isfinite(flat(update)))
    if "simplex" in method.claims:
        np.testing.assert_allclose(np.sum(state.task_weights), 1, rtol=1e-6)
    if "non_conflicting" in method.claims and dtype == "float32":
        assert np.min(cosines_with(seen(matrix), flat(update))) >= -1e-5


@st.composite
def layouts(draw):
    """Sizes of the leaves that 12 columns are cut into."""
    cuts = draw(st.sets(st.integers(1, WIDTH - 1), max_size=3))
    return np.diff([0, *sorted(cuts), WIDTH]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unitary", "imtl_g", "aligned_mtl"])
@given(sizes=layouts(), num_tasks=st.integers(1, 6), seed=st.integers(0, 99))
@settings(RANDOM, max_examples=10)
def test_layout_of_the_tree_does_not_matter(name, sizes, num_tasks, seed):
    matrix = random_matrix(num_tasks, seed=seed)
    ends = np.cumsum(sizes)[:-1]
    leaves = [jnp.asarray(x, jnp.float32) for x in np.split(matrix, ends, axis=1)]
    tx = BY_NAME[name].make(num_tasks)
    params = params_of(leaves)
    update, _ = jax.jit(tx.update)(leaves, tx.init(params), params)
    assert_same(np.concatenate(update), direction(name, matrix), 1e-4)


# --- float64 --------------------------------------------------------------------------


@EACH
@pytest.mark.slow
def test_float32_agrees_with_float64(method):
    matrix = seen(random_matrix(3, seed=11))
    with precision("float64"):
        tx, step = stepping(method)
        stacked = tree_of(matrix, "float64", WIDTH)
        params = params_of(stacked)
        wanted, _ = step(stacked, tx.init(params), params, method.extras(3, params))
    update, _ = run(method, matrix)
    assert_same(update, flat(wanted), method.tolerance)
