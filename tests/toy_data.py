"""Data sets in memory, in the form that loaders give: pictures of two bars, a table."""

import numpy as np

from mtl_optax.data.dataset import Columns, Dataset, Images, Task


class Bars:
    """Pictures [8, 8, 1] with a row and a column lit; labels are which."""

    def __init__(self, number, seed=0, bad=(), without=()):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 4, (number, 2))
        self.noise = rng.normal(0, 0.1, (number, 8, 8, 1)).astype(np.float32)
        self.bad, self.without = set(bad), set(without)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        row, column = self.labels[index]
        x = self.noise[index].copy()
        x[2 * row] += 1
        x[:, 2 * column] += 1
        if index in self.bad:
            x[0, 0, 0] = np.nan
        column = -1 if index in self.without else column
        y = {"column": np.int32(column), "row": np.int32(row)}
        return {"inputs": x, "targets": y}

    def where(self, index):
        return f"bars, row {index}"


TASKS = (Task("column", "class", 4), Task("row", "class", 4))


def bars(train=64, val=20, **options):
    splits = {"train": Bars(train, **options), "val": Bars(val, seed=1)}
    return Dataset("bars", TASKS, splits, Images(8, 8, 1))


def brightened(example, rng):
    example["inputs"] = example["inputs"] + np.float32(rng.uniform())
    return example


class Lines(Bars):
    """The same as rows of a table: eight numbers, and no category."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        x = np.concatenate([example["inputs"].sum(axis=a).ravel() for a in (0, 1)])
        inputs = {"numbers": x / 4, "categories": np.zeros(0, np.int32)}
        return {**example, "inputs": inputs}


def lines(train=64, val=20, **options):
    splits = {"train": Lines(train, **options), "val": Lines(val, seed=1)}
    return Dataset("lines", TASKS, splits, Columns(16, ()), augment=scaled)


def scaled(example, rng):
    numbers = example["inputs"]["numbers"] * np.float32(rng.uniform(0.9, 1.1))
    return {**example, "inputs": {**example["inputs"], "numbers": numbers}}


class OfOneTask:
    """Rows of a source that have a label of one task alone."""

    def __init__(self, task, rows):
        self.task, self.rows = task, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        whole = self.rows[index]
        return {**whole, "targets": {self.task: whole["targets"][self.task]}}

    def where(self, index):
        return f"{self.task}, row {index}"


PICTURES = Images(8, 8, 1)


def domains(kind=Bars, inputs=PICTURES):
    """Tasks with examples of their own: 40, and 10."""

    def split(more, fewer):
        sizes = {"column": more, "row": fewer}
        return {t: OfOneTask(t, kind(number)) for t, number in sizes.items()}

    splits = {"train": split(40, 10), "val": split(6, 5)}
    return Dataset("domains", TASKS, splits, inputs)
