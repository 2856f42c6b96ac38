"""Folders of arrays by number: which there are, and the examples that they make."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtl_optax.data.dataset import Example
from mtl_optax.data.dense_arrays import (
    Size,
    read_depth,
    read_image,
    read_labels,
    read_normals,
    size_of,
)
from mtl_optax.data.faults import BadData, BadLayout

_READERS = {
    "depth": read_depth,
    "normals": read_normals,
    "segmentation": read_labels,
}
_NUMBER = re.compile(r"(0|[1-9]\d*)\.npy")


@dataclass(frozen=True)
class DenseFiles:
    """The examples of a split, from a folder for images and one for each task.

    Attributes:
      folder: of the split.
      parts: the number of files in each folder in it.
      tasks: the folder of each task.
      numbers: of the files, sorted.
      size: of all arrays.
    """

    folder: Path
    parts: Mapping[str, int]
    tasks: Mapping[str, str]
    numbers: tuple[int, ...]
    size: Size

    def __len__(self) -> int:
        """How many numbers there are in any of the folders."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Example:
        """Reads the image and the target of each task."""
        try:
            return {
                "inputs": read_image(self._file("image", index), self.size),
                "targets": {
                    task: _READERS[task](self._file(part, index), self.size)
                    for task, part in self.tasks.items()
                },
            }
        except FileNotFoundError as error:
            raise self._missing(index) from error

    def where(self, index: int) -> str:
        """The image, whose number all files of the example have."""
        return str(self._file("image", index))

    def where_label(self, index: int, task: str) -> str:
        """The file of the task's labels."""
        return str(self._file(self.tasks[task], index))

    def _file(self, part: str, index: int) -> Path:
        return self.folder / part / f"{self.numbers[index]}.npy"

    def _missing(self, index: int) -> BadData:
        """Names the first folder that lacks the number, and one that has it."""
        files = {part: self._file(part, index) for part in self.parts}
        lacking = [part for part, file in files.items() if not file.exists()]
        having = [part for part in files if part not in lacking]
        if not (lacking and having):
            cure = "Put the folder back, or start again without it."
            return BadData(files["image"], "was there, and is not any more", cure)
        lacks, has = lacking[0], having[0]
        return BadData(
            files[lacks],
            f"is missing, while {files[has]} was found ({self.parts[has]} files in "
            f"{has}, {self.parts[lacks]} in {lacks})",
            f"Restore it, or remove number {self.numbers[index]} from every folder.",
        )


def numbers_in(root: Path, place: str, parts: tuple[str, ...]) -> dict[str, set[int]]:
    """The numbers of the files in each folder of a split."""
    missing = [part for part in parts if not (root / place / part).is_dir()]
    if missing:
        wanted = f"{{train,val}}/{{{','.join(parts)}}}/NUMBER.npy"
        raise BadLayout(
            root,
            f"has no folder {place}/{missing[0]}; in {root} there is {_inside(root)}, "
            f"in {root / place} {_inside(root / place)}",
            f"Give the folder that holds {wanted}, as MTAN published it.",
        )
    numbers = {}
    for part in parts:
        folder = root / place / part
        files = [x.name for x in folder.glob("*.npy") if not x.name.startswith(".")]
        odd = sorted(x for x in files if not _NUMBER.fullmatch(x))
        if odd or not files:
            found = f"holds {odd[0]}" if odd else "holds no .npy file"
            raise BadLayout(folder, found, "Files are named 0.npy, 1.npy and so on.")
        numbers[part] = {int(x.removesuffix(".npy")) for x in files}
    return numbers


def first_size(folder: Path, numbers: list[int]) -> Size:
    """Of the first image that can be read: a bad first file may be skipped."""
    first: BadData | None = None
    for number in numbers:
        path = folder / f"{number}.npy"
        try:
            return size_of(path)
        except BadData as error:
            first = first or error
    assert first is not None  # there is a file
    raise BadLayout(folder, f"holds no image; {first.path} {first.found}", first.cure)


def _inside(folder: Path) -> str:
    """What a folder holds, in short."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(x.name for x in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
