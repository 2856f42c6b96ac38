"""What a run writes while it trains: two CSV files, and the same for TensorBoard.

A run that goes on from a checkpoint first drops what was written after it, so that the
files of a run that was stopped are those of one that never was.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, float]


class Log:
    """A CSV file with a column "step", whose rows only grow in number.

    A value that a row lacks is an empty cell. Numbers are written so that they read
    back as the same float.
    """

    def __init__(self, path: Path, done: int):
        """Opens the file of a run that has done so many steps, or makes it."""
        self.path = path
        self.rows = [row for row in read(path) if row["step"] <= done]
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        if path.exists():
            self._write()

    def add(self, step: int, values: Row) -> None:
        """A row, on disk when this returns."""
        row = {"step": float(step), **{k: float(x) for k, x in values.items()}}
        self.rows.append(row)
        if new := [name for name in row if name not in self.columns]:
            self.columns += new
            self._write()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(_text(row))

    def _write(self) -> None:
        """All rows, beside the file and then in its place: a kill loses none."""
        beside = self.path.with_suffix(".tmp")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns or ["step"], restval="")
            writer.writeheader()
            writer.writerows(map(_text, self.rows))
        beside.replace(self.path)


def read(path: Path) -> list[dict[str, float]]:
    """The rows of such a file; one that a kill cut in two is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        try:
            found.append({k: float(x) for k, x in row.items() if x != ""})
        except (TypeError, ValueError):
            break
    return [row for row in found if "step" in row]


def shown(value: float) -> str:
    """In four digits; a dash where nothing was counted."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def _text(row: Row) -> dict[str, str]:
    return {k: str(int(x)) if k == "step" else repr(x) for k, x in row.items()}


class Board:
    """TensorBoard's files of a run; no TensorFlow is needed to write them."""

    def __init__(self, folder: Path, done: int):
        from tensorboardX import SummaryWriter

        # What was written after the checkpoint is hidden by the viewer.
        self.writer: Any = SummaryWriter(str(folder), purge_step=done + 1)

    def add(self, step: int, values: Row) -> None:
        """Scalars by name, of those that are finite: a curve has no other points."""
        for name, value in values.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Writes what is held back."""
        self.writer.close()
