"""Any CSV or Parquet file, described by a small TOML."""

from pathlib import Path

import numpy as np

from mtl_optax.data.dataset import Columns, Dataset
from mtl_optax.data.faults import BadLayout
from mtl_optax.data.table_description import Description, read_description
from mtl_optax.data.table_inputs import categories, standardised
from mtl_optax.data.table_labels import labels
from mtl_optax.data.table_reading import Table, read_table
from mtl_optax.data.table_rows import Frame, Splits
from mtl_optax.data.table_splits import by_column, carve
from mtl_optax.data.table_values import Missing


def open_table(root: Path | str, *, description: Path | str | None = None) -> Dataset:
    r"""Opens a table as its TOML describes it.

    A complete `table.toml`; only `file`, `[inputs]`, a task and `[splits]` are needed::

        file = "visits.csv"  # or .tsv, .csv.gz, .parquet
        delimiter = ","  # of CSV
        id = "visit"  # no two rows have the same
        groups = "patient"  # rows of a patient stay in one split
        missing = ["", "NA", -1]  # means "not known"; [""] if left out

        [inputs]
        numeric = ["age", "pressure"]
        categorical = ["sex", "ward"]
        missing = ["", "NA"]  # of inputs, in place of the list above

        [tasks.outcome]
        kind = "class"
        column = "discharged_to"  # the task's name if left out
        classes = ["home", "ward"]  # or how many, numbered from 0

        [tasks.died]
        kind = "binary"  # 0 and 1, or true and false
        metric = "auc"  # or "f1", "accuracy"

        [tasks.pain]
        kind = "ordinal"
        levels = ["none", "some", "much"]  # from low to high; or how many

        [tasks.days]
        kind = "regression"
        loss = "absolute"  # or "squared"
        unit = "d"
        missing = [-1]

        [splits]
        val = 0.1  # fractions of `file`,
        test = 0.2
        seed = 0

    A split may be a file instead of a fraction (`train = "train.csv"`, in place of
    `file`; `test = "test.csv"`; `val = 0.1` of the training file), or all may be in a
    column of the one file: `column = "split"`, which holds train, val and test.

    Numbers are standardised by the mean and standard deviation of the training split,
    those of inputs and those of regression labels. A missing input is the mean, with
    an input of its own that says so; a missing category, and one that training has
    not, is 0. Missing labels count nowhere. Texts and integers are compared as they
    are written, up to spaces around them and ".0" after an integer, so long ids keep
    their digits.

    Args:
      root: the folder of the files, with `table.toml` in it; or the TOML itself, beside
        the files.
      description: the TOML, if it lies elsewhere.

    Returns:
      A `Dataset` of one `Source` a split, with inputs `Columns`. Bad rows raise
      `BadData` when they are read; a row is a line of a CSV file, where the header is
      1, and counts from 1 in Parquet. `Source.ids` are the ids, or None.

    Raises:
      BadLayout: the TOML has an unknown key or value, or names a file or a column that
        is not there.
      BadData: a file is no table, has rows of unlike length, a quote that never closes
        or columns of one name; a task has no label in training, or one value only;
        a group is in two splits.

    Cost: the columns that are named are held in memory, 4 bytes a cell, and about five
    times that while they are read.

    When not to use it: for tables larger than memory.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from mtl_optax.data.table import open_table
      >>> folder = Path(tempfile.mkdtemp())
      >>> rows = "".join(f"{age},{age / 3},{age % 2}\n" for age in range(20, 40))
      >>> _ = (folder / "people.csv").write_text("age,dose,ill\n" + rows)
      >>> _ = (folder / "table.toml").write_text('''
      ... file = "people.csv"
      ... inputs.numeric = ["age"]
      ... tasks.ill.kind = "binary"
      ... tasks.dose.kind = "regression"
      ... splits.val = 0.25
      ... ''')
      >>> dataset = open_table(folder)
      >>> dataset.names, dataset.inputs
      (('dose', 'ill'), Columns(numbers=1, categories=()))
      >>> len(dataset.splits["train"]), len(dataset.splits["val"])
      (15, 5)
    """
    path, folder = _description(Path(root), description)
    described = read_description(path)
    tables = {name: _read(described, folder, name) for name in described.files}
    frame = Frame(list(tables.values()))
    splits = _splits(described, frame, list(tables))
    numbers = standardised(frame, described.numeric, splits)
    known, sizes = categories(frame, described.categorical, described.missing, splits)
    made = [labels(frame, task, splits) for task in described.tasks]
    tasks = tuple(task for task, _ in made)
    targets = {task.name: values for task, values in made}
    ids = None
    if described.id is not None:
        column = frame.keys(described.id)
        # As objects: an id of NumPy is shown with its type in messages.
        ids = np.array([*column.values, ""], object)[column.codes]
    return Dataset(
        name="table",
        tasks=tasks,
        splits={
            name: frame.source(rows, numbers, known, targets, ids)
            for name, rows in splits.items()
        },
        inputs=Columns(numbers.shape[1], sizes),
        notes=tuple(frame.notes),
    )


def _description(root: Path, given: Path | str | None) -> tuple[Path, Path]:
    """The TOML, and the folder of the files."""
    if given is None:
        path = root if root.suffix == ".toml" else root / "table.toml"
    else:
        path = Path(given)
    if not path.is_file():
        beside = sorted(each.name for each in path.parent.glob("*.toml"))
        raise BadLayout(
            path,
            f"there is no such file ({', '.join(beside) or 'no TOML'} in that folder)",
            "Write one that names inputs, tasks and splits, as docs/data.md shows, or "
            "give the path of yours.",
        )
    return path, root if root.is_dir() else path.parent


def _read(described: Description, folder: Path, split: str) -> Table:
    """One file, with the columns that are named anywhere."""
    textual = [
        *described.categorical,
        *(task.column for task in described.tasks),
        *filter(None, (described.id, described.groups, described.split_column)),
    ]
    return read_table(
        folder / described.files[split],
        numeric=described.numeric,
        textual=textual,
        missing=described.missing,
        delimiter=described.delimiter,
        asked_by=described.path,
    )


def _splits(described: Description, frame: Frame, files: list[str]) -> Splits:
    """Rows of "train", "val" and "test"."""
    groups = None
    if described.groups is not None:
        groups = frame.keys(described.groups).codes
    if described.split_column is not None:
        splits = _by_column(described, frame)
    else:
        rows = {
            name: np.arange(frame.starts[file], frame.starts[file + 1])
            for file, name in enumerate(files)
        }
        first = rows.pop(files[0])
        rest = carve(described.path, first, described.fractions, described.seed, groups)
        if described.fractions:
            sizes = ", ".join(f"{len(rest[name])} rows of {name}" for name in rest)
            whole = (
                f" and whole groups of {described.groups!r}" if described.groups else ""
            )
            frame.notes.append(
                f"Fractions of {frame.files[0].name} by seed {described.seed}{whole}: "
                f"{sizes}."
            )
        both = {**rest, **rows}
        splits = {name: both[name] for name in ("train", "val", "test") if name in both}
    if groups is not None:
        _together(described, frame, splits, groups)
    return splits


def _by_column(described: Description, frame: Frame) -> Splits:
    """What the column of splits says."""
    name = described.split_column or ""
    cure = "It says train, val or test."
    splits, unknown = by_column(frame.texts(name, Missing.of([""])))
    for row, text in unknown.items():
        raise frame.bad(row, f"column {name!r} holds {text!r}", cure)
    for split in ("train", "val"):
        if split not in splits:
            raise BadLayout(
                described.path, f"column {name!r} has no row of {split}", cure
            )
    return splits


def _together(
    described: Description, frame: Frame, splits: Splits, groups: np.ndarray
) -> None:
    """Raises where a group is in two splits."""
    seen: dict[int, str] = {}
    for name, rows in splits.items():
        own, first = np.unique(groups[rows], return_index=True)
        for group, row in zip(own.tolist(), rows[first], strict=True):
            if group >= 0 and group in seen:
                raise frame.bad(
                    int(row),
                    f"a row of {name} is of a group of {seen[group]} (column "
                    f"{described.groups!r})",
                    "Move all rows of a group into one split, or let fractions do it.",
                )
        seen.update(dict.fromkeys(own.tolist(), name))
