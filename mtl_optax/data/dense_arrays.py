"""Arrays of dense tasks, each from its .npy file: checked, and in the form of `KINDS`.

Files are read with `allow_pickle=False`: what would run code is refused unread.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_optax.data.faults import BadData

_LARGEST = 2**31 - 1  # of int32
_CHANNELS_FIRST = "Channels stand first: save np.moveaxis(array, 0, -1)."


class Size(NamedTuple):
    """What height and width all arrays of a data set have, and the file that set it."""

    height: int
    width: int
    of: Path


def size_of(path: Path) -> Size:
    """Of an image, from which all others must not differ."""
    shape = _read(path).shape
    if len(shape) == 3 and shape[2] == 3:
        return Size(shape[0], shape[1], path)
    cure = _CHANNELS_FIRST if shape[:1] == (3,) else "Save colours on the last axis."
    raise BadData(path, f"has shape {shape}, which is no [height, width, 3]", cure)


def read_image(path: Path, size: Size) -> np.ndarray:
    """`[H, W, 3]` float32, values as they are on disk."""
    cure = "Images here are floats from 0 to 1: save (array / 255).astype('float32')."
    return _floats(path, size, 3, cure)


def read_depth(path: Path, size: Size) -> np.ndarray:
    """`[H, W, 1]` float32, not negative; 0 where there is none."""
    cure = "Save float32, in metres for NYUv2 (depth pictures may hold millimetres)."
    depth = _finite(path, _floats(path, size, 1, cure))
    if (depth < 0).any():
        cure = "Pixels without depth have 0: save np.maximum(array, 0)."
        raise BadData(path, f"is negative {_first(depth[..., 0] < 0)}", cure)
    return depth


def read_normals(path: Path, size: Size) -> np.ndarray:
    """`[H, W, 3]` float32; (0, 0, 0) where there is none."""
    cure = "Save unit vectors as float32: of 8-bit pictures, array / 127.5 - 1."
    return _finite(path, _floats(path, size, 3, cure))


def read_labels(path: Path, size: Size) -> np.ndarray:
    """`[H, W]` int32, of whole numbers in any type; -1 where there is none."""
    array = _read(path)
    _same_shape(path, array, size, ())
    if array.dtype.kind not in "iuf":
        cure = "Save the numbers of classes, -1 where there is none, as int32."
        raise BadData(path, f"holds {array.dtype}, no numbers of classes", cure)
    wide = array.astype(np.float64)
    wrong = ~((np.rint(wide) == wide) & (np.abs(wide) <= _LARGEST))
    if wrong.any():
        cure = "Labels are whole numbers; a picture of them is resized by nearest only."
        raise BadData(path, f"has the label {array[wrong][0]} {_first(wrong)}", cure)
    labels = array.astype(np.int32)
    if (labels == 255).any():
        cure = "Pixels without a class have -1 here: save np.where(array == 255, -1, "
        cure += "array.astype('int32'))."
        raise BadData(path, f"has the label 255 {_first(labels == 255)}", cure)
    return labels


def _read(path: Path) -> np.ndarray:
    """The array of the file, of whatever type and shape."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # of many types where a header is damaged
        cure = (
            "Write it again with np.save if it was cut short; a pickle, or an array of "
            "Python objects, may run code and is never read."
        )
        raise BadData(path, f"cannot be read as .npy ({error})", cure) from error


def _floats(path: Path, size: Size, channels: int, cure: str) -> np.ndarray:
    """As float32; floating-point numbers only, whose unit needs no guess."""
    array = _read(path)
    if array.dtype.kind != "f":
        raise BadData(path, f"holds {array.dtype}, no floating-point numbers", cure)
    _same_shape(path, array, size, (channels,))
    with np.errstate(over="ignore"):  # to infinity, which is found as such
        return array.astype(np.float32, copy=False)


def _finite(path: Path, array: np.ndarray) -> np.ndarray:
    wrong = ~np.isfinite(array).all(axis=-1)
    if wrong.any():
        found = f"is not finite ({array[wrong][0].tolist()}) {_first(wrong)}"
        raise BadData(path, found, "Pixels that are not known have 0 in all channels.")
    return array


def _same_shape(
    path: Path, array: np.ndarray, size: Size, channels: tuple[int, ...]
) -> None:
    """Raises for another shape, with the cure for axes in another order."""
    pixels = size[:2]
    if array.shape == (*pixels, *channels):
        return
    cures = {
        (*channels, *pixels): _CHANNELS_FIRST,
        (*pixels, 1): "Save array[..., 0].",
        pixels: "Save array[..., None].",
    }
    raise BadData(
        path,
        f"has shape {array.shape}, where {(*pixels, *channels)} is asked for, in the "
        f"size of {size.of}",
        cures.get(array.shape, "All arrays of a data set have one size: make it so."),
    )


def _first(wrong: np.ndarray) -> str:
    row, column = np.argwhere(wrong)[0]
    return f"at row {row}, column {column} of the picture"
