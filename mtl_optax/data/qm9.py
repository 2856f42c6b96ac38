"""QM9 as one npz file: small organic molecules, and eleven of their properties."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_optax.data.dataset import Dataset, Molecules, Task
from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.in_memory import Rows
from mtl_optax.data.qm9_arrays import ELEMENTS, IDS, Padded, padded, read_arrays

# Energies are in eV in the file, and in meV here: the one conversion.
UNITS = {
    "mu": ("D", 1.0),
    "alpha": ("a0^3", 1.0),
    "homo": ("meV", 1000.0),
    "lumo": ("meV", 1000.0),
    "r2": ("a0^2", 1.0),
    "zpve": ("meV", 1000.0),
    "U0": ("meV", 1000.0),
    "U": ("meV", 1000.0),
    "H": ("meV", 1000.0),
    "G": ("meV", 1000.0),
    "Cv": ("cal/(mol K)", 1.0),
}
ATOMISATION = ("U0", "U", "H", "G")  # of which U0_atom and so on are preferred
ALL, HELD_OUT = 130_831, 10_000  # molecules of QM9, and of each of val and test
SEED = 0
LARGEST = 1e12  # of a property in the file's unit; those of QM9 are below 1e5


def open_qm9(root: Path | str) -> Dataset:
    r"""Opens QM9: regression of eleven properties from elements and positions.

    The layout: `qm9.npz` (or `qm9_eV.npz`, as DimeNet and DGL have it) of M molecules,

    ==================  =====================  =========================
    array               atoms end to end       padded with zeros
    ==================  =====================  =========================
    `N`, atoms          `[M]`                  `[M]`, may be left out
    `Z`, elements       `[sum N]`              `[M, A]`
    `R`, in Å           `[sum N, 3]`           `[M, A, 3]`
    each property       `[M]`                  `[M]`
    ==================  =====================  =========================

    also under the names `num_atoms`, `charges`, `positions`. Properties are `mu`,
    `alpha`, `homo`, `lumo`, `r2`, `zpve`, `U0`, `U`, `H`, `G`, `Cv`, with energies in
    eV; of the four energies `U0_atom` and so on, those of atomisation, are taken where
    the file has them. These are the eleven of the multi-task papers, which leave out
    the gap. Energies become meV, and all are standardised by the training split.

    Splits are by a fixed seed: 10,000 molecules for validation, 10,000 for test, the
    rest for training; of fewer than 100,000 molecules, in that proportion.

    Args:
      root: the folder of `qm9.npz`, or the file.

    Returns:
      A `Dataset` of one `regression` a property found, with inputs `Molecules`. Labels
      that are NaN are missing. A molecule with an unknown element, a position that is
      no finite number, or atoms behind its number of atoms raises `BadData` when it is
      read; rows in messages count molecules from 0, as arrays do.

    Raises:
      BadLayout: no such file, no `Z` and `R`, or no property of those names.
      BadData: the file is broken or holds pickles; arrays do not fit together; the
        orbital energies are not in eV; a property has no value or one value.

    Cost: 14 bytes an atom of the padded arrays, 50 MB for QM9.

    When not to use it: to compare digits with papers whose split is another draw, or
    where 3,054 molecules that failed QM9's check were left in.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from mtl_optax.data.qm9 import open_qm9
      >>> folder = Path(tempfile.mkdtemp())
      >>> np.savez(  # forty molecules of water
      ...     folder / "qm9.npz",
      ...     N=np.full(40, 3),
      ...     Z=np.tile([8, 1, 1], 40),
      ...     R=np.zeros((120, 3)),
      ...     mu=np.arange(40.0),
      ... )
      >>> dataset = open_qm9(folder)
      >>> dataset.names, dataset.inputs
      (('mu',), Molecules(atoms=3, elements=10))
      >>> dataset.splits["train"][0]["inputs"]["atoms"]
      array([8, 1, 1], dtype=int32)

    References:
      Ramakrishnan et al., `Quantum chemistry structures and properties of 134 kilo
      molecules <https://doi.org/10.1038/sdata.2014.22>`_, 2014.
    """
    path = _file(Path(root))
    totals = [f"{name}_atom" for name in ATOMISATION]
    arrays = read_arrays(path, [*UNITS, *totals])
    molecules = padded(path, arrays)
    count = len(molecules.atoms)
    notes = []
    splits = _splits(count)
    if count < 100_000 or count > ALL:
        sizes = ", ".join(f"{len(rows)} for {name}" for name, rows in splits.items())
        notes.append(f"{count} molecules, where QM9 has {ALL}: {sizes}.")
    tasks, targets = _targets(path, arrays, molecules, splits["train"], notes)
    ids = next((arrays[key] for key in IDS if key in arrays), None)
    if ids is not None and ids.shape != (count,):
        raise BadData(
            path,
            f"the ids have shape {ids.shape}, and there are {count} molecules",
            "Each molecule has one: save them anew, or leave the array out.",
        )

    def source(rows: np.ndarray) -> Rows:
        return Rows(
            files=(path,),
            file=np.zeros(len(rows), int),
            row=rows,
            inputs={
                "atoms": molecules.atoms[rows].astype(np.int32),
                "positions": molecules.positions[rows],
            },
            targets={name: values[rows] for name, values in targets.items()},
            faults={
                index: molecules.faults[row]
                for index, row in enumerate(rows.tolist())
                if row in molecules.faults
            },
            ids=None if ids is None else ids[rows].astype(object),
        )

    return Dataset(
        name="qm9",
        tasks=tasks,
        splits={name: source(rows) for name, rows in splits.items()},
        inputs=Molecules(molecules.atoms.shape[1], max(ELEMENTS) + 1),
        notes=tuple(notes),
    )


def _file(root: Path) -> Path:
    places = (
        [root]
        if root.suffix == ".npz"
        else [root / name for name in ("qm9.npz", "qm9_eV.npz")]
    )
    for path in places:
        if path.is_file():
            return path
    beside = sorted(each.name for each in places[0].parent.glob("*"))
    raise BadLayout(
        places[0],
        f"there is no such file; beside it are {', '.join(beside[:20]) or 'none'}",
        "Put qm9.npz there. PyG's raw and processed files are not read: save their "
        "arrays with np.savez(Z=..., R=..., N=..., mu=...).",
    )


def _targets(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    molecules: Padded,
    train: np.ndarray,
    notes: list[str],
) -> tuple[tuple[Task, ...], dict[str, np.ndarray]]:
    """Tasks by name, and their standardised labels; notes what the file has not."""
    columns = {
        f"{name}_atom" if f"{name}_atom" in arrays else name: name for name in UNITS
    }
    missing = sorted(column for column in columns if column not in arrays)
    if len(missing) == len(columns):
        raise BadLayout(
            path,
            "it holds no property of QM9",
            f"Name the arrays as these: {', '.join(UNITS)}.",
        )
    if missing:
        notes.append(f"The file has no {', '.join(missing)}: these are no tasks.")
    tasks, targets = [], {}
    for column in sorted(set(columns) - set(missing)):
        unit, factor = UNITS[columns[column]]
        values = _labels(path, column, arrays[column], len(molecules.atoms))
        if column == "homo" and np.isfinite(values).any():
            _in_electronvolts(path, values)
        if column in ATOMISATION and _size(values) > 1000:
            notes.append(
                f"{column} are total energies, not those of atomisation with which "
                "published errors were made: most of them is the count of atoms."
            )
        wrong = np.abs(values) > LARGEST
        for row in np.flatnonzero(wrong).tolist():
            found = f"{column} is {values[row]:g}"
            cure = "Mend it, or write NaN for missing."
            molecules.faults.setdefault(row, (found, cure))
        values = factor * np.where(wrong, np.nan, values)
        known = values[train][~np.isnan(values[train])]
        if not len(known) or known.min() == known.max():
            raise BadData(
                path,
                f"{column} has {'one' if len(known) else 'no'} value in training",
                "There is nothing to learn: take the array out.",
            )
        mean, sd = float(known.mean()), float(known.std())
        tasks.append(Task(column, "regression", mean=mean, sd=sd, unit=unit))
        targets[column] = ((values - mean) / sd).astype(np.float32)
    return tuple(tasks), targets


def _labels(path: Path, name: str, array: np.ndarray, count: int) -> np.ndarray:
    """A property `[M]` in float64."""
    if array.shape not in ((count,), (count, 1)):
        raise BadData(
            path,
            f"{name} has shape {array.shape}, and there are {count} molecules",
            "It has one value a molecule.",
        )
    return array.reshape(-1).astype(np.float64)


def _in_electronvolts(path: Path, homo: np.ndarray) -> None:
    """Raises unless energies have the size of QM9's: HOMO is about -6.5 eV."""
    if not 1 < _size(homo) < 100:
        raise BadData(
            path,
            f"homo is about {_size(homo):.3g} in size, which is not in eV",
            "QM9's is 6.5 eV. Multiply energies in Hartree (0.24) by 27.2114.",
        )


def _size(values: np.ndarray) -> float:
    """The median of the finite ones without their signs; NaN if there is none."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.median(known)) if len(known) else np.nan


def _splits(count: int) -> dict[str, np.ndarray]:
    """Molecules of each split, in the order of the file."""
    held = HELD_OUT if count >= 100_000 else max(1, round(count * HELD_OUT / ALL))
    order = np.random.default_rng(SEED).permutation(count)
    cut = {
        "train": order[2 * held :],
        "val": order[:held],
        "test": order[held : 2 * held],
    }
    return {name: np.sort(rows) for name, rows in cut.items()}
