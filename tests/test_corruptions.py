"""Corruptions of small images: what each does, by numbers known otherwise."""

import numpy as np
import pytest

from mtl_optax.study.data.corruptions import (
    CORRUPTIONS,
    FAMILIES,
    SEVERITIES,
    blur,
    corrupt,
    corrupt_each,
    digital,
    enlarge,
    noise,
    weather,
)

RNG = np.random.default_rng(0)
# Bright blots on black, as digits are
IMAGES = enlarge(np.clip(RNG.normal(size=(12, 12, 12)) - 0.8, 0, 1))
GREY = IMAGES / 255


def point(size=21):
    """White in the middle of black."""
    image = np.zeros((1, size, size))
    image[0, size // 2, size // 2] = 1
    return image


def test_there_are_the_families_of_the_specification():
    assert FAMILIES == ("noise", "blur", "weather", "digital")
    families = [x.family for x in CORRUPTIONS.values()]
    assert [families.count(x) for x in FAMILIES] == [4, 4, 3, 4]


def test_enlarged_bilinearly():
    flat = enlarge(np.full((1, 12, 12), 0.5))
    assert flat.shape == (1, 32, 32)
    assert flat.dtype == np.uint8
    assert set(flat.ravel()) == {128}
    ramp = enlarge(np.tile(np.arange(8) / 8, (1, 8, 1)))[0].astype(float)
    inner = np.diff(ramp[0])[2:-2]  # four pixels for one, each a quarter higher
    np.testing.assert_allclose(inner, 255 / 32, atol=1)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_seed_is_an_image_and_more_is_worse(name):
    found = [corrupt(IMAGES, name, severity, seed=3) for severity in SEVERITIES]
    assert all(x.shape == IMAGES.shape and x.dtype == np.uint8 for x in found)
    away = [np.abs(x.astype(float) - IMAGES).mean() for x in found]
    assert away[0] > 0.5  # of 255
    assert np.all(np.diff(away) > 0)
    again = corrupt(IMAGES, name, 2, seed=3)
    np.testing.assert_array_equal(found[1], again)


@pytest.mark.parametrize("name", ["gaussian_noise", "motion_blur", "fog", "elastic"])
def test_another_seed_is_another_image(name):
    one, other = (corrupt(IMAGES, name, 3, seed) for seed in (0, 1))
    assert (one != other).any(axis=(1, 2)).all()


def test_each_image_gets_its_own():
    found = corrupt_each(IMAGES, seed=0)
    np.testing.assert_array_equal(found, corrupt_each(IMAGES, seed=0))
    assert (found != IMAGES).any(axis=(1, 2)).all()
    assert (corrupt_each(IMAGES, seed=1) != found).any(axis=(1, 2)).all()
    # One of all pairs of corruption and severity gives just this image.
    rest = [
        corrupt(IMAGES[:1], n, s, seed=0) for n in ("contrast",) for s in SEVERITIES
    ]
    alone = [corrupt_each(IMAGES[:1], seed=s) for s in range(200)]
    assert any((x == y).all() for x in alone for y in rest)


@pytest.mark.parametrize(("name", "severity"), [("frost", 1), ("fog", 0), ("fog", 6)])
def test_what_is_not_known(name, severity):
    with pytest.raises(ValueError, match=rf"no '{name}' at severity {severity}; known"):
        corrupt(IMAGES, name, severity, 0)


def test_noise_has_its_size():
    half = np.full((4, 64, 64), 0.5)
    rng = np.random.default_rng(1)
    assert noise.gaussian(half, 0.2, rng).std() == pytest.approx(0.2, rel=0.05)
    assert noise.speckle(half, 0.2, rng).std() == pytest.approx(0.1, rel=0.05)
    # Poisson: the variance of x photons over n is x / n.
    assert noise.shot(half, 8, rng).var() == pytest.approx(0.5 / 8, rel=0.05)
    found = noise.impulse(half, 0.2, rng)
    shares = [(found == value).mean() for value in (0, 0.5, 1)]
    np.testing.assert_allclose(shares, [0.1, 0.8, 0.1], atol=0.01)


def spread(image):
    """Standard deviations of a spot along rows and columns."""
    at = np.arange(image.shape[0]) - image.shape[0] // 2
    return [np.sqrt((image.sum(axis=axis) * at**2).sum()) for axis in (1, 0)]


def test_blur_keeps_light_and_has_its_width():
    gaussian = blur.gaussian(point(), 2.0, RNG)[0]
    assert gaussian.sum() == pytest.approx(1)
    np.testing.assert_allclose(spread(gaussian), 2.0, rtol=0.02)
    disk = blur.defocus(point(), 4.0, RNG)[0]
    assert disk.sum() == pytest.approx(1)
    np.testing.assert_allclose(spread(disk), 4.0 / 2, rtol=0.03)  # of a disk: r / 2
    assert disk.max() == pytest.approx(1 / (np.pi * 16), rel=0.02)


def test_motion_is_along_a_line_in_some_direction():
    moved = blur.motion(np.repeat(point(), 40, axis=0), 8.0, np.random.default_rng(0))
    np.testing.assert_allclose(moved.sum(axis=(1, 2)), 1)
    variances = np.array([spread(image) for image in moved]) ** 2
    # Of 40 points on a line 8 long, ends included; to share each between the nearest
    # pixels adds f (1 - f) a direction, up to a third in the mean.
    more = variances.sum(axis=1) - 64 / 12 * 41 / 39
    assert (more > 0).all()
    assert (more < 0.36).all()
    assert len(np.unique(variances.round(6), axis=0)) > 4


def test_zoom_is_from_the_middle():
    np.testing.assert_allclose(blur.zoom(GREY, 1.0, RNG), GREY)
    ramp = np.tile(np.linspace(-1, 1, 32), (1, 32, 1))
    shrunk = np.mean(1 / np.linspace(1, 1.5, blur.PARTS))
    np.testing.assert_allclose(blur.zoom(ramp, 1.5, RNG), shrunk * ramp, atol=1e-12)


def test_weather():
    np.testing.assert_allclose(weather.brightness(GREY, 0.3, RNG), GREY + 0.3)
    black = np.zeros((6, 32, 32))
    clouds = 2 * weather.fog(black, 1.0, RNG)
    np.testing.assert_allclose(clouds.min(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(clouds.max(axis=(1, 2)), 1)
    steps = (
        np.abs(np.diff(clouds)).mean(),
        np.abs(clouds[..., 16:] - clouds[..., :16]).mean(),
    )
    assert steps[0] < steps[1] / 2  # near pixels are alike
    assert weather.fog(GREY, 2.0, RNG).max() <= 1
    assert (weather.snow(GREY, 0.05, RNG) >= GREY).all()


def test_digital():
    flat = digital.contrast(GREY, 0.25, RNG)
    np.testing.assert_allclose(flat.mean(axis=(1, 2)), GREY.mean(axis=(1, 2)))
    np.testing.assert_allclose(flat.std(axis=(1, 2)), GREY.std(axis=(1, 2)) / 4)
    means = GREY.reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4))
    twice = np.kron(means, np.ones((1, 2, 2)))
    np.testing.assert_allclose(digital.pixelate(GREY, 16, RNG), twice)
    few = digital.pixelate(GREY, 6, RNG)
    assert [len(np.unique(image)) <= 36 for image in few] == [True] * len(few)
    assert np.abs(digital.jpeg(GREY, 100, RNG) - GREY).max() < 0.03
    ramp = np.tile(np.arange(32.0), (200, 32, 1))
    moved = digital.elastic(ramp, 1.5, RNG)[:, :, 8:-8] - ramp[:, :, 8:-8]
    assert moved.std() == pytest.approx(1.5, rel=0.1)
