"""What becomes of an image on the way: contrast, distortion, few pixels, JPEG."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from mtl_optax.study.data.corruptions.blur import warp

Floats = NDArray[np.float64]
Rng = np.random.Generator
SMOOTH = 3.0  # pixels over which an elastic distortion is about the same


def contrast(images: Floats, factor: float, rng: Rng) -> Floats:
    """Nearer to the mean of each image."""
    del rng
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (images - mean)


def elastic(images: Floats, deviation: float, rng: Rng) -> Floats:
    """Each pixel from elsewhere, so many pixels away, smoothly."""

    def field() -> Floats:
        rough = rng.normal(size=images.shape)
        smooth = ndimage.gaussian_filter(rough, (0, SMOOTH, SMOOTH), mode="wrap")
        return deviation * smooth / smooth.std(axis=(1, 2), keepdims=True)

    return warp(images, field(), field())


def pixelate(images: Floats, side: float, rng: Rng) -> Floats:
    """Means over so few squares a side."""
    del rng
    few = int(side)
    rows, columns = (_shares(few, size) for size in images.shape[1:])
    means = np.einsum("ah,nhw,bw->nab", rows, images, columns)
    at = [np.arange(size) * few // size for size in images.shape[1:]]
    return means[:, at[0]][:, :, at[1]]


def jpeg(images: Floats, quality: float, rng: Rng) -> Floats:
    """Written as JPEG of this quality, and read again."""
    del rng
    grey = np.rint(255 * images).astype(np.uint8)
    return np.stack([_read_again(x, int(quality)) for x in grey]) / 255


def _shares(few: int, many: int) -> Floats:
    """Means of `[many]` over `few` equal parts, `[few, many]`; edges count by share."""
    ends = np.arange(few + 1)[:, None] * many / few
    inside = np.clip(ends - np.arange(many)[None], 0, 1)  # of each pixel, below an end
    return (inside[1:] - inside[:-1]) * few / many


def _read_again(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))
