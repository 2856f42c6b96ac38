"""Every example is read once before training, to describe and to check it.

What does not fit is refused with its file, its row and a cure, or counted and left out.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.data.dataset import KINDS, Dataset, Example, Source, Task
from mtl_optax.data.faults import BadData

THREADS = 4
SHOWN = 10  # faults named in an error; the others are counted


@dataclass
class Labels:
    """What the labels of a task are in a split; adds up over examples."""

    low: float = np.inf
    high: float = -np.inf
    known: int = 0  # labels: pixels, or examples
    missing: int = 0
    without: int = 0  # examples that have none

    def add(self, target: NDArray, known: NDArray) -> None:
        """One example's."""
        values, number = target[known], int(known.sum())
        self.known += number
        self.missing += known.size - number
        self.without += number == 0
        if number:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    @property
    def share_missing(self) -> float:
        """Of all labels."""
        return self.missing / max(self.known + self.missing, 1)


@dataclass
class Scanned:
    """A split after reading."""

    rows: NDArray[np.int64]  # numbers of the examples that fit
    shapes: dict[str, tuple[int, ...]]  # of inputs and targets
    labels: dict[str, Labels]
    faults: list[BadData] = field(default_factory=list)
    checksum: int = 0  # of the examples that fit: whether data are those of before

    def sum_up(self, example: Example) -> None:
        """Adds one to the checksum."""
        inputs, targets = example["inputs"], example["targets"]
        named = inputs if isinstance(inputs, Mapping) else {"": inputs}
        for _, array in (*sorted(named.items()), *sorted(targets.items())):
            values = np.ascontiguousarray(array)
            self.checksum = zlib.crc32(values.view(np.uint8).data, self.checksum)


class Scan(NamedTuple):
    """Of a data set: split -> what was found, or split -> task -> that."""

    splits: dict[str, Any]

    def good(self, split: str) -> Any:
        """The numbers of the examples that fit, as `loading` takes them."""
        found = self.splits[split]
        if isinstance(found, Mapping):
            return {task: part.rows for task, part in found.items()}
        return found.rows

    def parts(self) -> Iterator[tuple[str, Scanned]]:
        """Each split, or each task of each split, by name."""
        for split, found in self.splits.items():
            if isinstance(found, Mapping):
                yield from ((f"{split}, {task}", part) for task, part in found.items())
            else:
                yield split, found

    @property
    def faults(self) -> list[BadData]:
        """All of them."""
        return [fault for _, part in self.parts() for fault in part.faults]

    def absent(self, split: str) -> bool:
        """Whether an example of this split has no label at all of some task."""
        found = self.splits[split]
        if isinstance(found, Mapping):
            return True
        return any(labels.without for labels in found.labels.values())

    def with_labels(self, split: str) -> list[str]:
        """The tasks that have a label in this split."""
        found = self.splits[split]
        parts = found.values() if isinstance(found, Mapping) else [found]
        every = [labels for part in parts for labels in part.labels.items()]
        return [task for task, labels in every if labels.known]


class BadDataSet(ValueError):
    """Examples that do not fit, with the first of them by name."""

    def __init__(self, faults: Sequence[BadData]):
        self.faults = list(faults)
        shown = "\n  ".join(str(fault) for fault in self.faults[:SHOWN])
        left = len(self.faults) - SHOWN
        more = f"\n  and {left} more" if left > 0 else ""
        super().__init__(
            f"{len(self.faults)} examples do not fit:\n  {shown}{more}\n"
            "Mend them, or leave them out with --skip-bad."
        )


def scan(
    dataset: Dataset,
    *,
    skip_bad: bool = False,
    tick: Callable[[str, int, int], None] = lambda split, done, of: None,
) -> Scan:
    """Reads every example of every split.

    Args:
      dataset: from one of the loaders.
      skip_bad: leave examples that do not fit out, and count them.
      tick: called with the split, how many are read, and how many there are.

    Returns:
      A :class:`Scan`.

    Raises:
      BadDataSet: for examples that do not fit, unless `skip_bad`.
      BadData: where nothing is left of a split, a task has no label in "train", or
        "val" has no label at all.
    """
    found: dict[str, Any] = {}
    seen: dict[Any, str] = {}  # ids of all splits: an example in two is a leak
    shapes: dict[str, tuple[int, ...]] = {}  # of all splits: one network reads them
    for split, source in dataset.splits.items():
        if isinstance(source, Mapping):
            found[split] = {
                name: _scanned(
                    *(own, dataset.tasks, name, f"{split}, {name}", seen, shapes, tick)
                )
                for name, own in source.items()
            }
        else:
            found[split] = _scanned(
                *(source, dataset.tasks, None, split, seen, shapes, tick)
            )
    result = Scan(found)
    if result.faults and not skip_bad:
        raise BadDataSet(result.faults)
    for name, part in result.parts():
        if not len(part.rows):
            cause = part.faults[0] if part.faults else None
            raise BadData(
                dataset.name,
                f"no example of {name} {'fits' if cause else 'is there'}",
                f"The first fault is: {cause}" if cause else "Add some",
            )
    _no_task_without_labels(dataset, result)
    return result


def _scanned(
    source: Source,
    tasks: Sequence[Task],
    own: str | None,
    split: str,
    seen: dict[Any, str],
    common: dict[str, tuple[int, ...]],
    tick: Callable[[str, int, int], None],
) -> Scanned:
    """One source; `own` is the task that it alone has labels of."""
    tasks = [task for task in tasks if own in (None, task.name)]
    part = Scanned(np.empty(0, np.int64), {}, {task.name: Labels() for task in tasks})
    rows: list[int] = []
    ids = getattr(source, "ids", None)

    def read(index: int) -> Example | BadData:
        try:
            return source[index]
        except BadData as fault:
            return fault

    with ThreadPoolExecutor(THREADS) as pool:
        for index, example in enumerate(_in_order(pool, read, len(source))):
            fault = example if isinstance(example, BadData) else None
            if fault is None and ids is not None:
                place = source.where(index)
                first = seen.setdefault((own, ids[index]), place)
                if first is not place:
                    fault = BadData(
                        *(place, f"the id {ids[index]!r} is there twice"),
                        f"Keep one of them; the other is {first}",
                    )
            if fault is None:
                fault = _fault(source.where(index), example, tasks, part, common)
            if fault is not None:
                part.faults.append(fault)
            else:
                rows.append(index)
                part.sum_up(example)
                for task in tasks:
                    target = np.asarray(example["targets"][task.name])
                    part.labels[task.name].add(target, known(task, target))
            if index % 100 == 99 or index + 1 == len(source):
                tick(split, index + 1, len(source))
    part.rows = np.asarray(rows, np.int64)
    return part


def _in_order(
    pool: ThreadPoolExecutor, read: Callable[[int], Any], number: int
) -> Iterator[Any]:
    """What `pool.map` gives, with few results held at a time."""
    block = 64
    for start in range(0, number, block):
        yield from pool.map(read, range(start, min(start + block, number)))


def known(task: Task, target: NDArray) -> NDArray[np.bool_]:
    """Which labels are there: `[H, W]` of pixels, `[]` of an example."""
    kind = KINDS[task.kind]
    if np.isnan(kind.missing):
        return ~np.isnan(target)
    if kind.channels is not None:
        return np.any(target != kind.missing, axis=-1)
    return target != kind.missing


def _fault(
    where: str,
    example: Example,
    tasks: Sequence[Task],
    part: Scanned,
    common: dict[str, tuple[int, ...]],
) -> BadData | None:
    """What no loader has to check for itself."""
    inputs = example["inputs"]
    named = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    for name, values in named.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            return BadData(
                *(where, f"{name} is not finite, first at {at}"),
                "Replace NaN and infinity in the file",
            )
    shapes = {name: np.shape(values) for name, values in named.items()}
    for task in tasks:
        if task.name not in example["targets"]:
            return BadData(where, f"there is no label of {task.name}", "Add it")
        target = np.asarray(example["targets"][task.name])
        shapes[f"target of {task.name}"] = target.shape
        kind, there = KINDS[task.kind], known(task, target)
        if kind.classes:
            wrong = there & ((target < 0) | (target >= task.size))
            if wrong.any():
                return BadData(
                    where,
                    f"label {target[wrong][0]} of {task.name} is none of the classes "
                    f"0 to {task.size - 1}",
                    f"Labels that are to be ignored are {kind.missing:g}",
                )
        elif not np.isfinite(target[there]).all():
            return BadData(
                *(where, f"a label of {task.name} is not finite"),
                f"Where there is none, write {kind.missing:g}",
            )
    for name, shape in shapes.items():
        if shape != common.get(name, shape):
            return BadData(
                *(where, f"{name} has shape {shape}, others {common[name]}"),
                "Bring all examples to one size",
            )
    common.update(shapes)
    part.shapes.update(shapes)
    return None


def _no_task_without_labels(dataset: Dataset, found: Scan) -> None:
    """A task without one label would be trained on nothing; val would tell nothing."""
    total = dict.fromkeys(dataset.names, 0)
    for name, part in found.parts():
        if name.startswith("train"):
            for task, labels in part.labels.items():
                total[task] += labels.known
    for task, number in total.items():
        if not number:
            raise BadData(
                *(dataset.name, f"{task} has no label in the split train"),
                "Leave the task out, or look whether its labels are where they belong",
            )
    if not found.with_labels("val"):
        raise BadData(
            *(dataset.name, "no task has a label in the split val"),
            "Look whether its labels are where they belong: it says what is learned",
        )
