"""The usual corruptions of images, for small grey ones: made on the host, by a seed.

The families of Hendrycks and Dietterich (2019), at severities 1 to 5: noise, blur,
weather and digital. Theirs are for photographs of 224 pixels; the constants here are
ours, for digits on 32 x 32 pixels, and so is all code. Frost needs photographs, and is
left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_optax.study.data.corruptions import blur, digital, noise, weather

SIDE = 32
SEVERITIES = (1, 2, 3, 4, 5)
Images = NDArray[np.uint8]  # [N, SIDE, SIDE]


class Corruption(NamedTuple):
    """One of the fifteen."""

    family: str
    # (images [N, H, W] between 0 and 1, strength, generator) -> images of any range
    make: Callable[..., NDArray[np.float64]]
    strengths: tuple[float, ...]  # of severities 1 to 5


CORRUPTIONS = {
    # Standard deviation; photons of a white pixel; share of pixels; factor of the pixel
    "gaussian_noise": Corruption(
        "noise", noise.gaussian, (0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot_noise": Corruption("noise", noise.shot, (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption("noise", noise.impulse, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": Corruption("noise", noise.speckle, (0.2, 0.35, 0.5, 0.7, 1.0)),
    # Pixels: standard deviation, radius, length. Zoom: the largest magnification
    "gaussian_blur": Corruption("blur", blur.gaussian, (1, 1.5, 2, 2.5, 3)),
    "defocus_blur": Corruption("blur", blur.defocus, (1.5, 2, 3, 4, 5)),
    "motion_blur": Corruption("blur", blur.motion, (4, 6, 8, 11, 14)),
    "zoom_blur": Corruption("blur", blur.zoom, (1.15, 1.25, 1.35, 1.45, 1.6)),
    # Weight of the fog; what is added; share of snow
    "fog": Corruption("weather", weather.fog, (0.5, 0.8, 1.2, 1.7, 2.5)),
    "brightness": Corruption("weather", weather.brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "snow": Corruption("weather", weather.snow, (0.01, 0.02, 0.035, 0.05, 0.08)),
    # Factor of what differs from the mean; pixels; pixels a side; quality
    "contrast": Corruption("digital", digital.contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic": Corruption("digital", digital.elastic, (0.5, 0.8, 1.1, 1.4, 1.8)),
    "pixelate": Corruption("digital", digital.pixelate, (16, 12, 10, 8, 6)),
    "jpeg": Corruption("digital", digital.jpeg, (20, 12, 8, 5, 2)),
}
FAMILIES = tuple(dict.fromkeys(x.family for x in CORRUPTIONS.values()))


def enlarge(images: NDArray[np.floating]) -> Images:
    """Images `[N, H, W]` between 0 and 1, on SIDE x SIDE pixels, bilinearly."""
    grey = np.rint(255 * np.asarray(images)).astype(np.uint8)
    size, way = (SIDE, SIDE), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(x).resize(size, way)) for x in grey])


def corrupt(images: Images, name: str, severity: int, seed: int) -> Images:
    """All images, with one of CORRUPTIONS at a severity from 1 to 5.

    The same seed gives the same images again; it is drawn from for each of `images`.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(
            f"corrupt: no {name!r} at severity {severity!r}; known are "
            f"{', '.join(CORRUPTIONS)}, each at severities 1 to 5."
        )
    _, make, strengths = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name), severity])
    found = make(np.asarray(images) / 255, strengths[severity - 1], rng)
    return np.rint(255 * np.clip(found, 0, 1)).astype(np.uint8)


def corrupt_each(images: Images, seed: int) -> Images:
    """Each image with a corruption and a severity of its own, drawn uniformly."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(CORRUPTIONS), size=len(images))
    severities = rng.choice(SEVERITIES, size=len(images))
    found = np.empty_like(images)
    for kind, name in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            at = np.flatnonzero((kinds == kind) & (severities == severity))
            if len(at):
                found[at] = corrupt(images[at], name, severity, seed)
    return found
