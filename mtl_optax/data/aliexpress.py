"""Logs of AliExpress's search, as MTReclib and LibMTL have them."""

import re
from pathlib import Path

import numpy as np

from mtl_optax.data.dataset import Columns, Dataset, Task
from mtl_optax.data.faults import BadLayout
from mtl_optax.data.table_description import TaskColumn, listed
from mtl_optax.data.table_inputs import categories, standardised
from mtl_optax.data.table_labels import labels, some_in_training
from mtl_optax.data.table_reading import header, read_table
from mtl_optax.data.table_rows import Frame, Splits
from mtl_optax.data.table_splits import carve
from mtl_optax.data.table_values import Missing

SUFFIXES = (".csv", ".csv.gz", ".parquet")
VAL, SEED = 0.1, 0  # of train, where there is no file for validation
NOTHING, EMPTY = Missing.of([]), Missing.of([""])
CLICK = TaskColumn("click", "binary", "click", NOTHING, None, metric="auc")
CONVERSION = TaskColumn("conversion", "binary", "conversion", EMPTY, None, metric="auc")

SPACE = (
    "Conversion is learned and measured over all rows: its probability is the product "
    "of both, and a row without a click is one without a conversion.",
)


def open_aliexpress(root: Path | str, *, entire_space: bool = False) -> Dataset:
    r"""Opens logs of a shop: who clicked, and who bought after the click.

    The layout of MTReclib, which LibMTL reads too::

        AliExpress_NL/
          train.csv      search_id, categorical_1 .. categorical_16,
          test.csv       numerical_1 .. numerical_63, click, conversion

    or any files of that form: `.csv`, `.csv.gz` or `.parquet`, with any number of
    columns `categorical_*` and `numerical_*`, `click` and `conversion` of 0 and 1, and
    an optional `val` beside `train`. Other columns are not read. Without `val`, a tenth
    of `train` is taken for it by a fixed seed, searches (`search_id`) as a whole.

    Whether a row converts is known for clicked rows only. So the label of "conversion"
    is missing where click is 0, and its network learns p(conversion | click). With
    `entire_space` the label is click times conversion, known everywhere; the task has
    `given="click"`, and what is compared with it is the product of both probabilities.

    Args:
      root: the folder of `train`, or one with a single `AliExpress_*` in it.
      entire_space: as said.

    Returns:
      A `Dataset` of tasks "click" and "conversion", both `binary` with metric "auc",
      and inputs `Columns`; numbers are standardised by the training split, and
      category 0 is what training does not have. A row that converts without a click
      raises `BadData` when it is read.

    Raises:
      BadLayout: no `train`, or no columns of those names.
      BadData: a file is no table, see :func:`~mtl_optax.data.table.open_table`; no
        click in training.

    Cost: 4 bytes a cell in memory, and about five times that while files are read.

    When not to use it: for other names of columns or tasks; describe those to
    :func:`~mtl_optax.data.table.open_table`.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from mtl_optax.data.aliexpress import open_aliexpress
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "train.csv").write_text(
      ...     "categorical_1,numerical_1,click,conversion\n"
      ...     + "7,0.5,0,0\n7,1.5,1,1\n" * 5
      ... )
      >>> dataset = open_aliexpress(folder)
      >>> dataset.names, dataset.inputs
      (('click', 'conversion'), Columns(numbers=1, categories=(2,)))
      >>> {name: int(y) for name, y in dataset.splits["train"][0]["targets"].items()}
      {'click': 0, 'conversion': -1}

    References:
      Li et al., `Improving Multi-Scenario Learning to Rank in E-commerce by Exploiting
      Task Relationships in the Label Space <https://doi.org/10.1145/3340531.3412713>`_,
      2020; Ma et al., `Entire Space Multi-Task Model
      <https://arxiv.org/abs/1804.07931>`_, 2018.
    """
    files = _files(Path(root))
    names = header(files["train"])
    numeric, categorical = (
        sorted((name for name in names if name.startswith(start)), key=_numbered)
        for start in ("numerical_", "categorical_")
    )
    if not numeric + categorical:
        raise BadLayout(
            files["train"],
            f"no column is called categorical_* or numerical_*; it has {listed(names)}",
            "Rename the inputs, or describe the file to `table` with a TOML.",
        )
    searches = ["search_id"] if "search_id" in names and "val" not in files else []
    frame = Frame(
        [
            read_table(
                path,
                numeric,
                [*categorical, "click", "conversion", *searches],
                missing=EMPTY,
            )
            for path in files.values()
        ],
        described=False,
    )
    splits = _splits(frame, list(files), searches)
    numbers = standardised(frame, numeric, splits)
    known, sizes = categories(frame, categorical, EMPTY, splits)
    tasks, targets = _targets(frame, splits, entire_space)
    return Dataset(
        name="aliexpress",
        tasks=tasks,
        splits={
            name: frame.source(rows, numbers, known, targets)
            for name, rows in splits.items()
        },
        inputs=Columns(numbers.shape[1], sizes),
        notes=(*frame.notes, *(SPACE if entire_space else ())),
    )


def _targets(
    frame: Frame, splits: Splits, entire_space: bool
) -> tuple[tuple[Task, Task], dict[str, np.ndarray]]:
    """Both tasks, and their labels."""
    click_task, click = labels(frame, CLICK, splits)
    conversion_task, conversion = labels(frame, CONVERSION, splits)
    frame.fault(
        np.flatnonzero((conversion == 1) & (click == 0)),
        "conversion is 1 where click is 0",
        "Nobody buys without a click: mend one of them.",
    )
    if entire_space:
        conversion = np.where(click == 0, 0, conversion)
        conversion_task = Task("conversion", "binary", 2, metric="auc", given="click")
    else:
        conversion = np.where(click == 1, conversion, -1)
    some_in_training(frame, CONVERSION, conversion >= 0, splits)
    targets = {"click": click, "conversion": conversion.astype(np.int32)}
    return (click_task, conversion_task), targets


def _files(root: Path) -> dict[str, Path]:
    """From splits to their files; `train` is there."""
    inside = [root, *sorted(root.glob("AliExpress_*"))]
    found = [folder for folder in inside if _file(folder, "train")]
    if len(found) != 1:
        beside = sorted(path.name for path in root.glob("*"))
        raise BadLayout(
            root,
            f"{len(found)} folders with a train{'/'.join(SUFFIXES)}, of it and the "
            f"AliExpress_* in it; it holds {listed(beside) or 'nothing'}",
            "Give the folder of one country, which holds train.csv and test.csv.",
        )
    paths = {name: _file(found[0], name) for name in ("train", "val", "test")}
    return {name: path for name, path in paths.items() if path}


def _file(folder: Path, name: str) -> Path | None:
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.exists()), None)


def _splits(frame: Frame, files: list[str], searches: list[str]) -> Splits:
    """A split a file; validation out of training where it has none."""
    splits = {
        name: np.arange(frame.starts[file], frame.starts[file + 1])
        for file, name in enumerate(files)
    }
    if "val" in splits:
        return splits
    groups = frame.keys("search_id").codes if searches else None
    path = frame.files[0]
    carved = carve(path, splits["train"], {"val": VAL}, SEED, groups)
    frame.notes.append(
        f"There is no file for validation: {len(carved['val'])} rows of {path.name} "
        f"are taken by seed {SEED}{', searches as a whole' if searches else ''}."
    )
    return {**carved, **{name: splits[name] for name in splits if name != "train"}}


def _numbered(name: str) -> tuple[int, str]:
    """For an order in which categorical_10 comes behind categorical_9."""
    digits = re.search(r"\d+$", name)
    return (int(digits[0]) if digits else -1), name
