"""Noise of the sensor: what is random in each pixel."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rng = np.random.Generator


def gaussian(images: Floats, deviation: float, rng: Rng) -> Floats:
    """The same everywhere, as of electronics."""
    return images + rng.normal(scale=deviation, size=images.shape)


def shot(images: Floats, photons: float, rng: Rng) -> Floats:
    """So many of a white pixel on average, and fewer of a darker one."""
    return rng.poisson(images * photons) / photons


def impulse(images: Floats, share: float, rng: Rng) -> Floats:
    """This share of the pixels is black or white, half of them each."""
    drawn = rng.random(images.shape)
    return np.where(drawn < share, drawn < share / 2, images)


def speckle(images: Floats, deviation: float, rng: Rng) -> Floats:
    """In proportion to the pixel."""
    return images * (1 + rng.normal(scale=deviation, size=images.shape))
