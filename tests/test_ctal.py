"""Cross-task affinities: against loops, and what the specification says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import CTAL, AffinityLearning
from mtl_optax.nn.cross_task_affinity import affinity, diffuse, fuse, fused_affinity

GRID, P, C, K = (3, 4), 12, 5, 3
TASKS = ("z", "a", "m")  # not sorted: a dict of theirs has another order in JAX
RANDOM = np.random.default_rng(0)


def drawn(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


FEATURES = [drawn(2, *GRID, C) for _ in range(K)]
VALUES = [drawn(2, *GRID, C) for _ in range(K)]
KERNEL, BIAS = drawn(3, 3, K, P), drawn(P)
ROWS = [x.reshape(2, P, C) for x in FEATURES]


def near(actual, wanted, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=atol)


def layer(**options):
    return CTAL(K, C, GRID, tasks=TASKS, rngs=nnx.Rngs(0), **options)


def by_loops():
    """A `[B, q, p]` and D, from the definition."""
    unit = [np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True) for x in ROWS]
    fused = np.zeros((2, P, P))
    for p in range(P):
        for q in range(P):
            fused[:, q, p] = BIAS[p]
            for k in range(K):
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        row, column = q // GRID[1] + i, q % GRID[1] + j
                        if 0 <= row < GRID[0] and 0 <= column < GRID[1]:
                            there = row * GRID[1] + column
                            cosine = np.sum(unit[k][:, p] * unit[k][:, there], axis=-1)
                            fused[:, q, p] += KERNEL[i + 1, j + 1, k, p] * cosine
    out = [np.zeros((2, P, C)) for _ in range(K)]
    for k in range(K):
        for p in range(P):
            for q in range(P):
                value = VALUES[k].reshape(2, P, C)[:, q]
                out[k][:, p] += fused[:, q, p, None] * value
    return fused, out


@pytest.mark.parametrize("checkpoint", [0, 1, 4])
@pytest.mark.slow
def test_equals_the_definition(checkpoint):
    fused, out = by_loops()
    near(fused_affinity(FEATURES, KERNEL, BIAS), fused)
    found = diffuse(FEATURES, VALUES, KERNEL, BIAS, checkpoint=checkpoint)
    for actual, wanted in zip(found, out, strict=True):
        near(actual.reshape(2, P, C), wanted)


def test_fuse_is_the_grouped_convolution():
    maps = [drawn(2, *GRID, P) for _ in range(K)]
    interleaved = jnp.stack(maps, axis=-1).reshape(2, *GRID, P * K)
    wanted = jax.lax.conv_general_dilated(
        interleaved,
        KERNEL,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=P,
    )
    near(fuse(maps, KERNEL, BIAS), wanted + BIAS[None, None, None])


def test_affinity_is_symmetric_and_blind_to_lengths():
    found = affinity(ROWS[0])
    near(found, found.mT)
    near(jnp.diagonal(found, axis1=1, axis2=2), 1)
    lengths = jnp.asarray(RANDOM.uniform(1e-3, 1e3, (2, P, 1)), jnp.float32)
    near(affinity(ROWS[0] * lengths), found)
    near(affinity(ROWS[0], ROWS[0][:, 3:5]), found[:, :, 3:5])


def test_a_position_without_features_has_no_affinity_and_no_gradient():
    x = ROWS[0].at[:, 2].set(0)
    found, pull = jax.vjp(affinity, x)
    assert not np.any(found[:, 2])
    grads = pull(jnp.ones_like(found))[0]
    assert np.all(np.isfinite(grads))
    assert not np.any(grads[:, 2])
    assert np.any(grads[:, 3])


def test_order_of_tasks_is_that_of_the_kernel():
    order = [2, 0, 1]
    fused = fused_affinity(FEATURES, KERNEL, BIAS)
    moved = [FEATURES[k] for k in order]
    near(fused_affinity(moved, KERNEL[:, :, jnp.array(order)], BIAS), fused)
    assert np.abs(fused_affinity(moved, KERNEL, BIAS) - fused).max() > 0.1


def test_each_position_sees_its_own_affinities_alone():
    maps = [drawn(1, *GRID, P) for _ in range(K)]
    p = 5
    grads = jax.grad(lambda maps: jnp.sum(fuse(maps, KERNEL, BIAS)[..., p]))(maps)
    for grad in grads:
        assert np.all(grad[..., p] != 0)
        assert not np.any(np.delete(np.asarray(grad), p, axis=-1))


def test_a_centred_kernel_gives_the_mean_affinity():
    centre = jnp.zeros((3, 3, K, P)).at[1, 1].set(1 / K)
    wanted = sum(affinity(x) for x in ROWS) / K
    near(fused_affinity(FEATURES, centre, jnp.zeros(P)), wanted)


def test_blends_by_gamma():
    maps = dict(zip(TASKS, FEATURES, strict=True))
    for task, y in layer(gamma=0.0)(maps).items():
        np.testing.assert_array_equal(y, maps[task])
    net = layer(gamma=0.3)
    values = [net.own[task](maps[task]) for task in TASKS]
    diffused = diffuse(FEATURES, values, net.kernel[...], net.bias[...])
    outputs, again = net(maps), layer(gamma=0.3, checkpoint=4)(maps)
    for task, d in zip(TASKS, diffused, strict=True):
        near(outputs[task], 0.3 * d + 0.7 * maps[task])
        near(again[task], outputs[task])
    near(net.fused(maps), fused_affinity(FEATURES, net.kernel[...], net.bias[...]))


def test_number_of_parameters():
    shapes = jax.eval_shape(lambda: nnx.state(layer(), nnx.Param))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count == P * (9 * K + 1) + K * (9 * C**2 + C)
    fusion = 16 * 32 * (9 * 3 + 1), 72 * 96 * (9 * 3 + 1)
    assert fusion == (14_336, 193_536)


@pytest.mark.parametrize("checkpoint", [1, 4])
@pytest.mark.slow
def test_checkpoints_change_nothing_but_memory(checkpoint):
    def loss(checkpoint, *arrays):
        return sum(
            jnp.sum(jnp.sin(x * (k + 1)))
            for k, x in enumerate(diffuse(*arrays, checkpoint=checkpoint))
        )

    grads = jax.jit(jax.grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)
    arrays = FEATURES, VALUES, KERNEL / 9, BIAS / 9
    pairs = zip(
        *(jax.tree.leaves(grads(n, *arrays)) for n in (checkpoint, 0)), strict=True
    )
    for actual, wanted in pairs:
        near(actual, wanted, atol=1e-4)


def test_checkpoints_save_memory():
    """The step's temporary arrays, as compiled; a benchmark has the numbers."""
    maps = {task: jnp.ones((1, 16, 16, 4)) for task in ("a", "b")}

    def temporaries(**options):
        net = CTAL(len(maps), 4, (16, 16), tasks=maps, rngs=nnx.Rngs(0), **options)
        graphdef, params = nnx.split(net)

        def loss(params):
            outputs = nnx.merge(graphdef, params)(maps)
            return sum(jnp.sum(y**2) for y in outputs.values())

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = temporaries()
    assert temporaries(checkpoint=8) < 0.5 * plain
    assert temporaries(pool=2) < 0.25 * plain


def test_pooled_affinities_are_those_of_means():
    maps = {task: drawn(1, 4, 6, C) for task in TASKS}
    net = CTAL(K, C, (4, 6), tasks=TASKS, pool=2, rngs=nnx.Rngs(0))
    means = {t: x.reshape(1, 2, 2, 3, 2, C).mean(axis=(2, 4)) for t, x in maps.items()}
    small = CTAL(K, C, (2, 3), 1.0, tasks=TASKS, rngs=nnx.Rngs(0))
    nnx.update(small, nnx.state(net))
    near(net.fused(maps), small.fused(means))
    for task, d in small(means).items():
        wide = jax.image.resize(d, (1, 4, 6, C), "bilinear")
        near(net(maps)[task], 0.05 * wide + 0.95 * maps[task])


def test_wrong_grids_say_what_to_change():
    maps = {task: jnp.ones((1, 4, 4, C)) for task in TASKS}
    with pytest.raises(ValueError, match=r"'z' is \(4, 4\).*grid=\(3, 4\).*resize the"):
        layer()(maps)
    with pytest.raises(ValueError, match=r"of tasks \['z'\], and it was built for"):
        layer()({"z": FEATURES[0]})
    with pytest.raises(ValueError, match=r"pool=2 does not divide grid=\(3, 4\)"):
        layer(pool=2)
    with pytest.raises(ValueError, match=r"checkpoint=5 parts do not divide 12"):
        layer(checkpoint=5)


def test_affinity_learning_doubles_the_size():
    net = AffinityLearning(TASKS, 6, C, grid=GRID, rngs=nnx.Rngs(0))
    maps = {task: jnp.ones((2, *GRID, 6)) for task in TASKS}
    shapes = nnx.eval_shape(lambda net, maps: net(maps), net, maps)
    assert {task: y.shape for task, y in shapes.items()} == dict.fromkeys(
        TASKS, (2, 6, 8, C)
    )
