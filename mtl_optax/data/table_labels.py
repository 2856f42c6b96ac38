"""Labels of tables: classes, levels and amounts as targets."""

import numpy as np

from mtl_optax.data.dataset import KINDS, Task
from mtl_optax.data.faults import BadData
from mtl_optax.data.table_description import TaskColumn, listed
from mtl_optax.data.table_rows import Frame, Splits, float32
from mtl_optax.data.table_values import Texts, mean_and_sd

LARGEST = 1e18  # of means and sds, whose squares are in metrics


def labels(frame: Frame, task: TaskColumn, splits: Splits) -> tuple[Task, np.ndarray]:
    """A task and its targets `[M]`, in the form of its kind."""
    if task.kind == "regression":
        return _amounts(frame, task, splits)
    column = frame.texts(task.column, task.missing)
    classes = _classes(frame, task, column, splits["train"])
    if task.kind == "binary" and task.choices is None:
        written = [value.lower() for value in column.values]  # True is true
    else:
        written = column.values
    # By the code of a text; the last entry is that of no text, -1.
    number = np.array([*(classes.get(value, -1) for value in written), -1])
    targets = number[column.codes]
    for row in np.flatnonzero((targets < 0) & (column.codes >= 0)).tolist():
        frame.fault(
            [row],
            f"the label of {task.name!r} is {column.values[column.codes[row]]!r}, none "
            f"of {listed(classes)}",
            "Mend it, list it in the task's classes or levels, or declare it missing."
            if frame.described
            else "Mend it.",
        )
    some_in_training(frame, task, targets >= 0, splits)
    made = Task(task.name, task.kind, max(classes.values()) + 1, metric=task.metric)
    return made, targets.astype(KINDS[task.kind].dtype)


def _amounts(frame: Frame, task: TaskColumn, splits: Splits) -> tuple[Task, np.ndarray]:
    """Of a regression, standardised by training."""
    values = frame.numbers_of_cells(task.column, task.missing)
    some_in_training(frame, task, ~np.isnan(values), splits)
    mean, sd = mean_and_sd(values[splits["train"]])
    if not sd:
        raise BadData(
            frame.files[0],
            f"all labels of {task.name!r} in training are {mean:g}",
            "There is nothing to learn: take the task out.",
        )
    if max(abs(mean), sd) > LARGEST:
        row = int(np.nanargmax(np.where(np.isnan(values), 0, np.abs(values))))
        raise frame.bad(
            row,
            f"the label of {task.name!r} is {values[row]:g}, beyond what float32 holds",
            "Mend it, or give labels in another unit or as logarithms.",
        )
    made = Task(task.name, task.kind, loss=task.loss, unit=task.unit, mean=mean, sd=sd)
    return made, float32((values - mean) / sd)


def _classes(
    frame: Frame, task: TaskColumn, column: Texts, train: np.ndarray
) -> dict[str, int]:
    """From texts to classes: as described, or what training has, in order."""
    if task.choices is not None:
        return {value: number for number, value in enumerate(task.choices)}
    if task.kind == "binary":
        return {"0": 0, "1": 1, "false": 0, "true": 1}
    seen = [column.values[code] for code in np.unique(column.codes[train]) if code >= 0]
    whole = all(value.removeprefix("-").isdecimal() for value in seen)
    if task.kind == "ordinal" and not whole:
        raise BadData(
            frame.files[0],
            f"the levels of {task.name!r} are no integers ({listed(seen, 5)}), and "
            "their order is not known",
            f'List them from low to high: [tasks.{task.name}] levels = ["...", "..."].',
        )
    if len(seen) == 1:
        raise BadData(
            frame.files[0],
            f"all labels of {task.name!r} in training are {seen[0]!r}",
            "There is nothing to learn: take the task out, or list its classes.",
        )
    if whole:
        seen.sort(key=int)
    if seen != [str(number) for number in range(len(seen))]:
        frame.notes.append(f"Task {task.name!r} has, numbered from 0: {listed(seen)}.")
    return {value: number for number, value in enumerate(seen)}


def some_in_training(
    frame: Frame, task: TaskColumn, known: np.ndarray, splits: Splits
) -> None:
    """Raises unless training has a label; notes splits that have none."""
    for name, rows in splits.items():
        if known[rows].any():
            continue
        if name == "train":
            raise frame.bad(
                int(rows[0]),
                f"task {task.name!r} has no label here, nor in all of training",
                "Take the task out, or mend its labels and what counts as missing.",
            )
        frame.notes.append(f"Task {task.name!r} has no label in {name}.")
