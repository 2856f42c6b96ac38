"""Like weather: a layer of light over the image."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.corruptions.blur import motion

Floats = NDArray[np.float64]
Rng = np.random.Generator
ROUGHNESS = 1.5  # power of the frequency with which the clouds of fog fall off
FLAKES = 4.0  # length of a streak of snow in pixels


def brightness(images: Floats, added: float, rng: Rng) -> Floats:
    """More light everywhere."""
    del rng
    return images + added


def fog(images: Floats, weight: float, rng: Rng) -> Floats:
    """Clouds between 0 and 1, of this weight; the whole is dimmed to 1 again."""
    return (images + weight * _clouds(images.shape, rng)) / (1 + weight)


def snow(images: Floats, share: float, rng: Rng) -> Floats:
    """Streaks in about this share of the pixels, and a whiter image."""
    flakes = (rng.random(images.shape) < share).astype(float)
    streaks = np.minimum(2 * motion(flakes, FLAKES, rng), 1)
    return np.maximum(images, share) + streaks


def _clouds(shape: tuple[int, ...], rng: Rng) -> Floats:
    """White noise, its frequencies damped, in each image from 0 to 1."""
    _, height, width = shape
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(rng.normal(size=shape)) / frequency[None] ** ROUGHNESS
    clouds = np.fft.irfft2(waves, s=(height, width))
    low, high = (f(clouds, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (clouds - low) / (high - low)
