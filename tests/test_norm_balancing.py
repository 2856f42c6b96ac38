"""sam_gs and metabalance against their recursions in NumPy, and hostile gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl

T = 4
SHAPES = {"a": (2, 3), "b": (3,), "c": ()}
LABELS = {"a": "first", "b": "rest", "c": "first"}
PARAMS = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
BLOCKS = {None: ["abc"], "leaf": ["a", "b", "c"], "labels": ["ac", "b"]}


def problem(steps=6, seed=0):
    """Rows [S, T, P] of lengths that differ by steps and tasks, and who is there."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((steps, T, 10)) * rng.uniform(0.2, 2, (steps, T, 1))
    rows[1::3, 0] *= 300  # clashes
    rows[:, 3] *= 0.01
    active = rng.uniform(size=(steps, T)) < 0.8
    active[0], active[3] = True, [False, False, True, False]
    return rows.astype(np.float32).astype(np.float64), active


def as_tree(rows):
    parts = np.split(np.asarray(rows, np.float32), [6, 9], axis=-1)
    lead = rows.shape[:-1]
    return {
        name: jnp.asarray(part.reshape(*lead, *SHAPES[name]))
        for name, part in zip("abc", parts, strict=True)
    }


def flat(update):
    return np.concatenate([np.ravel(np.asarray(update[n], np.float64)) for n in "abc"])


def columns(block):
    places = {"a": range(6), "b": range(6, 9), "c": [9]}
    return [i for name in block for i in places[name]]


def updates(tx, rows, active):
    update = jax.jit(tx.update)
    state, found = tx.init(PARAMS), []
    for row, mask in zip(rows, active, strict=True):
        row = np.where(mask[:, None], row, np.nan)
        new, state = update(as_tree(row), state, PARAMS, active=jnp.asarray(mask))
        found.append(flat(new))
    return np.stack(found), state


def spread(granularity):
    return LABELS if granularity == "labels" else granularity


# --- sam_gs ---------------------------------------------------------------------------


def sam_gs_by_hand(rows, active, blocks, *, b1, b2, gamma, max_norm, variant):
    """Algorithm 1, with raw averages and their corrections, in float64."""
    m, steps = np.zeros(rows.shape[1:]), np.zeros(T, int)
    h, found, clashes = np.zeros(len(blocks)), [], []
    for k, (g, mask) in enumerate(zip(rows, active, strict=True), start=1):
        at = np.flatnonzero(mask)
        steps[at] += 1
        m[at] = b1 * m[at] + (1 - b1) * g[at]
        d = np.zeros(rows.shape[2])
        for number, block in enumerate(blocks):
            c = columns(block)
            n = {t: np.sqrt(np.sum(g[t, c] ** 2)) for t in at}
            like = [
                2 * n[s] * n[t] / (n[s] ** 2 + n[t] ** 2)
                for s in at
                for t in at
                if variant == "paper" or s < t
            ]
            psi = np.mean(like) if like else 1.0
            h[number] = b2 * h[number] + (1 - b2) * (1 - psi) ** 2 + 1e-8
            root = np.sqrt(h[number] / (1 - b2**k)) + 1e-8 * (variant == "paper")
            clashes.append(psi < gamma)
            for t in at:
                if psi < gamma:
                    d[c] += np.mean(list(n.values())) * g[t, c] / n[t]
                else:
                    d[c] += np.abs(m[t, c] / (1 - b1 ** steps[t])) * g[t, c] / root
        d *= len(at) if variant == "code" else 1
        if max_norm is not None:
            d *= min(1, max_norm / np.linalg.norm(d))
        found.append(d)
    assert 0 < np.mean(clashes) < 1  # both forms
    return np.stack(found)


@pytest.mark.parametrize(
    ("granularity", "variant", "max_norm"),
    [
        (None, "code", None),
        pytest.param(None, "paper", None, marks=pytest.mark.slow),
        ("labels", "code", 40.0),
        pytest.param("leaf", "paper", None, marks=pytest.mark.slow),
    ],
)
def test_sam_gs_follows_its_recursion(granularity, variant, max_norm):
    rows, active = problem()
    own = {"gamma": 0.6, "max_norm": max_norm, "variant": variant}
    tx = mtl.sam_gs(T, beta=0.8, beta2=0.95, granularity=spread(granularity), **own)
    got, _ = updates(tx, rows, active)
    blocks = BLOCKS[granularity]
    wanted = sam_gs_by_hand(rows, active, blocks, b1=0.8, b2=0.95, **own)
    for mine, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=2e-5 * abs(other).max())


def one_update(tx, rows):
    grads = jnp.asarray(rows, jnp.float32)
    return np.asarray(jax.jit(lambda g: tx.update(g, tx.init(g[0]))[0])(grads))


def test_sam_gs_of_the_hand_checked_gradients():
    """As they are before the code's factor T and its clip."""
    tx = mtl.sam_gs(2, max_norm=None)
    got = one_update(tx, [[10, 0], [0, 0.1]]) / 2
    np.testing.assert_allclose(got, [5.05, 5.05], rtol=1e-6)
    rows, wanted = [[3.0, 4], [0, 1]], np.array([14.624981, 27.624964])
    np.testing.assert_allclose(one_update(tx, rows) / 2, wanted, rtol=1e-6)
    clipped = one_update(mtl.sam_gs(2), rows)
    np.testing.assert_allclose(clipped, wanted / np.linalg.norm(wanted), rtol=1e-6)


def test_sam_gs_of_the_paper_never_equalises_two_tasks_below_one_half():
    rows = [[10.0, 0], [0, 0.1]]
    apart = one_update(mtl.sam_gs(2, gamma=0.49, variant="paper", max_norm=None), rows)
    psi = (1 + 0.019998) / 2
    np.testing.assert_allclose(apart, np.array([100, 0.01]) / (1 - psi), rtol=1e-4)
    equal = one_update(mtl.sam_gs(2, gamma=0.52, variant="paper", max_norm=None), rows)
    np.testing.assert_allclose(equal, [5.05, 5.05], rtol=1e-6)


def test_sam_gs_of_equal_norms_has_gains_of_a_thousand():
    """Which the clip takes back; alone a task is as similar to itself."""
    rows = np.array([[3.0, 4], [4, 3]])
    wide = one_update(mtl.sam_gs(2, max_norm=None), rows)
    np.testing.assert_allclose(wide, 2 * 1000 * np.array([25, 25]), rtol=1e-3)
    np.testing.assert_allclose(
        one_update(mtl.sam_gs(2), rows), [0.5**0.5] * 2, rtol=1e-6
    )
    alone = one_update(mtl.sam_gs(1, max_norm=None), rows[:1])
    np.testing.assert_allclose(alone, 1000 * rows[0] ** 2, rtol=1e-3)


def test_sam_gs_equalises_gradients_that_are_nothing_beside_the_longest():
    scales = np.array([1e-30, 1.0, 1e10, 1e30])
    rows = scales[:, None] * np.array([[3.0, 4.0], [4.0, -3.0], [-1.0, 0.0], [0, 1.0]])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = unit.sum(axis=0) / np.linalg.norm(unit.sum(axis=0))
    np.testing.assert_allclose(one_update(mtl.sam_gs(4), rows), wanted, rtol=1e-6)


def test_sam_gs_of_hostile_gradients():
    """Zero rows, cancelling ones, and such whose products are no numbers."""
    tx = mtl.sam_gs(3)
    zero = np.zeros((3, 2))
    np.testing.assert_array_equal(one_update(tx, zero), 0)
    one_zero = one_update(
        mtl.sam_gs(3, gamma=0.9, max_norm=None), [[3, 4], [0, 0], [1, 0]]
    )
    # Norms 5, 0, 1, whose mean is 2; the zero one has no direction.
    np.testing.assert_allclose(one_zero, 3 * 2 * np.array([0.6 + 1, 0.8]), rtol=1e-6)
    away = np.array([[1.0, 2], [-2, -4], [0, 0]])
    np.testing.assert_array_equal(one_update(mtl.sam_gs(3, gamma=0.9), away), 0)
    for scale in (1e30, 1e37):
        huge = one_update(tx, scale * np.array([[3.0, 4], [4, 3], [0, 1]]))
        assert np.linalg.norm(huge) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"beta": 1.5}, "beta must be at most 1"),
        ({"beta2": 1.0}, "1 - beta2 must be positive"),
        ({"gamma": -0.1}, "gamma must be at least 0"),
        ({"max_norm": 0.0}, "max_norm must be positive"),
        ({"max_norm": jnp.ones(2)}, "max_norm must be one number"),
        ({"variant": "rl"}, "variant must be one of 'code', 'paper'"),
        ({"granularity": "layer"}, "granularity must be one of None"),
    ],
)
def test_what_sam_gs_refuses(own, message):
    with pytest.raises(ValueError, match=message):
        mtl.sam_gs(2, **own)


# --- metabalance ----------------------------------------------------------------------


def metabalance_by_hand(rows, active, blocks, *, primary, r, beta, variant):
    """Algorithm 1, block by block, in float64."""
    n, seen, found = np.zeros((len(blocks), T)), np.zeros(T, bool), []
    for g, mask in zip(rows, active, strict=True):
        at, d = np.flatnonzero(mask), np.zeros(rows.shape[2])
        seen |= mask
        for number, block in enumerate(blocks):
            c = columns(block)
            for t in at:
                length = np.sqrt(np.sum(g[t, c] ** 2))
                n[number, t] = beta * n[number, t] + (1 - beta) * length
            for t in at:
                times = n[number, primary] / n[number, t] if seen[primary] else 1.0
                if variant != "both":
                    times = (min if variant == "shrink" else max)(times, 1.0)
                d[c] += r * times * g[t, c] + (1 - r) * g[t, c]
        found.append(d)
    return np.stack(found)


@pytest.mark.parametrize(
    ("granularity", "primary", "variant"),
    [
        ("leaf", 0, "both"),
        pytest.param("labels", 2, "shrink", marks=pytest.mark.slow),
        pytest.param(None, 1, "grow", marks=pytest.mark.slow),
    ],
)
def test_metabalance_follows_its_recursion(granularity, primary, variant):
    rows, active = problem(seed=primary)
    active[0, primary] = False  # not there yet
    own = {"primary": primary, "r": 0.6, "beta": 0.8, "variant": variant}
    given = {} if granularity == "leaf" else {"granularity": spread(granularity)}
    got, state = updates(mtl.metabalance(T, **own, **given), rows, active)
    blocks = BLOCKS[granularity]
    wanted = metabalance_by_hand(rows, active, blocks, **own)
    for mine, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * abs(other).max())
    weights = mtl.task_weights(state)
    assert weights.shape == ((len(blocks), T) if granularity else (T,))


def test_metabalance_by_the_name_of_the_primary_task():
    def losses_fn(w):
        return {"aux": 100 * jnp.sum(w), "main": jnp.sum(w)}

    def step(primary):
        tx = mtl.metabalance(2, primary=primary, r=1.0)
        _, lazy = mtl.lazy_task_grads(losses_fn)(jnp.ones(2))
        return tx.update(lazy, tx.init(jnp.ones(2)), jnp.ones(2))

    got, state = jax.jit(step, static_argnums=0)("main")
    np.testing.assert_allclose(got, 2, rtol=1e-6)
    np.testing.assert_allclose(mtl.task_weights(state), [[0.01, 1]], rtol=1e-6)
    with pytest.raises(ValueError, match="metabalance: primary='sum' is none of"):
        jax.eval_shape(lambda: step("sum"))


def test_metabalance_of_the_hand_checked_gradients_and_of_none():
    tx = mtl.metabalance(2)
    np.testing.assert_allclose(one_update(tx, [[3, 4], [0, 1]]), [3, 7.8], rtol=1e-6)
    # Means that are 0, of both or of one.
    np.testing.assert_array_equal(one_update(tx, np.zeros((2, 2))), 0)
    np.testing.assert_allclose(one_update(tx, [[3, 4], [0, 0]]), [3, 4], rtol=1e-6)
    np.testing.assert_allclose(one_update(tx, [[0, 0], [0, 1]]), [0, 0.3], rtol=1e-6)


@pytest.mark.slow
def test_metabalance_on_leaves_of_different_sizes():
    """Each leaf has the primary task's length on it, whatever the other leaf has."""
    rows = {"a": jnp.array([[1e-15], [1e15]]), "b": jnp.array([[2.0], [-1e-30]])}
    rows["c"] = jnp.array([[1e20, 0], [0, 1e-25]])  # a ratio that is no number
    params = jax.tree.map(lambda g: g[0], rows)
    tx = mtl.metabalance(2, r=1.0)
    got, _ = jax.jit(tx.update)(rows, tx.init(params), params)
    np.testing.assert_allclose(got["a"], 2e-15, rtol=1e-5)
    np.testing.assert_allclose(got["b"], 0, atol=1e-6)
    assert np.isfinite(got["c"]).all()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"r": 1.5}, "r must be at most 1"),
        ({"beta": -0.5}, "beta must be at least 0"),
        ({"variant": "less"}, "variant must be one of 'both', 'shrink', 'grow'"),
        ({"primary": 2}, "primary must be at most 1"),
        ({"primary": 0.5}, "primary must be a Python int"),
        ({"primary": [0]}, "primary must be one task"),
    ],
)
def test_what_metabalance_refuses(own, message):
    with pytest.raises(ValueError, match=message):
        mtl.metabalance(2, **own)
