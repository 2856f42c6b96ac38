"""Inputs of tables: standardised numbers, and categories as numbers."""

from collections.abc import Sequence

import numpy as np

from mtl_optax.data.faults import BadData
from mtl_optax.data.table_rows import Frame, Splits, float32, shares
from mtl_optax.data.table_values import Missing, mean_and_sd


def standardised(frame: Frame, names: Sequence[str], splits: Splits) -> np.ndarray:
    """Columns with mean 0 and sd 1 in training, `[M, N]` float32.

    A missing number is the mean. Columns that miss some in training have another one
    behind all, 1 where the number is missing.
    """
    columns, absent = np.zeros((len(frame), len(names)), np.float32), []
    for n, name in enumerate(names):
        values = frame.numbers(name)
        if np.isnan(values[splits["train"]]).all():
            raise _no_number(frame, name, splits["train"])
        mean, sd = mean_and_sd(values[splits["train"]])
        if not sd:
            frame.notes.append(f"Column {name!r} is {mean:g} throughout training.")
        missing = np.isnan(values)
        values = np.where(missing, 0, (values - mean) / (sd or 1))
        columns[:, n] = float32(values)
        missing[list(frame.faults)] = False  # bad cells are not missing
        in_training = missing[splits["train"]].any()
        if in_training:
            absent.append(missing.astype(np.float32)[:, None])
        if missing.any():
            frame.notes.append(
                f"Column {name!r} is missing in {shares(missing, splits)}: the mean of "
                "training stands there"
                + (", and an input of its own says so." if in_training else ".")
            )
    return np.concatenate([columns, *absent], axis=1) if absent else columns


def categories(
    frame: Frame, names: Sequence[str], missing: Missing, splits: Splits
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Columns as numbers from 1, `[M, C]` int32, and how many each column has.

    0 is what training does not have, and a missing value.
    """
    found, sizes = np.zeros((len(frame), len(names)), np.int32), []
    for c, name in enumerate(names):
        column = frame.texts(name, missing)
        # By the code of a text; the last entry is that of no text, -1.
        number = np.zeros(len(column.values) + 1, np.int32)
        seen = np.unique(column.codes[splits["train"]])
        seen = seen[seen >= 0]
        number[seen] = np.arange(1, len(seen) + 1)
        found[:, c] = number[column.codes]
        sizes.append(len(seen) + 1)
        unseen = (found[:, c] == 0) & (column.codes >= 0)
        if unseen.any():
            frame.notes.append(
                f"Column {name!r} holds values that training does not have, in "
                f"{shares(unseen, splits)}: they are category 0, unknown."
            )
    return found, tuple(sizes)


def _no_number(frame: Frame, name: str, train: np.ndarray) -> BadData:
    """Of a column that is no number anywhere in training."""
    for row in train.tolist():
        if row in frame.faults:
            return frame.bad(row, *frame.faults[row])
    return frame.bad(
        int(train[0]),
        f"column {name!r} is missing here and in all of training",
        "Take it out of the inputs.",
    )
