"""Losses, backbones and blocks for dense prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import (
    ConvBackbone,
    FuseScales,
    ViTBackbone,
    depth_loss,
    normal_loss,
    segmentation_loss,
)
from mtl_optax.nn.backbones import position_codes
from mtl_optax.nn.blocks import bottleneck, resized

RANDOM = np.random.default_rng(0)
BACKBONES = [
    lambda **options: ConvBackbone((4, 8, 8), **options),
    lambda **options: ViTBackbone((4, 8, 8), width=8, depth=1, heads=2, **options),
]


def near(actual, wanted):
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def test_segmentation_is_the_mean_over_valid_pixels():
    logits = RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)
    labels = RANDOM.integers(-1, 5, size=(2, 3, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    terms = [
        -np.log(p[i][labels[i]]) for i in np.ndindex(labels.shape) if labels[i] >= 0
    ]
    assert 0 < len(terms) < labels.size
    near(segmentation_loss(logits, labels), np.mean(terms))
    shifted = np.where(labels < 0, 255, labels)
    near(segmentation_loss(logits, shifted, ignore_label=255), np.mean(terms))


def test_depth_leaves_out_zeros():
    depth = jnp.array([[[0.0, 1.0], [3.0, 0.0]]])
    guess = jnp.array([[[7.0, 1.5], [2.0, jnp.nan]]])
    near(depth_loss(guess, depth), 0.75)
    grads = jax.grad(depth_loss)(guess, depth)
    near(grads, [[[0, 0.5], [-0.5, 0]]])


def test_normals_of_any_length_and_of_none():
    true = jnp.array([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [0.0, 0.0, 0.0]])
    near(normal_loss(3 * true, true), 0)
    near(normal_loss(-0.5 * true, true), 2)
    loss, grads = jax.value_and_grad(normal_loss)(jnp.zeros((3, 3)), true)
    near(loss, 1)
    near(grads, -true / 2 / 1e-3)


@pytest.mark.parametrize(
    ("loss", "guess", "nothing"),
    [
        (segmentation_loss, jnp.ones((2, 3)), -jnp.ones(2, int)),
        (depth_loss, jnp.ones(2), jnp.zeros(2)),
        (normal_loss, jnp.ones((2, 3)), jnp.zeros((2, 3))),
    ],
)
@pytest.mark.slow
def test_without_a_valid_pixel_loss_and_gradient_are_zero(loss, guess, nothing):
    value, grads = jax.value_and_grad(loss)(guess, nothing)
    assert value == 0
    assert not np.any(grads)
    narrow = loss(guess.astype(jnp.bfloat16), nothing)
    assert narrow.dtype == jnp.float32


def test_losses_refuse_what_would_broadcast():
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\).*\(2, 1\)"):
        segmentation_loss(jnp.ones((2, 3)), jnp.ones((2, 1), int))
    with pytest.raises(ValueError, match=r"depth_loss: .*one shape"):
        depth_loss(jnp.ones((2, 1)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"normal_loss: .*last axis"):
        normal_loss(jnp.ones((3, 2)), jnp.ones((3, 2)))


@pytest.mark.parametrize("build", BACKBONES)
@pytest.mark.slow
def test_backbones_give_a_pyramid_in_the_dtype_asked_for(build):
    net = build(num_in=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    fuse = FuseScales((4, 8, 8), dtype=jnp.bfloat16, rngs=nnx.Rngs(1))
    maps = nnx.eval_shape(lambda net, x: net(x), net, jnp.ones((2, 20, 32, 2)))
    assert [x.shape for x in maps] == [(2, 5, 8, 4), (2, 3, 4, 8), (2, 2, 2, 8)]
    one = nnx.eval_shape(lambda net, x: net(x), fuse, maps)
    assert one.shape == (2, 5, 8, 20)
    assert {x.dtype for x in [one, *maps]} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_vit_sees_the_whole_image_and_where():
    """Each output depends on each patch; without codes a shift would be a shift."""
    net = BACKBONES[1](rngs=nnx.Rngs(0))
    image = jnp.asarray(RANDOM.normal(size=(1, 16, 16, 3)), jnp.float32)

    def corner(image):
        return net(image)[0][0, 0, 0].sum()

    grads = jnp.abs(jax.grad(corner)(image)).reshape(4, 4, 4, 4, 3).max((1, 3, 4))
    assert np.all(grads > 0)
    rolled = net(jnp.roll(image, 4, axis=1))[0]
    assert np.abs(jnp.roll(rolled, -1, axis=1) - net(image)[0]).max() > 1e-2
    codes = position_codes(6, 5, 8).reshape(30, 8)
    assert len(np.unique(codes.round(6), axis=0)) == 30


def test_vit_refuses_a_width_that_does_not_divide():
    with pytest.raises(ValueError, match=r"multiple of 4 and of heads=3; got 8"):
        ViTBackbone((4,), width=8, heads=3, rngs=nnx.Rngs(0))


def test_blocks():
    rngs = nnx.Rngs(0)
    assert bottleneck(8, 8, rngs=rngs).shortcut is None
    block = bottleneck(4, 8, rngs=rngs)
    assert block.shortcut.conv.kernel.shape == (1, 1, 4, 8)
    assert [layer.conv.kernel.shape for layer in block.layers] == [
        (1, 1, 4, 2),
        (3, 3, 2, 2),
        (1, 1, 2, 8),
    ]
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    assert resized(x, (2, 2)) is x
    near(resized(x, (2, 4))[0, 0, :, 0], [0, 0.25, 0.75, 1])
