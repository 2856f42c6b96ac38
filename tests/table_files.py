"""Tables with rules that a network can learn, written as users have them."""

from pathlib import Path

import numpy as np

VISITS_TOML = """\
file = "visits.csv"
id = "visit"
groups = "patient"
missing = ["", "NA"]

[inputs]
numeric = ["age", "pressure"]
categorical = ["sex", "ward"]

[tasks.outcome]
kind = "class"
column = "goes_to"
classes = ["home", "care", "ward"]

[tasks.died]
kind = "binary"
metric = "auc"

[tasks.pain]
kind = "ordinal"
levels = ["none", "some", "much"]

[tasks.days]
kind = "regression"
unit = "d"
missing = [-1]

[splits]
val = 0.2
test = 0.2
"""


def visits(rows: int, seed: int = 0) -> dict[str, list[str]]:
    """Columns of a table of hospital visits: labels follow age, pressure and ward."""
    rng = np.random.default_rng(seed)
    age, pressure = rng.integers(18, 90, rows), rng.normal(120, 15, rows).round(1)
    ward, sex = rng.integers(0, 3, rows), rng.integers(0, 2, rows)
    level = np.clip(age // 30 + (ward == 2) - 1, 0, 2)
    days = 0.1 * age + 2 * ward + 0.05 * pressure
    text = {
        "visit": [str(2**60 + row) for row in range(rows)],
        "patient": [f"p{row // 3}" for row in range(rows)],
        "age": age.astype(str).tolist(),
        "pressure": pressure.astype(str).tolist(),
        "sex": np.array(["f", "m"])[sex].tolist(),
        "ward": np.array(["east", "west", "north"])[ward].tolist(),
        "goes_to": np.array(["home", "care", "ward"])[level].tolist(),
        "died": (pressure > 130).astype(int).astype(str).tolist(),
        "pain": np.array(["none", "some", "much"])[level].tolist(),
        "days": days.round(2).astype(str).tolist(),
    }
    # One in ten pressures and days are not known.
    for row in range(0, rows, 10):
        text["pressure"][row] = "NA"
        text["days"][(row + 5) % rows] = "-1"
    return text


def write_csv(path: Path, columns: dict[str, list[str]]) -> None:
    """As spreadsheets do, with nothing in quotes."""
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


def write_visits(root: Path, rows: int = 90, seed: int = 0) -> Path:
    """`visits.csv` and `table.toml`; one row a visit, three visits a patient."""
    root.mkdir(parents=True, exist_ok=True)
    write_csv(root / "visits.csv", visits(rows, seed))
    (root / "table.toml").write_text(VISITS_TOML)
    return root


def aliexpress(
    rows: int, categorical: int = 3, numerical: int = 4, seed: int = 0
) -> dict[str, np.ndarray]:
    """Columns as MTReclib has them: about a third of the rows have a click."""
    rng = np.random.default_rng(seed)
    categories = rng.integers(0, 5, (rows, categorical))
    numbers = rng.normal(size=(rows, numerical)).round(4)
    score = numbers[:, 0] + (categories[:, 0] == 1) - 0.5
    click = (score + 0.3 * rng.normal(size=rows) > 0).astype(int)
    conversion = click * (numbers[:, 1] > 0)
    return {
        "search_id": np.arange(rows) // 4,
        **{f"categorical_{1 + c}": categories[:, c] for c in range(categorical)},
        **{f"numerical_{1 + n}": numbers[:, n] for n in range(numerical)},
        "click": click,
        "conversion": conversion,
    }


def write_aliexpress(
    root: Path, train: int = 200, test: int = 40, suffix: str = ".csv", **sizes: int
) -> Path:
    """`train.csv` and `test.csv`, or Parquet by the suffix."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (name, rows) in enumerate({"train": train, "test": test}.items()):
        columns = aliexpress(rows, seed=seed, **sizes)
        path = root / f"{name}{suffix}"
        if suffix == ".csv":
            write_csv(
                path,
                {key: values.astype(str).tolist() for key, values in columns.items()},
            )
        else:
            import pyarrow as pa
            import pyarrow.parquet

            pyarrow.parquet.write_table(pa.table(columns), path)
    return root


QM9_COLUMNS = (
    *("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve"),
    *("U0", "U", "H", "G", "Cv", "U0_atom", "U_atom", "H_atom", "G_atom"),
)


def qm9(molecules: int, atoms: int = 9, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of `qm9.npz`, atoms end to end; targets follow the counts of elements."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(3, atoms + 1, molecules)
    elements = rng.choice(
        [1, 6, 7, 8, 9], size=counts.sum(), p=[0.5, 0.3, 0.1, 0.08, 0.02]
    )
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    hydrogens = np.add.reduceat(elements == 1, first)
    heavy = np.add.reduceat(np.where(elements > 1, elements, 0), first)
    arrays = {
        "N": counts.astype(np.int64),
        "Z": elements.astype(np.int64),
        "R": rng.normal(scale=2, size=(counts.sum(), 3)),
    }
    for number, name in enumerate(QM9_COLUMNS):
        arrays[name] = (
            hydrogens + (1 + number / 10) * heavy + 0.1 * rng.normal(size=molecules)
        )
    arrays["homo"] = -6 - 0.1 * hydrogens  # eV, as QM9's
    return arrays


def padded(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with Z `[M, A]` and R `[M, A, 3]`, zeros behind each molecule."""
    counts = arrays["N"]
    elements = np.zeros((len(counts), counts.max()), np.int64)
    positions = np.zeros((*elements.shape, 3))
    inside = np.arange(counts.max()) < counts[:, None]
    elements[inside], positions[inside] = arrays["Z"], arrays["R"]
    return {**arrays, "Z": elements, "R": positions}


def write_qm9(root: Path, molecules: int = 60, form=None, **sizes: int) -> Path:
    """`qm9.npz`; `form=padded` for the other layout."""
    root.mkdir(parents=True, exist_ok=True)
    arrays = qm9(molecules, **sizes)
    np.savez(root / "qm9.npz", **(form(arrays) if form else arrays))
    return root
