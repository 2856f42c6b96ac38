"""MultiMNIST: two digits (or garments) in one picture, and a task for each.

Pickles of Pareto-MTL and libmoon, (train images, train labels, test images, test
labels) with images `[N, 36, 36]` and labels `[N, 2]`; or torch files as Sener and
Koltun's code and Kurin et al.'s write them, `processed/multi_{training,validation,
test}.pt`, each (images `[N, 28, 28]`, left, right).
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_optax.data.dataset import Dataset, Example, Images, Source, Task
from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.pickles import read_pickle
from mtl_optax.data.torch_files import read_torch

PICKLES = (
    "multi_mnist.pickle",
    "multi_fashion.pickle",
    "multi_fashion_and_mnist.pickle",
    "mnist.pickle",
    "fashion.pickle",
    "fmnist.pickle",
)
TORCH = {"train": "multi_training", "val": "multi_validation", "test": "multi_test"}
SIDES = ("left", "right")


def open_multimnist(root: Path | str, *, name: str | None = None) -> Dataset:
    """Two classes of ten, "left" and "right", of pictures with two digits.

    Where the files have no validation part, a tenth of the training rows is it: the one
    that libmoon and Pareto HyperNetworks draw.

    Args:
      root: a folder with pickles or torch files (or with their folder `processed`), or
        one of these files.
      name: which, where a folder has several: a pickle's name without its ending, or
        "torch" for the torch files.

    Returns:
      `Dataset` with images `[H, W, 1]`, float32 in [0, 1], and splits "train", "val"
      and "test". Its notes say which file was read and how numbers were scaled.

    Raises:
      BadLayout: if there is no such file, or there are several and no `name`.
      BadData: if a file is not such a pickle or torch file, or its arrays do not belong
        together. An image without labels, or with values beyond those of most images,
        raises it when it is read.

    Cost: the files are read at once, and again in each process that reads examples; a
    worker's copy of a source has no images in it.

    When not to use it: with many loader processes: each holds all images, 155 MB for
    120,000 of uint8 and four times that for float32. None is needed, since an example
    is only scaled.

    Example:
      >>> import pickle, tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from mtl_optax.data.multimnist import open_multimnist
      >>> images, labels = np.zeros((20, 36, 36), np.uint8), np.zeros((20, 2), int)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "multi_mnist.pickle")
      ...     _ = path.write_bytes(pickle.dumps((images, labels) * 2))
      ...     data = open_multimnist(folder)
      >>> data.names, data.inputs, len(data.splits["train"])
      (('left', 'right'), Images(height=36, width=36, channels=1), 18)
      >>> data.notes[0]
      'multi_mnist.pickle: 20 training images, uint8 from 0 to 255, divided by 255.'
    """
    parts = _find_parts(Path(root), name)
    images, _ = _arrays(parts["train"])
    scale = _scale(images)
    rows = {split: np.arange(len(_arrays(part)[0])) for split, part in parts.items()}
    found = "from 0 to 255, divided by 255" if scale > 1 else "from 0 to 1"
    notes = [
        f"{parts['train'].path.name}: {len(images)} training images, {images.dtype} "
        f"{found}."
    ]
    if "val" not in parts:
        parts["val"] = parts["train"]
        rows["train"], rows["val"] = _held_out(len(images))
        notes.append(
            f"No validation part: it is {len(rows['val'])} of the training rows, those "
            "of scikit-learn's train_test_split(test_size=0.1, random_state=42), as in "
            "libmoon and Pareto HyperNetworks."
        )
    splits: dict[str, Source] = {
        split: _Pictures(parts[split], rows[split], scale)
        for split in ("train", "val", "test")
    }
    _, height, width = images.shape
    tasks = tuple(Task(side, "class", 10) for side in SIDES)
    return Dataset(
        "multimnist", tasks, splits, Images(height, width, 1), notes=tuple(notes)
    )


class _Part(NamedTuple):
    """The arrays of a split: where they are."""

    path: Path
    split: str  # "train" or "test" of a pickle
    stamp: tuple[int, int]  # of the file, so that another one is read anew


def _find_parts(root: Path, name: str | None) -> dict[str, _Part]:
    """The parts of the one data set that is asked for."""
    if not root.exists():
        raise BadLayout(root, "no such file or folder", "Name the data set's folder")
    if root.is_file() and root.suffix != ".pt":
        return _parts_of({"train": root, "test": root})
    found = {}
    folder = root.parent if root.is_file() else root
    for path in (folder / file for file in PICKLES if root.is_dir()):
        if path.is_file():
            found[path.stem] = {"train": path, "test": path}
    for place in (folder, folder / "processed"):
        torch = {split: place / f"{file}.pt" for split, file in TORCH.items()}
        torch = {split: path for split, path in torch.items() if path.is_file()}
        if torch and not {"train", "test"} <= set(torch):
            files = [path.name for path in torch.values()]
            cure = "multi_training.pt and multi_test.pt are needed: add the other"
            raise BadLayout(place, f"only {files}", cure)
        if torch:
            found["torch"] = torch
    if not found:
        looked = f"none of {', '.join(PICKLES)}, and no [processed/]multi_training.pt"
        raise BadLayout(root, looked, "Name the folder that has them, or the file")
    if name is None and len(found) > 1:
        cure = "Choose one of them by its name"
        raise BadLayout(root, f"several data sets: {', '.join(found)}", cure)
    if name is not None and name not in found:
        cure = "Choose one of these by its name"
        raise BadLayout(root, f"no {name!r}, but {', '.join(found)}", cure)
    return _parts_of(found[name or next(iter(found))])


def _parts_of(files: dict[str, Path]) -> dict[str, _Part]:
    """Parts of the file of each split."""
    stamps = {split: path.stat() for split, path in files.items()}
    return {
        split: _Part(path, split, (stamps[split].st_mtime_ns, stamps[split].st_size))
        for split, path in files.items()
    }


_LOCK = threading.Lock()  # many threads ask for examples; one of them reads the file


def _arrays(part: _Part) -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, H, W]` and labels `[M, 2]`, M <= N; read once a process."""
    with _LOCK:
        return _read_part(part)


@lru_cache(maxsize=3)
def _read_part(part: _Part) -> tuple[np.ndarray, np.ndarray]:
    """`_arrays`, from the file."""
    path = part.path
    if path.suffix == ".pt":
        read = read_torch(path)
        images, left, right = _checked(path, read, ("images", "left", "right"))
        count = min(len(left), len(right))
        labels = np.stack([left[:count], right[:count]], axis=1)
    else:
        read = _read_pickle(part._replace(split=""))
        names = ("train images", "train labels", "test images", "test labels")
        arrays = _checked(path, read, names)
        images, labels = arrays[:2] if part.split == "train" else arrays[2:]
    images = _squared(path, images)
    if labels.ndim != 2 or labels.shape[1] != 2 or len(labels) > len(images):
        found = f"{part.split} images {images.shape}, but labels {labels.shape}"
        raise BadData(path, found, "Two labels for each image are asked for")
    return images, labels


@lru_cache(maxsize=1)
def _read_pickle(part: _Part) -> Any:
    """A pickle, for both of its parts."""
    return read_pickle(part.path)


def _checked(path: Path, read: Any, names: tuple[str, ...]) -> Any:
    """What was read, if it is as many arrays of numbers."""
    cure = f"({', '.join(names)}) is asked for, arrays of numbers"
    if not isinstance(read, tuple | list) or len(read) != len(names):
        size = f" of {len(read)}" if hasattr(read, "__len__") else ""
        raise BadData(path, f"a {type(read).__name__}{size}", cure)
    for name, array in zip(names, read, strict=True):
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        if getattr(kind, "kind", "") not in ("b", "i", "u", "f") or array.ndim == 0:
            raise BadData(path, f"{name} are of {kind}", cure)
    return read


def _squared(path: Path, images: np.ndarray) -> np.ndarray:
    """`[N, H, W]` of `[N, H, W]`, `[N, H, W, 1]`, `[N, 1, H, W]` or `[N, H * H]`."""
    count, *sides = images.shape
    sides = [side for side in sides if side != 1]
    if len(sides) == 1 and round(sides[0] ** 0.5) ** 2 == sides[0]:
        sides = [round(sides[0] ** 0.5)] * 2
    if len(sides) != 2 or 0 in (count, *sides):
        cure = "[N, height, width] is asked for, N > 0"
        raise BadData(path, f"images of shape {images.shape}", cure)
    return images.reshape(count, *sides)


def _scale(images: np.ndarray) -> int:
    """What to divide by: 255, or 1 for fractions; as most images are."""
    tops = images.max(axis=(1, 2)).astype(np.float32)
    tops = tops[np.isfinite(tops)]
    whole = images.dtype.kind != "f"
    return 255 if whole or (len(tops) and np.median(tops) > 1) else 1


def _held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and validation, by scikit-learn's rule for a tenth."""
    order = np.random.RandomState(42).permutation(count)
    held = -(-count // 10)
    return order[held:], order[:held]


@dataclass(frozen=True)
class _Pictures:
    """Some rows of a part."""

    part: _Part
    rows: np.ndarray
    scale: int

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def where(self, index: int) -> str:
        """The file and the row of its arrays."""
        return f"{self.part.path}, {self.part.split} row {self.rows[index]}"

    def __getitem__(self, index: int) -> Example:
        """One picture and its two labels."""
        images, labels = _arrays(self.part)
        row = int(self.rows[index])
        if row >= len(labels):
            raise self._fault(
                row,
                f"{self.part.split} image without labels, which end at row "
                f"{len(labels) - 1}",
                "Two labels for each image are asked for",
            )
        image, found = images[row].astype(np.float32), labels[row]
        if image.min() < 0 or image.max() > self.scale:
            raise self._fault(
                row,
                f"{self.part.split} image of {image.min():g} to {image.max():g}",
                f"Most training images are from 0 to {self.scale}: bring it there",
            )
        # Far ones would be others as int32.
        if not all(float(x).is_integer() and abs(float(x)) < 2**31 for x in found):
            raise self._fault(
                row,
                f"{self.part.split} labels {found.tolist()}",
                "Give whole numbers from 0 to 9, or -1 where one is missing",
            )
        targets = dict(zip(SIDES, found.astype(np.int32), strict=True))
        return {"inputs": image[..., None] / np.float32(self.scale), "targets": targets}

    def take(self, indices: np.ndarray) -> Example:
        """Several pictures at once."""
        images, labels = _arrays(self.part)
        rows = self.rows[indices]
        chosen = images[rows].astype(np.float32)
        found = labels[np.minimum(rows, len(labels) - 1)].astype(np.float64)
        wrong = (rows >= len(labels)) | (found % 1 != 0).any(axis=1)
        wrong |= (np.abs(found) >= 2**31).any(axis=1)
        wrong |= (chosen.min(axis=(1, 2)) < 0) | (chosen.max(axis=(1, 2)) > self.scale)
        if wrong.any():
            self[int(indices[np.argmax(wrong)])]  # raises
        whole = found.astype(np.int32)
        targets = {side: whole[:, at] for at, side in enumerate(SIDES)}
        return {
            "inputs": chosen[..., None] / np.float32(self.scale),
            "targets": targets,
        }

    def _fault(self, row: int, found: str, cure: str) -> BadData:
        """`BadData` of a row."""
        return BadData(self.part.path, found, cure, row)
