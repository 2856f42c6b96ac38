"""What a loader makes of a folder on disk: tasks, and splits of examples. NumPy alone.

An example is `{"inputs": x, "targets": {task: y}}`. x is one array, or a dict of arrays
where a network reads several (columns, atoms). Every target has the form that its kind
asks for, see `KINDS`; a label that is missing has the kind's missing value, and counts
nowhere. So one batch, one loss and one metric serve all data sets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

Example = dict[str, Any]
Augment = Callable[[Example, np.random.Generator], Example]


class Kind(NamedTuple):
    """How labels of a kind of task are held."""

    dtype: Any  # of a target
    missing: float  # the value that marks a label as missing
    classes: bool = False  # whether labels are numbers from 0 to size - 1
    channels: int | None = None  # of a target's last axis; None: it has no such axis


KINDS: Mapping[str, Kind] = {
    # Of each pixel: [H, W], [H, W, 1] and [H, W, 3]; normals (0, 0, 0) are missing.
    "segmentation": Kind(np.int32, -1, classes=True),
    "depth": Kind(np.float32, 0.0, channels=1),
    "normals": Kind(np.float32, 0.0, channels=3),
    # Of an example: [].
    "class": Kind(np.int32, -1, classes=True),
    "binary": Kind(np.int32, -1, classes=True),  # one logit
    "ordinal": Kind(np.int32, -1, classes=True),  # size - 1 logits, "above level k"
    "regression": Kind(np.float32, np.nan),
}


@dataclass(frozen=True)
class Task:
    """A task of a data set.

    Attributes:
      name: of the task.
      kind: of `KINDS`.
      size: number of classes or levels (2 of `binary`), of depth 1, of normals 3, of
        regression 1.
      metric: which one rules, where a kind has several: "f1", "accuracy" or "auc" of
        `binary`; "" is the kind's usual one.
      loss: "squared" or "absolute", of `regression`.
      mean, sd: of `regression`: targets are (y - mean) / sd, and metrics are in the
        unit of y.
      unit: of y, for the report.
      given: of `binary`: the task on whose being 1 this label rests. Outputs are then
        read in the entire space: p(this) is the product of both probabilities.
    """

    name: str
    kind: str
    size: int = 1
    metric: str = ""
    loss: str = "squared"
    mean: float = 0.0
    sd: float = 1.0
    unit: str = ""
    given: str | None = None


def known(task: Task, targets: Any) -> Any:
    """Which labels are there, of arrays of NumPy or JAX.

    Args:
      task: whose labels they are.
      targets: `[...]`, or `[..., channels]` of depth and normals.

    Returns:
      `[...]` bool.
    """
    kind = KINDS[task.kind]
    if np.isnan(kind.missing):
        return targets == targets
    there = targets != kind.missing
    return there if kind.channels is None else there.any(axis=-1)


class Source(Protocol):
    """Examples of a split, by number; reads what it needs when it is asked.

    A source in memory may have `take(indices) -> Example`, too: several examples at
    once, with a leading axis, or the `BadData` of one of them. Further `ids`, one a
    number, where examples have names that must not be there twice; and
    `where_label(index, task)`, where labels have files of their own.
    """

    def __len__(self) -> int:
        """How many there are, the bad ones included."""

    def __getitem__(self, index: int) -> Example:
        """The example; raises `BadData` where its files do not hold one."""

    def where(self, index: int) -> str:
        """Its file, and its row where a file has many: for messages."""


class Images(NamedTuple):
    """Inputs `[height, width, channels]`, float32 as networks read them."""

    height: int
    width: int
    channels: int = 3


class Columns(NamedTuple):
    """Inputs `{"numbers": [N] float32, "categories": [C] int32}`, of a table's row."""

    numbers: int
    categories: tuple[int, ...]  # how many values each has, the unknown (0) included


class Molecules(NamedTuple):
    """Inputs `{"atoms": [A] int32, 0 for none, "positions": [A, 3] float32}`."""

    atoms: int  # A, of the largest molecule
    elements: int  # numbers of elements are below this


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    Attributes:
      name: of the command line.
      tasks: sorted by name.
      splits: "train", "val", and "test" where there is one. A split is one `Source`;
        or, where tasks have examples of their own, a dict from tasks to theirs.
      inputs: what networks read.
      augment: applied to training examples, or None.
      notes: what the user should know of this folder: the layout that was found, what
        was filled in. One sentence each.
    """

    name: str
    tasks: tuple[Task, ...]
    splits: Mapping[str, Source | Mapping[str, Source]]
    inputs: Images | Columns | Molecules
    augment: Augment | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def by_task(self) -> bool:
        """Whether tasks have examples of their own."""
        return isinstance(self.splits["train"], Mapping)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks, in the order of losses."""
        return tuple(task.name for task in self.tasks)
