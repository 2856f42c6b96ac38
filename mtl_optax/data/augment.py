"""Augmentation of dense tasks as MTAN's code has it: scale, crop, flip. NumPy alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mtl_optax.data.dataset import Example

SCALES = (1.0, 1.2, 1.5)


def scale_crop_flip(example: Example, rng: np.random.Generator) -> Example:
    """Enlarges a random part of a picture to its whole, and mirrors half of them.

    A scale s of 1, 1.2 or 1.5 is drawn, and a part of int(H / s) x int(W / s) pixels,
    which is resized to H x W: images and normals bilinearly with corners aligned,
    labels and depth by the nearest pixel above and to the left. Depth is divided by s,
    since what is larger is nearer. With probability 1/2 columns are reversed, and n_x
    changes its sign.

    This is `RandomScaleCrop` of LibMTL, MTAN, CAGrad, Nash-MTL and FAMO, with what
    follows from it: interpolated normals are not made unit vectors again, so beside an
    edge or a missing pixel they are shorter and weigh less in the loss; a pixel of
    normals is missing only where all that it is made of is. Normals keep their
    direction when the depth is divided, and disparity (Cityscapes) is divided like
    depth. Each is an approximation of the published code, kept for its numbers' sake.

    Args:
      example: `inputs` `[H, W, C]` and `targets` of any of "depth" `[H, W, 1]`,
        "normals" `[H, W, 3]` and "segmentation" `[H, W]`; left as it is.
      rng: four numbers are drawn, whatever they come to.

    Returns:
      An example of the same shapes and dtypes, which may share memory with this one.

    Raises:
      KeyError: for a target of another name.

    Cost: one read and two writes of the example in size; a few milliseconds of one
    core for 288 x 384 with three tasks.

    When not to use it: on validation or test examples.

    Example:
      >>> import numpy as np
      >>> from mtl_optax.data.augment import scale_crop_flip
      >>> wall = np.full((4, 6, 1), 3.0, np.float32)
      >>> example = {"inputs": wall, "targets": {"depth": wall}}
      >>> other = scale_crop_flip(example, np.random.default_rng(0))
      >>> sorted({float(x) for x in other["targets"]["depth"].flat})
      [2.0]

    References:
      `create_dataset.py` of `MTAN <https://github.com/lorenmt/mtan>`_, after its issue
      34.
    """
    height, width = example["inputs"].shape[:2]
    scale = SCALES[rng.integers(len(SCALES))]
    rows = _draw_span(height, scale, rng)
    columns = _draw_span(width, scale, rng)
    flip = rng.random() < 0.5
    resize = {"depth": _nearest, "normals": _bilinear, "segmentation": _nearest}

    def moved(array: np.ndarray, how: Callable[..., np.ndarray]) -> np.ndarray:
        if scale != 1:
            array = how(array, rows, columns)
        return array[:, ::-1] if flip else array

    targets = {name: moved(y, resize[name]) for name, y in example["targets"].items()}
    if "depth" in targets:
        targets["depth"] = targets["depth"] / np.float32(scale)
    if "normals" in targets and flip:
        targets["normals"] = targets["normals"] * np.array([-1, 1, 1], np.float32)
    return {"inputs": moved(example["inputs"], _bilinear), "targets": targets}


class _Span(NamedTuple):
    """A part of an axis that is resized to the whole of it."""

    start: int
    size: int
    whole: int


def _draw_span(whole: int, scale: float, rng: np.random.Generator) -> _Span:
    size = int(whole / scale)
    return _Span(int(rng.integers(whole - size + 1)), size, whole)


def _nearest(array: np.ndarray, rows: _Span, columns: _Span) -> np.ndarray:
    """The pixel whose square holds the upper left corner of the new one."""
    down, right = (
        span.start + np.arange(span.whole) * span.size // span.whole
        for span in (rows, columns)
    )
    return array.take(down, axis=0).take(right, axis=1)


def _bilinear(array: np.ndarray, rows: _Span, columns: _Span) -> np.ndarray:
    """First and last pixels stay; between them in equal steps."""
    for axis, span in enumerate((rows, columns)):
        at = np.linspace(span.start, span.start + span.size - 1, span.whole)
        below = at.astype(np.intp)
        above = np.minimum(below + 1, span.start + span.size - 1)
        share = (at - below).astype(array.dtype)
        share = share.reshape((-1,) + (1,) * (array.ndim - 1 - axis))
        low = array.take(below, axis=axis)
        array = array.take(above, axis=axis)
        array -= low
        array *= share
        array += low
    return array
