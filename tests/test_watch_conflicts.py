"""Conflicts over a training: the stream beside the same numbers kept one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl

T, STEPS, BINS = 3, 60, 200


def gradients(seed, num_tasks=T):
    """Stacked, of a trunk with a common part and a head for each task."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(1, 7))
    trunk = common * rng.normal(size=(num_tasks, 1)) + rng.normal(size=(num_tasks, 7))
    heads = np.eye(num_tasks)[:, :, None] * rng.normal(size=(num_tasks, num_tasks, 2))
    scales = 10.0 ** rng.uniform(-1, 1, (num_tasks, 1))
    return {"trunk": jnp.asarray(trunk * scales), "heads": jnp.asarray(heads)}


PARAMS = {"trunk": jnp.zeros(7), "heads": jnp.zeros((T, 2))}
SHARED = {"trunk": True, "heads": False}


def watched(steps=STEPS, activity=None, **options):
    """The state after some steps, and what NumPy says of those measured."""
    tx = mtl.watch_conflicts(T, shared=SHARED, bins=BINS, **options)
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)
    every = options.get("every_k", 10)
    kept = []
    for step in range(steps):
        grads = gradients(step)
        active = np.ones(T, bool) if activity is None else activity(step)
        passed, state = update(grads, state, PARAMS, active=jnp.asarray(active))
        assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, passed, grads)))
        if step % every == 0:
            rows = np.asarray(grads["trunk"], np.float64)
            norms = np.linalg.norm(rows, axis=1)
            cosines = rows @ rows.T / norms[:, None] / norms[None, :]
            both = 2 * norms[:, None] * norms[None, :]
            alike = both / (norms[:, None] ** 2 + norms[None, :] ** 2)
            seen = active[:, None] & active[None, :]
            kept.append(np.where(seen, [cosines, alike], np.nan))
    return state, np.asarray(kept)  # [measured, 2, T, T]


@pytest.mark.parametrize("every_k", [1, 7])
def test_the_stream_is_what_was_seen(every_k):
    state, kept = watched(every_k=every_k)
    summary = mtl.conflict_summary(state, percentiles=(2.5, 50.0, 97.5))
    assert int(summary.counts[0, 1]) == len(kept) == -(-STEPS // every_k)
    for measure, width, found in (
        (0, 2 / BINS, summary.cosine),
        (1, 1 / BINS, summary.magnitude),
    ):
        values = kept[:, measure]
        np.testing.assert_allclose(found.mean, values.mean(0), atol=2e-6)
        np.testing.assert_allclose(found.sd, values.std(0, ddof=1), atol=2e-6)
        for p, at in zip((2.5, 50.0, 97.5), found.percentiles, strict=True):
            low, high = (
                np.percentile(values, p, axis=0, method=method)
                for method in ("lower", "higher")
            )
            assert (at >= low - width).all()
            assert (at <= high + width).all()
    conflicting = (kept[:, 0] < 0).mean(0)
    np.testing.assert_allclose(summary.conflicting, conflicting, atol=1e-6)


def test_all_pairs_as_one_sample():
    state, kept = watched(every_k=2)
    pooled = mtl.conflict_summary(state, percentiles=(50.0,), pooled=True)
    values = kept[:, 0][:, *np.triu_indices(T, 1)].ravel()
    assert int(pooled.counts) == len(values)
    np.testing.assert_allclose(pooled.cosine.mean, values.mean(), atol=2e-6)
    np.testing.assert_allclose(pooled.cosine.sd, values.std(ddof=1), atol=2e-6)
    assert abs(float(pooled.cosine.percentiles[0]) - np.median(values)) < 0.05
    np.testing.assert_allclose(pooled.conflicting, (values < 0).mean(), atol=1e-6)


def test_missing_tasks_are_not_counted():
    turns = lambda step: np.arange(T) != step % (T + 1)  # noqa: E731
    state, kept = watched(every_k=1, activity=turns)
    summary = mtl.conflict_summary(state)
    counted = np.isfinite(kept[:, 0]).sum(0)
    np.testing.assert_array_equal(summary.counts, counted)
    np.testing.assert_allclose(
        summary.cosine.mean, np.nanmean(kept[:, 0], 0), atol=2e-6
    )


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_task_without_a_gradient_or_with_a_bad_one_counts_in_no_pair(bad):
    tx = mtl.watch_conflicts(2, every_k=1)
    grads = {"w": jnp.array([[1.0, 2.0], [bad, bad]])}
    _, state = tx.update(grads, tx.init({"w": jnp.zeros(2)}))
    summary = mtl.conflict_summary(state)
    np.testing.assert_array_equal(summary.counts, [[1, 0], [0, 0]])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(summary))
    assert float(summary.cosine.mean[0, 1]) == 0


def test_the_least_conflict_is_one():
    tx = mtl.watch_conflicts(2, every_k=1)
    grads = {"w": jnp.array([[1.0, 0.0], [-1e-9, 1.0]])}
    _, state = tx.update(grads, tx.init({"w": jnp.zeros(2)}))
    assert float(mtl.conflict_summary(state).conflicting[0, 1]) == 1


def test_lazy_gradients_are_pulled_back_at_measured_steps_only():
    def losses_fn(p):
        return {"a": jnp.sum(jnp.sin(p)), "b": jnp.sum(jnp.cos(p) ** 2)}

    without = optax.chain(mtl.mean(2), optax.sgd(0.1))
    tx = optax.chain(mtl.watch_conflicts(2, every_k=4), without)
    params = jnp.linspace(0.1, 2, 5)
    mtl.check_chain(tx, params, num_tasks=2)
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        _, grads = mtl.lazy_task_grads(losses_fn)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def equations(tx):  # outside of branches, and products anywhere
        def update(params):
            _, grads = mtl.lazy_task_grads(losses_fn)(params)
            return tx.update(grads, tx.init(params), params)[0]

        jaxpr = jax.make_jaxpr(update)(params)
        return len(jaxpr.eqns), str(jaxpr).count(" = mul ")

    (top, products), (plain, fewer) = equations(tx), equations(without)
    assert top - plain < 12  # what is measured stands in a branch:
    assert products - fewer > 12
    seen = []
    for number in range(8):
        if number % 4 == 0:
            seen.append(mtl.cosine_similarity(mtl.task_grads(losses_fn)(params)[1]))
        params, state = step(params, state)
    summary = mtl.conflict_summary(state)
    np.testing.assert_allclose(summary.cosine.mean, np.mean(seen, 0), atol=1e-6)
    assert step._cache_size() == 1


def test_its_state_lives_in_scan_and_vmap_and_comes_whole_after_a_new_task():
    tx = mtl.watch_conflicts(2, every_k=2)
    params = {"w": jnp.zeros(3)}

    def run(key):
        def body(state, key):
            return tx.update({"w": jax.random.normal(key, (2, 3))}, state, params)[::-1]

        return jax.lax.scan(body, tx.init(params), jax.random.split(key, 5))[0]

    states = jax.vmap(run)(jax.random.split(jax.random.key(0), 4))
    summary = jax.vmap(mtl.conflict_summary)(states)
    assert summary.cosine.percentiles.shape == (4, 3, 2, 2)
    np.testing.assert_array_equal(summary.counts, np.full((4, 2, 2), 3))
    one = jax.tree.map(lambda x: x[0], states)
    fresh = mtl.watch_conflicts(3, every_k=2).init(params)
    wider = mtl.resize_tasks(one, ("a", "b"), ("a", "b", "new"), fresh=fresh)
    np.testing.assert_array_equal(wider.conflict_counts[:2, :2], one.conflict_counts)
    assert not wider.conflict_counts[2].any()


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="bins must be even"):
        mtl.watch_conflicts(2, bins=3)
    with pytest.raises(ValueError, match="every_k"):
        mtl.watch_conflicts(2, every_k=0)
    nothing = mtl.watch_conflicts(T, shared={"trunk": False, "heads": False})
    with pytest.raises(ValueError, match="False on every leaf"):
        nothing.update(gradients(0), nothing.init(PARAMS), PARAMS)
    tx = mtl.watch_conflicts(T, shared=SHARED)
    with pytest.raises(ValueError, match="params"):
        tx.update(gradients(0), tx.init(PARAMS))
    with pytest.raises(ValueError, match="between 0 and 100"):
        mtl.conflict_summary(tx.init(PARAMS), percentiles=(101.0,))
    with pytest.raises(ValueError, match="0 states of watch_conflicts"):
        mtl.conflict_summary(optax.sgd(0.1).init(PARAMS))
    with pytest.raises(ValueError, match="2 states of watch_conflicts"):
        mtl.conflict_summary(optax.chain(tx, tx).init(PARAMS))
