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

from mtl_optax.data.dataset import KINDS, Dataset, Example, Source, Task, known
from mtl_optax.data.faults import BadData

THREADS = 4
FEW, MANY = 16, 4096  # examples held at a time: files, and rows in memory
SHOWN = 10  # faults named in an error; the others are counted


@dataclass
class Labels:
    """What the labels of a task are in a split; adds up over examples."""

    low: float = np.inf
    high: float = -np.inf
    known: int = 0  # labels: pixels, or examples
    missing: int = 0
    without: int = 0  # examples that have none

    def add(self, targets: NDArray, known: NDArray) -> None:
        """Those of some examples, the first axis."""
        values, number = targets[known], int(known.sum())
        self.known += number
        self.missing += known.size - number
        self.without += int((~known.reshape(len(known), -1).any(axis=1)).sum())
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
    common: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of all splits
    checksum: int = 0  # of all numbers in order: tells whether files have changed

    def describe(self, tasks: Sequence[Task], batch: Example, of_one: bool) -> None:
        """Adds one example, or some with a leading axis."""
        for task in tasks:
            target = np.asarray(batch["targets"][task.name])
            target = target[None] if of_one else target
            self.labels[task.name].add(target, known(task, target))
            self.checksum = zlib.crc32(target.tobytes(), self.checksum)
        for values in _named(batch["inputs"]).values():
            self.checksum = zlib.crc32(values.tobytes(), self.checksum)


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
            f"{how_many(len(self.faults))} not fit:\n  {shown}{more}\n"
            "Mend what is named, or leave it out with --skip-bad."
        )


def how_many(number: int) -> str:
    """The subject of a sentence on so many examples."""
    return "1 example does" if number == 1 else f"{number} examples do"


def scan(
    dataset: Dataset,
    *,
    skip_bad: bool = False,
    tick: Callable[[str, int, int], None] = lambda split, done, of: None,
) -> Scan:
    r"""Reads every example of every split.

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

    Cost: the time of reading all files; rows in memory are read many at once.

    When not to use it: on data sets too large to be read before they are trained on.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from mtl_optax.data.table import open_table
      >>> toml = '''
      ... file = "people.csv"
      ... inputs.numeric = ["age"]
      ... tasks.ill.kind = "binary"
      ... tasks.days.kind = "regression"
      ... splits.val = 0.25
      ... '''
      >>> rows = [f"{age},{age % 2},{age / 10}" for age in range(20, 60)]
      >>> root = Path(tempfile.mkdtemp())
      >>> _ = (root / "people.csv").write_text("\n".join(["age,ill,days", *rows]))
      >>> _ = (root / "table.toml").write_text(toml)
      >>> dataset = open_table(root)
      >>> from mtl_optax.data.scan import scan
      >>> found = scan(dataset)
      >>> {name: len(part.rows) for name, part in found.parts()}
      {'train': 30, 'val': 10}
      >>> found.splits["train"].labels["ill"].share_missing
      0.0
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
    shapes: dict[str, tuple[int, ...]],
    tick: Callable[[str, int, int], None],
) -> Scanned:
    """One source; `own` is the task that it alone has labels of."""
    tasks = [task for task in tasks if own in (None, task.name)]
    labels = {task.name: Labels() for task in tasks}
    part = Scanned(np.empty(0, np.int64), {}, labels, common=shapes)
    rows: list[NDArray[np.int64]] = []
    ids = getattr(source, "ids", None)
    size = MANY if hasattr(source, "take") else FEW

    def read(index: int) -> Example | BadData:
        try:
            return source[index]
        except BadData as fault:
            return fault

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(source), size):
            chunk = np.arange(start, min(start + size, len(source)))
            batch = _taken(source, chunk, tasks, part)
            examples: list[Any] | None = None
            if batch is None:
                examples = list(pool.map(read, chunk))
            fits = []
            for at, index in enumerate(map(int, chunk)):
                fault = None
                if examples is not None:
                    fault = _fault(source, index, examples[at], tasks, part)
                if fault is None and ids is not None:
                    fault = _twice((own, ids[index]), source.where(index), seen)
                if fault is not None:
                    part.faults.append(fault)
                    continue
                fits.append(at)
                if examples is not None:
                    part.describe(tasks, examples[at], of_one=True)
            if batch is not None:
                part.describe(tasks, _some(batch, fits), of_one=False)
            rows.append(chunk[fits])
            tick(split, int(chunk[-1]) + 1, len(source))
    part.rows = np.concatenate([part.rows, *rows])
    return part


def _taken(
    source: Source, chunk: NDArray, tasks: Sequence[Task], part: Scanned
) -> Example | None:
    """Many examples at once, of a source that can; None where one does not fit."""
    if not hasattr(source, "take"):
        return None
    try:
        batch: Example = source.take(chunk)
    except BadData:
        return None
    first = {
        "inputs": {name: x[0] for name, x in _named(batch["inputs"]).items()},
        "targets": {name: y[0] for name, y in batch["targets"].items()},
    }
    fits = _fault(source, int(chunk[0]), first, tasks, part) is None  # of shapes, too
    fits &= all(np.isfinite(x).all() for x in _named(batch["inputs"]).values())
    for task in tasks:
        target = batch["targets"][task.name]
        fits &= not _wrong(task, target, known(task, target)).any()
    return batch if fits else None


def _some(batch: Example, places: list[int]) -> Example:
    """Some rows of a batch."""
    inputs = {name: x[places] for name, x in _named(batch["inputs"]).items()}
    targets = {name: y[places] for name, y in batch["targets"].items()}
    return {"inputs": inputs, "targets": targets}


def _twice(key: Any, place: str, seen: dict[Any, str]) -> BadData | None:
    """A fault if an example with this id was there before."""
    first = seen.setdefault(key, place)
    if first is place:
        return None
    return BadData(
        *(place, f"the id {key[1]!r} is there twice"),
        f"Keep one of them; the other is {first}",
    )


def _wrong(task: Task, target: NDArray, there: NDArray) -> NDArray[np.bool_]:
    """Which of the labels that are there can be none."""
    if KINDS[task.kind].classes:
        return there & ((target < 0) | (target >= task.size))
    finite = np.isfinite(target)
    return there & ~(finite if finite.ndim == there.ndim else finite.all(axis=-1))


def _fault(
    source: Source,
    index: int,
    example: Example | BadData,
    tasks: Sequence[Task],
    part: Scanned,
) -> BadData | None:
    """What is wrong with an example that no loader has to check for itself."""
    if isinstance(example, BadData):
        return example
    where, of_label = source.where(index), getattr(source, "where_label", None)
    named = _named(example["inputs"])
    for name, values in named.items():
        if not np.isfinite(values).all():
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
        wrong = _wrong(task, target, known(task, target))
        place = where if of_label is None else of_label(index, task.name)
        missing = KINDS[task.kind].missing
        if wrong.any() and KINDS[task.kind].classes:
            return BadData(
                place,
                f"label {target[wrong][0]} of {task.name} is none of the classes 0 to "
                f"{task.size - 1}",
                f"Labels that are to be ignored are {missing:g}",
            )
        if wrong.any():
            return BadData(
                *(place, f"a label of {task.name} is not finite"),
                f"Where there is none, write {missing:g}",
            )
    for name, shape in shapes.items():
        if shape != part.common.get(name, shape):
            return BadData(
                *(where, f"{name} has shape {shape}, others {part.common[name]}"),
                "Bring all examples to one size",
            )
    part.common.update(shapes)
    part.shapes.update(shapes)
    return None


def _named(inputs: Any) -> Mapping[str, NDArray]:
    """Inputs by name."""
    return inputs if isinstance(inputs, Mapping) else {"inputs": inputs}


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
