"""Batches of a data set, through grain: shuffled, augmented, shared out, resumable.

Batches have numbers. Batch n depends on the data, the seed and n alone, so a run that
was stopped goes on with the next number, with as many workers as it likes; there is no
state of a loader to save. For the same reason the batches of several processes are
parts of the same batches that one process would see.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from numpy.typing import NDArray

from mtl_optax.data.dataset import KINDS, Augment, Dataset, Example, Source, Task

Rows = NDArray[np.int64]  # numbers of examples
BLANK = -1  # in place of a number: no example, a row that fills a batch


class Reading(NamedTuple):
    """How batches are read."""

    # Of all processes together; of each task where tasks have their own.
    batch_size: int
    seed: int = 0
    workers: int = 0  # processes that read and augment; 0: threads of this one
    process: tuple[int, int] = (0, 1)  # this one, and how many there are


class Rowwise:
    """Reads examples of a source by their numbers, with labels of all tasks.

    A task that an example has no label of gets missing ones; number `BLANK` gives
    nothing but missing labels, and inputs that nobody looks at.
    """

    def __init__(self, source: Source, tasks: Sequence[Task], like: int):
        """`like` is an example that fits: blanks have its shapes."""
        self.source, self.like = source, like
        self.blanks = blank(tasks, source[like])

    def __call__(self, row: Any) -> Example:
        """The example of a number."""
        if row == BLANK:
            return self.blanks
        example = self.source[int(row)]
        targets = {
            task: example["targets"].get(task, missing)
            for task, missing in self.blanks["targets"].items()
        }
        return {"inputs": example["inputs"], "targets": targets}

    @property
    def takes(self) -> bool:
        """Whether it can read many at once."""
        return hasattr(self.source, "take")

    def take(self, rows: Rows) -> Example:
        """Examples of these numbers, with a leading axis."""
        there = rows != BLANK
        rows = np.where(there, rows, self.like)
        batch = self.source.take(rows)  # type: ignore[attr-defined]
        targets = {}
        for task, missing in self.blanks["targets"].items():
            whole = np.full((len(rows), *missing.shape), missing, missing.dtype)
            if task in batch["targets"]:
                whole[there] = batch["targets"][task][there]
            targets[task] = whole
        return {"inputs": batch["inputs"], "targets": targets}


def blank(tasks: Sequence[Task], like: Example) -> Example:
    """An example of missing labels; with the shapes of `like`, where it has a label."""
    targets = {}
    for task in tasks:
        kind = KINDS[task.kind]
        shape = np.shape(like["targets"].get(task.name, 0))
        targets[task.name] = np.full(shape, kind.missing, kind.dtype)
    inputs = like["inputs"]
    if isinstance(inputs, Mapping):
        return {
            "inputs": {k: np.zeros_like(x) for k, x in inputs.items()},
            "targets": targets,
        }
    return {"inputs": np.zeros_like(inputs), "targets": targets}


def num_batches(good: Any, batch_size: int, *, mixed: bool = False) -> int:
    """Whole batches of an epoch, one at least.

    Where tasks have examples of their own, of the task with most; of a mix of them, as
    many as have their rows together.
    """
    sizes = [len(x) for x in (good.values() if isinstance(good, Mapping) else [good])]
    return max((sum if mixed else max)(sizes) // batch_size, 1)


def training(
    dataset: Dataset,
    good: Any,
    reading: Reading,
    *,
    epochs: int | None,
    start: int = 0,
    mix: Mapping[str, float] | None = None,
    split: str = "train",
) -> Iterator[Example]:
    r"""Batches of all epochs from number `start`, each epoch in an order of its own.

    What is left of an epoch after its whole batches is dropped, another part in every
    epoch. Where tasks have examples of their own there are two ways. By default a
    batch holds `{task: inputs}`, a batch of every task, an epoch ends with the largest
    one, and the smaller ones begin anew as often as they must. With `mix` a batch is
    one array of rows of all tasks in these proportions, in which each row has a label
    of its own task alone; a task may then be missing from a batch.

    Args:
      dataset: from one of the loaders.
      good: the numbers of examples to use, as :func:`mtl_optax.data.scan.scan` finds.
      reading: batch size, seed, workers and process.
      epochs: how often the data are gone through; None: without end.
      start: number of the first batch: what a run has done so far.
      mix: task -> weight.
      split: from which to read; only "train" is augmented.

    Returns:
      An iterator of examples with a leading axis of batch_size / processes.

    Raises:
      ValueError: for a batch that cannot be shared out evenly, one larger than the
        split, or a mix of other tasks.

    Cost: a batch is read by two threads ahead of the step, or by workers.

    When not to use it: for tables larger than memory.

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
      >>> from mtl_optax.data import loading
      >>> from mtl_optax.data.scan import scan
      >>> good, reading = scan(dataset).good("train"), loading.Reading(batch_size=10)
      >>> batches = list(loading.training(dataset, good, reading, epochs=2))
      >>> len(batches), batches[0]["targets"]["ill"].shape
      (6, (10,))
      >>> last = next(loading.training(dataset, good, reading, epochs=2, start=5))
      >>> bool((last["targets"]["days"] == batches[5]["targets"]["days"]).all())
      True
    """
    check(dataset, good, reading, mix=mix, split=split)
    count = _share(reading)
    source = dataset.splits[split]
    augment = dataset.augment if split == "train" else None
    steps = num_batches(good, reading.batch_size, mixed=mix is not None)
    if isinstance(source, Mapping):
        names = sorted(source)
        numbers = {
            name: _shuffled(good[name], reading.seed + at).repeat()
            for at, name in enumerate(names)
        }
        readers = {name: _reader(dataset, source[name], good[name]) for name in names}
        if mix is not None:
            each = {n: _read(numbers[n], readers[n], augment) for n in names}
            batches = _of_process(_mixed(each, mix), reading).batch(count)
        else:
            batches = _beside(
                {n: _batches(numbers[n], readers[n], augment, reading) for n in names}
            )
        last = None if epochs is None else epochs * steps
        whole = batches.slice(slice(0, last))
    else:
        rows = _shuffled(good, reading.seed)
        rows = rows.slice(slice(0, steps * reading.batch_size))
        reader = _reader(dataset, source, good)
        whole = _batches(rows, reader, augment, reading).repeat(epochs)
    return _iterate(whole.slice(slice(start, None)), reading)


def check(
    dataset: Dataset,
    good: Any,
    reading: Reading,
    *,
    mix: Mapping[str, float] | None = None,
    split: str = "train",
) -> None:
    """Raises what `training` does for the same arguments, without reading anything."""
    _share(reading)
    check_mix(dataset, mix)
    if not dataset.by_task and len(good) < reading.batch_size:
        raise ValueError(
            f"the split {split} has {len(good)} examples, fewer than a batch of "
            f"{reading.batch_size}: take a smaller --batch."
        )


def check_mix(dataset: Dataset, mix: Mapping[str, float] | None) -> None:
    """Raises unless there is none, or a weight for each task with its own examples."""
    if mix is None:
        return
    if not dataset.by_task:
        raise ValueError(
            f"mix: the tasks of {dataset.name} have the same examples; leave mix out."
        )
    if set(mix) != set(dataset.names) or min(mix.values()) <= 0:
        raise ValueError(
            f"mix: needs a positive weight for each task of {sorted(dataset.names)}; "
            f"got {dict(mix)}."
        )


def evaluation(
    dataset: Dataset, good: Any, reading: Reading, *, split: str
) -> Iterator[Example]:
    """Every example of a split once, in order; blank rows fill the last batch.

    Where tasks have examples of their own a batch holds rows of one task, with labels
    of it alone. Arguments are those of `training`.
    """
    source = dataset.splits[split]
    by_task = source if isinstance(source, Mapping) else {"": source}
    rows = good if isinstance(good, Mapping) else {"": good}
    parts = []
    for name in sorted(by_task):
        fill = np.full(-len(rows[name]) % reading.batch_size, BLANK)
        every = grain.MapDataset.source(np.concatenate([rows[name], fill]))
        reader = _reader(dataset, by_task[name], rows[name])
        parts.append(_batches(every, reader, None, reading))
    return _iterate(grain.MapDataset.concatenate(parts), reading)


def joined(batch: Example, tasks: Sequence[Task]) -> Example:
    """A batch of every task as one array of rows, each with its own task's label.

    For networks whose tasks read one and the same input.
    """
    inputs, targets = batch["inputs"], batch["targets"]
    missing = {task.name: KINDS[task.kind].missing for task in tasks}
    return {
        "inputs": _rows(list(inputs.values())),
        "targets": {
            name: np.concatenate(
                [
                    own if other == name else np.full_like(own, missing[name])
                    for other in inputs
                ]
            )
            for name, own in targets.items()
        },
    }


def _rows(parts: Sequence[Any]) -> Any:
    """Inputs of several batches as one."""
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
    return np.concatenate(parts)


def _shuffled(good: Rows, seed: int) -> Any:
    """Numbers of examples in random order, another one each time they are repeated."""
    return grain.MapDataset.source(good).seed(seed).shuffle()


def _reader(dataset: Dataset, source: Source, good: Rows) -> Rowwise:
    """Of a source; shapes of missing labels are those of its first example."""
    return Rowwise(source, dataset.tasks, int(good[0]))


def _read(numbers: Any, reader: Rowwise, augment: Augment | None) -> Any:
    """Examples of these numbers, augmented."""
    rows = numbers.map(reader)
    return rows if augment is None else rows.random_map(_Varied(augment))


def _batches(
    numbers: Any, reader: Rowwise, augment: Augment | None, reading: Reading
) -> Any:
    """Batches of these numbers, the part of this process of each."""
    count = _share(reading)
    if reader.takes and augment is None:
        # Numbers are batched in place of examples: a tenth of the time a row.
        return _of_process(numbers, reading).batch(count).map(reader.take)
    # Augmented before they are shared out: grain draws by place in the data set, so
    # that processes would otherwise augment their first rows alike, and so on:
    # `findings/grain_shards_drawn_alike.sh`.
    return _of_process(_read(numbers, reader, augment), reading).batch(count)


class _Varied:
    """The augmentation, on a copy of the dict: what it is given may be kept."""

    def __init__(self, augment: Augment):
        self.augment = augment

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Of one example."""
        return self.augment(dict(example), rng)


def _beside(each: dict[str, Any]) -> Any:
    """A batch of every task side by side, by the tasks' names."""
    names = list(each)

    def merged(parts: Sequence[Example]) -> Example:
        named = dict(zip(names, parts, strict=True))
        return {
            "inputs": {name: part["inputs"] for name, part in named.items()},
            "targets": {name: part["targets"][name] for name, part in named.items()},
        }

    return grain.experimental.ZipMapDataset(list(each.values())).map(merged)


def _mixed(each: dict[str, Any], mix: Mapping[str, float]) -> Any:
    """Rows of all tasks in these proportions."""
    total = sum(mix.values())
    weights = [mix[name] / total for name in each]
    return grain.MapDataset.mix(list(each.values()), weights)


def _of_process(rows: Any, reading: Reading) -> Any:
    """The part of this process: of every batch its own rows."""
    index, processes = reading.process
    return rows if processes == 1 else rows.slice(slice(index, None, processes))


def _share(reading: Reading) -> int:
    """Rows of a batch on this process."""
    processes = reading.process[1]
    if reading.batch_size % processes:
        raise ValueError(
            f"a batch of {reading.batch_size} cannot be shared evenly by {processes} "
            "processes: take a multiple."
        )
    return reading.batch_size // processes


def _iterate(batches: Any, reading: Reading) -> Iterator[Example]:
    """Reads ahead, in threads or in processes of their own."""
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    ahead = batches.to_iter_dataset(options)
    if reading.workers:
        # grain's workers read a flag of absl, and raise where no program parsed any:
        # `findings/grain_workers_absl_flags.sh`.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=reading.workers),
            worker_init_fn=_end_with_parent,
        )
    return iter(ahead)


def _end_with_parent(index: int, workers: int) -> None:
    """In a worker: it would wait for ever after a SIGKILL of the process it serves."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
