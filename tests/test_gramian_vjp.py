"""The Gramian of a pull-back of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl

WIDTH, ROWS, TASKS = 16, 4, 3
PARAMS = {
    "w": jax.random.normal(jax.random.key(0), (WIDTH, WIDTH)) / 4,
    "v": jax.random.normal(jax.random.key(1), (2, WIDTH, WIDTH)) / 4,
    "b": jnp.zeros(WIDTH),
    "steps": jnp.arange(3),
}
X = jax.random.normal(jax.random.key(2), (ROWS, WIDTH))
WEIGHTS = jnp.array([0.5, -1.0, 2.0])


def trunk(params, x):
    h = jnp.tanh(x @ params["w"] + params["b"][None, :])
    return {"first": h @ params["v"][0], "second": jnp.sin(h @ params["v"][1])}


def cotangents():
    shapes = jax.eval_shape(trunk, PARAMS, X)
    return jax.tree.map(
        lambda s: jax.random.normal(jax.random.key(s.size), (TASKS, *s.shape)), shapes
    )


@jax.jit
def both(params, x):
    given = cotangents()
    _, pullback = jax.vjp(trunk, params, x)
    gramian, combine = mtl.gramian_vjp(pullback, given)
    rows = [pullback(jax.tree.map(lambda c, t=t: c[t], given)) for t in range(TASKS)]
    summed = pullback(jax.tree.map(lambda c: jnp.tensordot(WEIGHTS, c, 1), given))
    return gramian, combine(WEIGHTS), rows, summed


def test_it_is_that_of_the_rows_and_combine_is_the_pullback():
    gramian, combined, rows, summed = jax.device_get(both(PARAMS, X))
    flat = np.stack(
        [
            np.concatenate(
                [
                    g.astype(np.float64).ravel()
                    for g in jax.tree.leaves(row)
                    if g.dtype == np.float32
                ]
            )
            for row in rows
        ]
    )
    wanted = flat @ flat.T
    np.testing.assert_allclose(gramian, wanted, atol=2e-6 * np.abs(wanted).max())
    assert jax.tree.structure(combined) == jax.tree.structure(summed)
    for ours, theirs in zip(*map(jax.tree.leaves, (combined, summed)), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if ours.dtype == np.float32:
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, atol=1e-6 * scale)


def test_losses_in_one_array():
    def losses(w):
        return jnp.stack([jnp.sum(w**2), jnp.sum(w), jnp.sum(jnp.sin(w))])

    w = jnp.arange(4.0)
    _, pullback = jax.vjp(losses, w)
    gramian, combine = mtl.gramian_vjp(pullback, jnp.eye(3))
    rows = np.stack([2 * w, np.ones(4), np.cos(w)])
    np.testing.assert_allclose(gramian, rows @ rows.T, rtol=1e-6)
    (direction,) = combine([1.0, 0.0, 2.0])
    np.testing.assert_allclose(direction, rows[0] + 2 * rows[2], rtol=1e-6)


def test_misuse_raises():
    _, pullback = jax.vjp(trunk, PARAMS, X)
    given = cotangents()
    with pytest.raises(ValueError, match="the same leading axis"):
        mtl.gramian_vjp(pullback, given | {"first": given["first"][:2]})
    with pytest.raises(ValueError, match=r"jnp\.eye"):
        mtl.gramian_vjp(pullback, {"first": 1.0, "second": 1.0})
    _, combine = mtl.gramian_vjp(pullback, given)
    with pytest.raises(ValueError, match="one entry for each of the 3"):
        combine(jnp.ones(2))
