"""Encoders and heads against what their papers and their docstrings say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import (
    MTAN,
    ColumnEmbedding,
    DeepLabHead,
    DenseHead,
    DistanceNet,
    ResNet,
    SegNet,
    load_weights,
    save_weights,
)
from mtl_optax.nn.segnet import max_pool, unpool

equal = np.testing.assert_array_equal
RNG = np.random.default_rng(0)


def near(actual, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=atol)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def run(net, x):
    """The outputs, compiled as one."""
    return nnx.jit(lambda net, x: net(x))(net, x)


def size_of(build):
    """Number of parameters, without making one."""
    net = nnx.eval_shape(build)
    return sum(x.size for x in jax.tree.leaves(nnx.state(net, nnx.Param)))


# --- Images ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "number"),
    [
        # torchvision's networks without `fc`
        (lambda rngs: ResNet(rngs=rngs), 11_689_512 - 513_000),
        (lambda rngs: ResNet((3, 4, 6, 3), True, rngs=rngs), 25_557_032 - 2_049_000),
        # Liu et al. count 24,981,069 for one task of 13 classes, of which 7,168 are
        # biases before normalisation, and 37,773 the head
        (lambda rngs: SegNet(rngs=rngs), 24_981_069 - 7_168 - 37_773),
    ],
)
def test_published_networks_have_the_published_size(build, number):
    assert size_of(lambda: build(nnx.Rngs(0))) == number


@pytest.mark.parametrize("wide", [False, True])
def test_a_dilated_network_computes_the_plain_map_between_its_points_too(
    wide, tmp_path
):
    """Every fourth position of its map is the plain one's, with the same weights."""
    options = {"width": 2, "rngs": nnx.Rngs(0)}
    plain = ResNet((1, 1, 1, 2), wide, **options)
    dilated = ResNet((1, 1, 1, 2), wide, dilated=True, **options)
    save_weights(plain, tmp_path / "plain.safetensors")
    load_weights(dilated, tmp_path / "plain.safetensors")
    plain.eval(), dilated.eval()
    images = normal(1, 64, 64, 3)
    seen, between = run(plain, images), run(dilated, images)
    assert (seen.shape[1:3], between.shape[1:3]) == ((2, 2), (8, 8))
    near(between[:, ::4, ::4], seen)


def test_maps_pairs_and_stages_of_a_resnet_are_one_computation():
    net = ResNet((2, 2), width=2, rngs=nnx.Rngs(0))
    net.eval()
    x = normal(2, 16, 16, 3)

    @nnx.jit
    def computed(net, x):
        whole = net(x), nnx.Sequential(*net.in_stages())(x)
        return net.maps(x), net.pairs(x), whole

    maps, pairs, whole = computed(net, x)
    for (before, after), seen, channels in zip(pairs, maps, net.channels, strict=True):
        near(after, seen)
        assert before.shape == after.shape
        assert after.shape[-1] == channels
    near(whole[0], maps[-1]), near(whole[1], maps[-1])


def test_unpooling_puts_maxima_back_where_they_were():
    x = normal(2, 4, 6, 3)
    pooled, place = max_pool(x)
    near(pooled, nnx.max_pool(x, (2, 2), strides=(2, 2)))
    back = unpool(pooled, place)
    equal(back, jnp.where(back != 0, x, 0))
    assert (back != 0).sum() == pooled.size
    equal(jax.grad(lambda x: max_pool(x)[0].sum())(x), back != 0)


def test_of_equal_values_one_is_the_maximum():
    pooled, place = max_pool(jnp.ones((1, 2, 2, 1)))
    equal(unpool(pooled, place)[0, :, :, 0], [[1, 0], [0, 0]])


def test_segnet_returns_to_the_size_of_the_image():
    net = SegNet(width=2, depths=(1, 1, 1), rngs=nnx.Rngs(0))
    pairs = nnx.eval_shape(lambda net, x: net.pairs(x), net, jnp.ones((1, 16, 24, 3)))
    assert [after.shape[1] for _, after in pairs] == [16, 8, 4, 4, 8, 16]
    assert tuple(after.shape[-1] for _, after in pairs) == net.channels
    in_stages = nnx.Sequential(*net.in_stages())
    whole = nnx.eval_shape(lambda net, x: net(x), in_stages, jnp.ones((1, 16, 24, 3)))
    assert whole.shape == (1, 16, 24, 2)
    with pytest.raises(ValueError, match="images are 20×24, and 3 halvings need"):
        net(jnp.ones((1, 20, 24, 3)))


def test_mtan_follows_segnet_down_and_up():
    def outputs(x):
        options = {"rngs": nnx.Rngs(0)}
        encoder = SegNet(width=2, depths=(2, 2), **options)
        heads = {"a": DenseHead(2, 5, x.shape[1:3], **options)}
        return MTAN(encoder, encoder.channels, heads, **options)(x)

    x = jnp.ones((2, 8, 16, 3))
    assert jax.eval_shape(outputs, x)["a"].shape == (2, 8, 16, 5)


def test_the_head_of_deeplab_sees_at_its_rates_and_the_mean():
    """How the prediction in the middle of the map depends on each position."""
    net = DeepLabHead(2, 1, (31, 31), width=16, rates=(9,), rngs=nnx.Rngs(0))
    net.eval()
    slopes = jax.jit(jax.grad(lambda x: net(x)[0, 15, 15, 0]))(normal(1, 31, 31, 2))
    seen = np.abs(np.asarray(slopes)).sum(axis=(0, -1))
    wide = [6, 15, 24]  # and one beside each, by the 3×3 convolution behind
    at = np.isin(np.arange(31), np.add.outer(wide, [-1, 0, 1]))
    floor = np.median(seen[~np.outer(at, at)])
    near(seen[~np.outer(at, at)], floor)  # the mean of the map alone
    assert floor > 0
    assert seen[np.outer(at, at)].min() > 1.01 * floor


def test_dropout_in_the_head_is_of_training_alone():
    net = DeepLabHead(2, 1, (4, 4), width=8, rates=(1,), rngs=nnx.Rngs(0))
    x = normal(2, 4, 4, 2)
    assert np.any(net(x) != net(x))
    net.eval()
    equal(net(x), net(x))


# --- Tables ---------------------------------------------------------------------------


def test_a_row_is_its_numbers_and_the_vectors_of_its_categories():
    net = ColumnEmbedding(2, (3, 5), sizes=(2, 4), rngs=nnx.Rngs(0))
    x = {"numbers": normal(6, 2), "categories": jnp.array([[0, 4], [2, 1]] * 3)}
    first, second = (np.asarray(table.embedding[...]) for table in net.tables)
    rows = net(x)
    equal(rows[:, :2], x["numbers"])
    equal(rows[:, 2:4], first[np.array([0, 2] * 3)])
    equal(rows[:, 4:], second[np.array([4, 1] * 3)])
    assert net.features == 8


def test_sizes_of_vectors_grow_with_the_fourth_root():
    net = nnx.eval_shape(
        lambda: ColumnEmbedding(0, (2, 100, 10**6, 10**7), rngs=nnx.Rngs(0))
    )
    assert [table.features for table in net.tables] == [4, 8, 64, 64]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, ()), "neither numbers nor"), ((1, (3,), (2, 2)), "2 sizes for 1 columns")],
)
def test_columns_that_make_no_rows(arguments, message):
    numbers, categories, *sizes = arguments
    with pytest.raises(ValueError, match=message):
        ColumnEmbedding(
            numbers, categories, sizes=sizes[0] if sizes else None, rngs=nnx.Rngs(0)
        )


# --- Molecules ------------------------------------------------------------------------

ATOMS = jnp.array([[6, 1, 8, 1, 0], [7, 7, 0, 0, 0]])
PLACES = normal(2, 5, 3)


def molecules(pool="sum"):
    return DistanceNet(
        9, width=8, rounds=2, cutoff=4.0, bumps=6, pool=pool, rngs=nnx.Rngs(0)
    )


def seen(net, atoms=ATOMS, positions=PLACES):
    return run(net, {"atoms": atoms, "positions": positions})


@pytest.mark.parametrize("reflect", [1.0, -1.0])
def test_molecules_move_turn_and_are_mirrored(reflect):
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    turn *= reflect * np.linalg.det(turn)
    moved = PLACES @ jnp.asarray(turn, jnp.float32) + jnp.array([[[5.0, -3.0, 1.0]]])
    net = molecules()
    near(seen(net, positions=moved), seen(net), rtol=1e-3)
    assert np.abs(seen(net, positions=1.2 * PLACES) - seen(net)).max() > 1e-3


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_atoms_have_no_order_and_padding_is_not_seen(pool):
    net, order = molecules(pool), jnp.array([3, 4, 0, 2, 1])
    near(seen(net, ATOMS[:, order], PLACES[:, order]), seen(net))
    wide = jnp.pad(ATOMS, ((0, 0), (0, 3)))
    far = jnp.pad(PLACES, ((0, 0), (0, 3), (0, 0)), constant_values=1e6)
    near(seen(net, wide, far), seen(net))


def test_molecules_apart_are_added_or_averaged():
    """Beyond the cutoff no atom hears of the other copy."""
    atoms = jnp.concatenate([ATOMS, ATOMS], axis=1)
    twice = jnp.concatenate([PLACES, PLACES + 50.0], axis=1)
    near(seen(molecules(), atoms, twice), 2 * seen(molecules()))
    near(seen(molecules("mean"), atoms, twice), seen(molecules("mean")))


def test_features_are_continuous_at_the_cutoff():
    distances = jnp.array([4.0 - 1e-3, 4.0 + 1e-3])
    positions = jnp.zeros((2, 2, 3)).at[:, 1, 0].set(distances)
    below, above = seen(molecules(), jnp.array([[1, 8]] * 2), positions)
    near(below, above)


def test_gradients_are_finite_at_padding_and_at_equal_positions():
    atoms = jnp.array([[6, 6, 1, 0, 0], [0, 0, 0, 0, 0]])
    places = PLACES.at[0, 1].set(PLACES[0, 0]).at[:, 3:].set(0.0)
    net = molecules()

    @jax.jit
    @jax.grad
    def pull_of(places):
        return net({"atoms": atoms, "positions": places}).sum()

    pull = pull_of(places)
    assert np.isfinite(pull).all()
    assert np.any(pull[0, 2] != 0)
    equal(pull[0, 3:], 0), equal(pull[1], 0)
    near(pull[0, :3].sum(axis=0), 0)
    grads = nnx.grad(lambda net: (seen(net, atoms, places) ** 2).sum())(net)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
        assert np.any(leaf != 0)


def test_another_pooling_is_named():
    with pytest.raises(ValueError, match="pool"):
        molecules("max")
