"""CelebA: forty attributes of faces, yes or no.

The original folders, `Img/img_align_celeba/*.jpg`, `Anno/list_attr_celeba.txt`,
`Eval/list_eval_partition.txt`; or Kaggle's, with the two lists as CSV and the pictures
in `img_align_celeba/img_align_celeba/`; or all of it in one folder.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_optax.data.dataset import Dataset, Images, Task
from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.pictures import CONVERTED, Fault, Pictures

ATTRIBUTES = (
    "Anno/list_attr_celeba.txt",
    "list_attr_celeba.txt",
    "list_attr_celeba.csv",
)
PARTITIONS = (
    "Eval/list_eval_partition.txt",
    "list_eval_partition.txt",
    "list_eval_partition.csv",
)
FOLDERS = (
    "Img/img_align_celeba",
    "img_align_celeba/img_align_celeba",
    "img_align_celeba",
)
PARTS = {"0": "train", "1": "val", "2": "test"}
VALUES = {"-1": 0, "1": 1}


def open_celeba(
    root: Path | str,
    *,
    size: int = 64,
    attributes: Sequence[str] | None = None,
    metric: str = "f1",
) -> Dataset:
    r"""Forty binary tasks, or some of them, in the published parts.

    Pictures are as in FAMO's code: the whole one, 178 x 218, is squeezed to a square by
    bilinear interpolation, and values are in [0, 1] without normalisation. There is no
    augmentation.

    Args:
      root: the folder that holds pictures and lists.
      size: of the square, in pixels.
      attributes: names of those to learn; None is all.
      metric: "f1" for each attribute, as in FAMO's code, or "accuracy", as in others.

    Returns:
      `Dataset` with images `[size, size, 3]`, float32.

    Raises:
      BadLayout: if the pictures or a list are not there, or a part has no picture.
      BadData: if a list ends early or has no such attribute. Of one picture, when it is
        read: it is missing or damaged, an attribute is not 1 or -1, or it is in one
        list alone, or twice.
      ValueError: if `metric` is neither.

    Cost: reads the two lists, 202,599 lines each.

    When not to use it: to compare accuracies: attributes are rare (2 % are bald), and
    "no" scores well.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from mtl_optax.data.celeba import open_celeba
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     Path(folder, "img_align_celeba").mkdir()
      ...     text = "2\nSmiling Young\n1.jpg  1 -1\n2.jpg -1  1\n"
      ...     _ = Path(folder, "list_attr_celeba.txt").write_text(text)
      ...     text = "1.jpg 0\n2.jpg 1\n"
      ...     _ = Path(folder, "list_eval_partition.txt").write_text(text)
      ...     data = open_celeba(folder)
      >>> data.names, data.splits["val"].ids
      (('Smiling', 'Young'), ['2.jpg'])

    References:
      Z. Liu, P. Luo, X. Wang, X. Tang. Deep Learning Face Attributes in the Wild, ICCV
      2015.
    """
    if metric not in ("f1", "accuracy"):
        raise ValueError(f"metric {metric!r}: it is 'f1' or 'accuracy'")
    root = Path(root)
    folder = _first(root, FOLDERS, "the folder of pictures")
    labels, parts = (
        _read_list(_first(root, places, what))
        for places, what in (
            (ATTRIBUTES, "the list of attributes"),
            (PARTITIONS, "the list of parts"),
        )
    )
    if not labels.columns or len(set(labels.columns)) < len(labels.columns):
        twice = [x for x in labels.columns if labels.columns.count(x) > 1]
        found = f"the attribute {twice[0]!r} twice" if twice else "no attributes"
        raise BadData(labels.path, found, "Get the list again")
    names = labels.columns if attributes is None else tuple(attributes)
    for name in names:
        if name not in labels.columns:
            found = f"no attribute {name!r} among {', '.join(labels.columns)}"
            raise BadData(labels.path, found, "Choose from these")
    names = tuple(sorted(set(names)))
    splits = {
        split: _source(folder, labels, names, examples, size)
        for split, examples in _by_split(labels, parts).items()
    }
    for split in ("train", "val"):
        if split not in splits:
            number = next(number for number, part in PARTS.items() if part == split)
            found = f"no picture is in part {number}, {split}"
            raise BadLayout(parts.path, found, "Get the list again")
    used = ", ".join(
        str(x.relative_to(root)) for x in (folder, labels.path, parts.path)
    )
    notes = (
        f"Read: {used}.",
        f"Whole pictures are squeezed to {size} x {size}, values in [0, 1], as in "
        "FAMO's code.",
        f"{CONVERTED}.",
    )
    tasks = tuple(Task(name, "binary", 2, metric=metric) for name in names)
    return Dataset("celeba", tasks, splits, Images(size, size), notes=notes)


def _first(root: Path, places: Sequence[str], what: str) -> Path:
    """The first of these that is there."""
    for place in places:
        if (root / place).exists():
            return root / place
    looked = f"{what} is at none of {', '.join(places)}"
    raise BadLayout(root, looked, "Name the folder in which these are")


class _Row(NamedTuple):
    """A line of a list."""

    number: int  # from 1
    name: str
    text: str  # not split before it is needed: of 8 million words

    @property
    def values(self) -> list[str]:
        """What follows the name."""
        return self.text.split()


class _List(NamedTuple):
    """A list file."""

    path: Path
    columns: tuple[str, ...]  # none of the list of parts as text
    rows: list[_Row]


def _read_list(path: Path) -> _List:
    """A list, as text with spaces or as CSV."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(path, f"not a text file: {error}", "Get it again") from error
    if path.suffix == ".csv":
        columns = lines[0].split(",")[1:] if lines else []
        return _List(path, tuple(columns), list(_rows(lines, 1)))
    if path.name != Path(ATTRIBUTES[0]).name:
        return _List(path, (), list(_rows(lines, 0)))
    rows = list(_rows(lines, 2))
    if len(lines) < 2 or lines[0].strip() != str(len(rows)):
        said = f"the first line says {lines[0].strip()!r}" if lines else "nothing"
        raise BadData(path, f"{said}, and {len(rows)} pictures follow", "Get it again")
    return _List(path, tuple(lines[1].split()), rows)


def _rows(lines: list[str], first: int) -> Iterator[_Row]:
    """The lines that name pictures."""
    for number, line in enumerate(lines[first:], first + 1):
        if line.strip():
            name, *rest = line.replace(",", " ").split(None, 1)
            yield _Row(number, name, "".join(rest))


class _Labelled(NamedTuple):
    """A picture as the list of attributes has it, and what is wrong with it."""

    row: _Row
    fault: Fault | None


def _by_split(labels: _List, parts: _List) -> dict[str, list[_Labelled]]:
    """Pictures of each split. One without a valid part is a fault in "train"."""
    part_of: dict[str, _Row] = {}
    twice = set()
    for row in parts.rows:
        if row.name in part_of:
            twice.add(row.name)
        part_of[row.name] = row
    splits: dict[str, list[_Labelled]] = {}

    def add(row: _Row, part: str, fault: Fault | None) -> None:
        splits.setdefault(PARTS.get(part, "train"), []).append(_Labelled(row, fault))

    for row in labels.rows:
        listed = part_of.get(row.name, row)
        part = listed.text.strip()
        fault: Fault | None = None
        if row.name not in part_of:
            found = f"{row.name} is not in {parts.path.name}"
            fault = Fault(labels.path, found, "Add its part there", row.number)
        elif part not in PARTS:
            found = f"{row.name} has the part {part!r}"
            cure = "It is 0 (train), 1 (val) or 2 (test)"
            fault = Fault(parts.path, found, cure, listed.number)
        elif row.name in twice:
            found = f"{row.name} is listed a second time"
            fault = Fault(parts.path, found, "Leave one line of it", listed.number)
        add(row, part, fault)
    labelled = {row.name for row in labels.rows}
    for name, listed in part_of.items():
        if name not in labelled:
            found = f"{name} is not in {labels.path.name}"
            fault = Fault(parts.path, found, "Add its attributes there", listed.number)
            add(listed, listed.text.strip(), fault)
    return splits


def _source(
    folder: Path,
    labels: _List,
    names: tuple[str, ...],
    examples: list[_Labelled],
    size: int,
) -> Pictures:
    """The pictures of a split."""
    columns = [labels.columns.index(name) for name in names]
    values = np.full((len(examples), len(names)), -1, np.int8)
    faults = {}
    for index, (row, fault) in enumerate(examples):
        given = row.values
        if fault is None and len(given) != len(labels.columns):
            found = f"{len(given)} attributes of {len(labels.columns)}"
            fault = Fault(labels.path, found, "Get the list again", row.number)
        if fault is None:
            chosen = [given[column] for column in columns]
            values[index] = numbers = [VALUES.get(value, -1) for value in chosen]
            for name, value in zip(names, chosen, strict=True) if -1 in numbers else ():
                if value not in VALUES:
                    found = f"{name} of {row.name} is {value!r}"
                    fault = Fault(labels.path, found, "It is 1 or -1", row.number)
        if fault is not None:
            faults[index] = fault
    return Pictures(
        folder=folder,
        ids=[row.name for row, _ in examples],
        tasks=names,
        labels=values,
        size=size,
        listed_in=labels.path,
        rows=[row.number for row, _ in examples],
        faults=faults,
    )
