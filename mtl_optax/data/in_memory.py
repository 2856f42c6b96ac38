"""Examples that are held in arrays, each of which stands at a place in a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_optax.data.dataset import Example
from mtl_optax.data.faults import BadData


@dataclass(frozen=True)
class Rows:
    """A split in memory; a `Source`."""

    files: tuple[Path, ...]
    file: np.ndarray  # [M] int, of each example
    row: np.ndarray  # [M] int, in its file
    inputs: Mapping[str, np.ndarray]  # [M, ...] each
    targets: Mapping[str, np.ndarray]  # [M] each
    faults: Mapping[int, tuple[str, str]]  # of bad rows: what was found, and the cure
    ids: np.ndarray | None = None  # [M]; None: the file has none

    def __len__(self) -> int:
        """How many there are, the bad ones included."""
        return len(self.row)

    def __getitem__(self, index: int) -> Example:
        """One example."""
        if index in self.faults:
            path, row = self.files[self.file[index]], int(self.row[index])
            raise BadData(path, *self.faults[index], row=row)
        return self._at(index)

    def take(self, indices: np.ndarray) -> Example:
        """Several at once; the `BadData` of one of them."""
        for index in self.faults.keys() & set(indices.tolist()):
            self[index]  # raises
        return self._at(indices)

    def where(self, index: int) -> str:
        """The file and the row."""
        return f"{self.files[self.file[index]]}, row {self.row[index]}"

    def _at(self, places: Any) -> Example:
        return {
            "inputs": {name: values[places] for name, values in self.inputs.items()},
            "targets": {name: values[places] for name, values in self.targets.items()},
        }
