"""Which rows train, which validate, which test: by a seed, by groups, by a column."""

from collections.abc import Mapping

import numpy as np

from mtl_optax.data.faults import BadLayout
from mtl_optax.data.table_values import Texts

NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def carve(
    where: object,
    rows: np.ndarray,
    fractions: Mapping[str, float],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Takes fractions of the rows out, and leaves the rest to "train".

    The same rows in the same order have the same splits for a seed. With `groups`,
    an int a row, rows of a group stay together: groups are dealt in random order
    until a split has its rows.
    """
    generator = np.random.default_rng(seed)
    # Without groups every row is one.
    group = np.arange(len(rows)) if groups is None else groups[rows]
    distinct, member = np.unique(group, return_inverse=True)
    order = generator.permutation(len(distinct))
    sizes = np.bincount(member)[order]
    ends = np.cumsum(sizes)
    splits, start = {}, 0
    for name, fraction in fractions.items():
        # As near as whole groups come, and at least one.
        target = (ends[start - 1] if start else 0) + fraction * len(rows)
        stop = max(start + 1, int(np.argmin(np.abs(ends - target))) + 1)
        splits[name] = rows[np.isin(member, order[start:stop])]
        start = stop
    if start >= len(distinct):
        raise BadLayout(
            str(where),
            f"{len(rows)} rows in {len(distinct)} groups leave none for training",
            "Lower the fractions, or add rows.",
        )
    return {"train": rows[np.isin(member, order[start:])], **splits}


def by_column(column: Texts) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Rows by what a column says, and rows of which it says nothing that is known."""
    names = [NAMES.get(value.lower(), "") for value in column.values]
    split = np.array([*names, ""])[column.codes]
    found = {
        name: rows
        for name in ("train", "val", "test")
        if len(rows := np.flatnonzero(split == name))
    }
    unknown = {
        int(row): column.values[column.codes[row]] if column.codes[row] >= 0 else ""
        for row in np.flatnonzero(split == "")
    }
    return found, unknown
