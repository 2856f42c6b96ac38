"""Rows of tables below each other: cells, faults and notes, and splits as examples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_optax.data.faults import BadData
from mtl_optax.data.in_memory import Rows
from mtl_optax.data.table_reading import Table
from mtl_optax.data.table_values import Missing, Numbers, Texts, numbers, texts

Splits = Mapping[str, np.ndarray]  # from splits to the numbers of their rows


class Frame:
    """Tables below each other.

    Bad cells are kept in `faults`, by row, and what a user should know in `notes`.
    `described` is whether a user can declare values as missing, for cures.
    """

    def __init__(self, tables: Sequence[Table], described: bool = True):
        self.described = described
        self.files = tuple(table.path for table in tables)
        sizes = [len(table) for table in tables]
        self.file = np.repeat(np.arange(len(tables)), sizes)
        self.row = np.concatenate([table.rows for table in tables])
        self.starts = np.cumsum([0, *sizes])
        self.faults: dict[int, tuple[str, str]] = {}
        self.notes: list[str] = []
        self._tables = tables

    def __len__(self) -> int:
        return len(self.row)

    def fault(self, rows: Iterable[int], found: str, cure: str) -> None:
        """Marks rows as bad; the first fault of a row stays."""
        for row in rows:
            self.faults.setdefault(int(row), (found, cure))

    def bad(self, row: int, found: str, cure: str) -> BadData:
        """An error that names a row."""
        path = self.files[self.file[row]]
        return BadData(path, found, cure, row=int(self.row[row]))

    def cells(self, name: str) -> Any:
        """A column that was read as it stands, of Arrow."""
        import pyarrow as pa

        columns = [table.texts[name].cast(pa.large_string()) for table in self._tables]
        return pa.chunked_array([part for each in columns for part in each.chunks])

    def texts(self, name: str, missing: Missing) -> Texts:
        """A column as texts, its undeclared empty cells marked as faults."""
        column = texts(self.cells(name), missing)
        self.fault(column.bad, *self._undeclared(name, ""))
        return column

    def keys(self, name: str) -> Texts:
        """A column in which every row says to what it belongs; others are faults."""
        import pyarrow as pa

        for table in self._tables:
            cells = table.texts[name]
            if pa.types.is_floating(cells.type):
                large = np.abs(np.nan_to_num(cells.to_numpy())) >= 2**53
                if large.any():
                    raise BadData(
                        table.path,
                        f"column {name!r} holds long integers as floating-point "
                        "numbers, which have lost their last digits",
                        "Write it as integers or as texts.",
                        row=int(table.rows[np.argmax(large)]),
                    )
        column = texts(self.cells(name), Missing.of([""]))
        self.fault(
            np.flatnonzero(column.codes < 0),
            f"column {name!r} is empty",
            "Every row needs a value there.",
        )
        return column

    def numbers(self, name: str) -> np.ndarray:
        """A column that was read as numbers, `[M]` float64; others are faults.

        Can be had once: tables let it go, for there may be little room.
        """
        parts = [table.numbers.pop(name) for table in self._tables]
        bad = {
            int(start) + row: text
            for start, part in zip(self.starts, parts, strict=False)
            for row, text in part.bad.items()
        }
        return self._known(
            name, Numbers(np.concatenate([p.values for p in parts]), bad)
        )

    def numbers_of_cells(self, name: str, missing: Missing) -> np.ndarray:
        """The same of a column that was read as it stands."""
        return self._known(name, numbers(self.cells(name), missing, missing.empty))

    def _known(self, name: str, column: Numbers) -> np.ndarray:
        for row, text in column.bad.items():
            self.fault([row], *self._undeclared(name, text))
        return column.values

    def _undeclared(self, name: str, text: str) -> tuple[str, str]:
        """What was found in a cell, and the cure."""
        found = f"column {name!r} is empty"
        if text:
            found = f"column {name!r} holds {text!r}, which is no finite number"
        declare = f', or declare it: missing = ["{text}"]' if self.described else ""
        return found, f"Mend the cell{declare}."

    def source(
        self,
        rows: np.ndarray,
        numbers: np.ndarray,
        categories: np.ndarray,
        targets: Mapping[str, np.ndarray],
        ids: np.ndarray | None = None,
    ) -> Rows:
        """A split: these rows of the arrays."""
        bad = np.flatnonzero(np.isin(rows, list(self.faults)))
        return Rows(
            files=self.files,
            file=self.file[rows],
            row=self.row[rows],
            inputs={"numbers": numbers[rows], "categories": categories[rows]},
            targets={name: values[rows] for name, values in targets.items()},
            faults={int(index): self.faults[int(rows[index])] for index in bad},
            ids=None if ids is None else ids[rows],
        )


def shares(marked: np.ndarray, splits: Splits) -> str:
    """For a note: "3 of 80 rows of train, 1 of 10 rows of val"."""
    counts = {name: int(marked[rows].sum()) for name, rows in splits.items()}
    return ", ".join(
        f"{count} of {len(splits[name])} rows of {name}"
        for name, count in counts.items()
        if count
    )


def float32(values: np.ndarray) -> np.ndarray:
    """Rounded, without overflow: 1e39 standard deviations are as good as 3e38."""
    largest = np.finfo(np.float32).max
    return np.clip(values, -largest, largest).astype(np.float32)
