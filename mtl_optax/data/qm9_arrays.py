"""Arrays of QM9's npz: found by their names, and brought into one padded form."""

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_optax.data.faults import BadData, BadLayout

ELEMENTS = (1, 6, 7, 8, 9)  # H, C, N, O, F
ALIASES = {"Z": ("Z", "charges"), "R": ("R", "positions"), "N": ("N", "num_atoms")}
IDS = ("id", "index")
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    MemoryError,  # of a header that asks for more than there is
    # What NumPy says to a single array, to pickles and to a torn header.
    *(ValueError, TypeError, AttributeError, KeyError),
)


class Padded(NamedTuple):
    """All molecules of a file."""

    atoms: np.ndarray  # [M, A] int8, elements, 0 for none
    positions: np.ndarray  # [M, A, 3] float32
    faults: dict[int, tuple[str, str]]  # of bad ones: what was found, and the cure


def read_arrays(path: Path, properties: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of the file that have a use here, by our names."""
    wanted = {alias: name for name, names in ALIASES.items() for alias in names}
    wanted |= {name: name for name in (*IDS, *properties)}
    try:
        # Opened here: of a torn archive NumPy leaves its own handle open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = {wanted[key]: file[key] for key in file.files if key in wanted}
            names = file.files
    except BROKEN as error:
        raise BadData(
            path,
            f"it cannot be read as npz without running pickled code: {error}",
            "Copy it again; save arrays of numbers, atoms end to end or padded, with "
            "np.savez.",
        ) from error
    for name in ("Z", "R"):
        if name not in found:
            raise BadLayout(
                path,
                f"no array {' or '.join(ALIASES[name])}; it has {', '.join(names)}",
                "Z are elements, R positions, N numbers of atoms.",
            )
    for name, array in found.items():
        if array.dtype.kind not in ("iufUS" if name in IDS else "iuf"):
            raise BadData(
                path, f"{name} is of type {array.dtype}", "Save it as numbers."
            )
    return found


def padded(path: Path, arrays: Mapping[str, np.ndarray]) -> Padded:
    """Molecules below each other; raises where the arrays do not fit together."""
    elements, positions = arrays["Z"], arrays["R"]
    if elements.ndim not in (1, 2) or positions.shape != (*elements.shape, 3):
        raise BadData(
            path,
            f"Z has shape {elements.shape} and R {positions.shape}",
            "They are [atoms] and [atoms, 3], or padded [M, A] and [M, A, 3].",
        )
    counts = _counts(path, arrays)
    inside = np.arange(counts.max()) < counts[:, None]
    faults: dict[int, tuple[str, str]] = {}
    if elements.ndim == 1:
        atoms, places = _spread(path, elements, positions, counts, inside)
    else:
        _behind(path, elements, counts, faults)
        atoms = np.where(inside, elements[:, : counts.max()], 0)
        places = np.where(inside[..., None], positions[:, : counts.max()], 0)
    unknown = inside & ~np.isin(atoms, ELEMENTS)
    for row in np.flatnonzero(unknown.any(axis=1)).tolist():
        found = f"an atom of element {atoms[row][unknown[row]][0]}"
        faults.setdefault(row, (found, "QM9 has 1, 6, 7, 8, 9 (H, C, N, O, F)."))
    broken = ~np.isfinite(places).all(axis=(1, 2))
    for row in np.flatnonzero(broken).tolist():
        found = "a position that is no finite number"
        faults.setdefault(row, (found, "Mend it, or leave the molecule out."))
    known = np.where(unknown, 0, atoms).astype(np.int8)
    with np.errstate(over="ignore"):  # to infinity, which the scan finds
        return Padded(known, places.astype(np.float32), faults)


def _counts(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """How many atoms each molecule has, `[M]` int."""
    counts, elements = arrays.get("N"), arrays["Z"]
    if counts is None and elements.ndim == 1:
        raise BadLayout(
            path, "there is no array N", "It says how many atoms each molecule has."
        )
    if counts is None:
        counts = np.sum(elements != 0, axis=1)
    if counts.shape[1:] == (1,):
        counts = counts[:, 0]
    if counts.ndim != 1 or not len(counts) or not (counts >= 1).all():
        raise BadData(
            path,
            f"N has shape {counts.shape}, or says that a molecule has no atom",
            "It is [M], integers from 1.",
        )
    if (counts != np.floor(counts)).any():
        raise BadData(path, "N holds fractions", "It is [M], integers from 1.")
    if counts.max() > elements.size:
        raise BadData(
            path,
            f"N says that a molecule has {counts.max()} atoms, and Z has "
            f"{elements.size} in all",
            "Save N, Z and R of the same molecules.",
        )
    return counts.astype(np.int64)


def _spread(
    path: Path,
    elements: np.ndarray,
    positions: np.ndarray,
    counts: np.ndarray,
    inside: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Atoms end to end as padded arrays."""
    if counts.sum() != len(elements):
        raise BadData(
            path,
            f"N sums to {counts.sum()} atoms, and Z has {len(elements)}",
            "Save N, Z and R of the same molecules.",
        )
    atoms = np.zeros(inside.shape, elements.dtype)
    places = np.zeros((*inside.shape, 3), positions.dtype)
    atoms[inside], places[inside] = elements, positions
    return atoms, places


def _behind(
    path: Path,
    elements: np.ndarray,
    counts: np.ndarray,
    faults: dict[int, tuple[str, str]],
) -> None:
    """Marks molecules with atoms behind their number of atoms."""
    if len(elements) != len(counts) or counts.max() > elements.shape[1]:
        raise BadData(
            path,
            f"N has {len(counts)} entries up to {counts.max()}, and Z has shape "
            f"{elements.shape}",
            "Save N, Z and R of the same molecules, padded to the largest.",
        )
    outside = np.arange(elements.shape[1]) >= counts[:, None]
    for row in np.flatnonzero((outside & (elements != 0)).any(axis=1)).tolist():
        found = f"there are atoms behind the {counts[row]} that N says"
        faults[row] = (found, "Put zeros there, or mend N.")
