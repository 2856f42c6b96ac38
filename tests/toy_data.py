"""A data set in memory, in the form that loaders give: pictures of two bars."""

import numpy as np

from mtl_optax.data.dataset import Dataset, Images, Task


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
