"""Two photographs as data for dense tasks: crops, and three answers for each pixel.

Both photographs ship inside scikit-learn, so nothing is downloaded. Each is cut into
bands of columns before anything is computed, so that no pixel of the test band, and no
blur over its edge, reaches training.

The tasks are made from the pictures themselves: colours stand in for classes, blurred
luminance for depth, its slopes for surfaces. They need the machinery of real ones
(masks, metrics of their own, outputs as large as the image), and claim nothing else.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CREDITS = (
    'Data: the photographs "china.jpg" by danielbuechele, '
    "https://www.flickr.com/photos/danielbuechele/6061409035/, and "
    '"flower.jpg" by vultilion, '
    "https://www.flickr.com/photos/vultilion/6056698931/, both CC BY 2.0, as shipped "
    "by scikit-learn; cut into crops."
)

# Columns of each 427 x 640 photograph, 64 pixels between one band and the next.
BANDS = {"train": (0, 299), "val": (363, 427), "test": (491, 640)}
CROP = 64  # pixels a side
# Pixels from one crop to the next: only those of training overlap.
STRIDES = {"train": 24, "val": CROP, "test": CROP}
NUM_CLASSES = 7
IGNORED = -1  # the class of an invalid pixel
BLUR = 6.0  # pixels, the standard deviation of the Gaussian
STEEPEST = 60.0  # degrees
# Of training pixels, the share whose slope is below the steepest; others are cut to it.
SHALLOWER = 0.9
LUMINANCE = np.array([0.299, 0.587, 0.114])


class Scenes(NamedTuple):
    """Crops of one split, and the answers; a pixel is valid for all tasks or none."""

    images: NDArray[np.float32]  # [N, 64, 64, 3], between 0 and 1
    segmentation: NDArray[np.int32]  # [N, 64, 64], IGNORED where invalid
    depth: NDArray[np.float32]  # [N, 64, 64, 1] in (0, 1], 0 where invalid
    normals: NDArray[np.float32]  # [N, 64, 64, 3] of length 1, (0, 0, 0) where invalid


def photographs() -> dict[str, Scenes]:
    """The splits "train", "val" and "test"."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images) / 255.0
    bands = {name: pictures[:, :, low:high] for name, (low, high) in BANDS.items()}
    blurred = {name: blur(band @ LUMINANCE) for name, band in bands.items()}
    centres = colours(bands["train"])
    slope = np.quantile(np.hypot(*slopes(blurred["train"])), SHALLOWER)
    scale = np.tan(np.radians(STEEPEST)) / slope
    whole = {x: answers(bands[x], blurred[x], centres, scale) for x in bands}
    return {
        name: Scenes(*(crops(x, STRIDES[name]) for x in scenes))
        for name, scenes in whole.items()
    }


def colours(pictures: NDArray) -> NDArray:
    """The 7 clusters of the valid pixels' colours `[7, 3]`, dark before bright."""
    from sklearn.cluster import KMeans

    pixels = pictures[valid(pictures)][::100]
    means = KMeans(NUM_CLASSES, n_init=4, random_state=0).fit(pixels).cluster_centers_
    return means[np.argsort(means @ LUMINANCE)]


def answers(
    pictures: NDArray, blurred: NDArray, centres: NDArray, scale: float
) -> Scenes:
    """Pictures `[2, H, W, 3]` with their answers.

    Args:
      pictures: between 0 and 1.
      blurred: their luminance `[2, H, W]`.
      centres: colours of the classes `[7, 3]`.
      scale: makes slopes of slopes of luminance.
    """
    known = valid(pictures)
    distances = np.stack([((pictures - c) ** 2).sum(axis=-1) for c in centres], axis=-1)
    classes = np.where(known, distances.argmin(axis=-1), IGNORED)
    depth = np.where(known, np.clip(blurred, 1 / 255, 1), 0)
    down, right = slopes(blurred)
    steepest = np.tan(np.radians(STEEPEST)) / np.maximum(np.hypot(down, right), 1e-12)
    factor = np.minimum(scale, steepest)
    ahead = np.stack([-factor * right, -factor * down, np.ones_like(down)], axis=-1)
    units = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
    return Scenes(
        pictures.astype(np.float32),
        classes.astype(np.int32),
        depth[..., None].astype(np.float32),
        np.where(known[..., None], units, 0).astype(np.float32),
    )


def valid(pictures: NDArray) -> NDArray[np.bool_]:
    """False where a channel is saturated: what lies beyond it is not known."""
    return pictures.max(axis=-1) < 1


def blur(pictures: NDArray) -> NDArray:
    """Pictures `[2, H, W]` under a Gaussian, mirrored at their edges."""
    radius = int(3 * BLUR)
    weights = np.exp(-((np.arange(-radius, radius + 1) / BLUR) ** 2) / 2)
    for axis in (1, 2):
        margin = [(radius, radius) if axis == a else (0, 0) for a in range(3)]
        wide = np.moveaxis(np.pad(pictures, margin, mode="reflect"), axis, 0)
        size = pictures.shape[axis]
        shifted = [w * wide[i : i + size] for i, w in enumerate(weights)]
        pictures = np.moveaxis(sum(shifted) / weights.sum(), 0, axis)
    return pictures


def slopes(pictures: NDArray) -> tuple[NDArray, NDArray]:
    """Down and to the right, of `[2, H, W]`."""
    down, right = np.gradient(pictures, axis=(1, 2))
    return down, right


def crops(pictures: NDArray, stride: int) -> NDArray:
    """All squares `[N, 64, 64, ...]` on a grid over pictures `[2, H, W, ...]`."""
    _, height, width, *_ = pictures.shape
    return np.concatenate(
        [
            pictures[:, top : top + CROP, left : left + CROP]
            for top in range(0, height - CROP + 1, stride)
            for left in range(0, width - CROP + 1, stride)
        ]
    )
