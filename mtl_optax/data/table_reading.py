"""Columns out of CSV and Parquet files, with the row at which each value stands."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.table_description import listed, near
from mtl_optax.data.table_values import Missing, Numbers, numbers

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Table:
    """The columns of one file that were asked for."""

    path: Path
    rows: np.ndarray  # [M] int64, as the user sees them: a header is row 1
    numbers: dict[str, Numbers]
    texts: Mapping[str, Any]  # of Arrow

    def __len__(self) -> int:
        return len(self.rows)


def read_table(
    path: Path,
    numeric: Iterable[str],
    textual: Iterable[str],
    missing: Missing,
    delimiter: str | None = None,
    asked_by: Path | None = None,
) -> Table:
    """Reads columns of a file, of `numeric` as numbers, of `textual` as they stand.

    Raises `BadData` for a file that is no table, and `BadLayout`, in the name of
    `asked_by`, for a column that it does not have.
    """
    numeric, textual = list(dict.fromkeys(numeric)), list(dict.fromkeys(textual))
    names = header(path, delimiter)
    for name in (*numeric, *textual):
        if name not in names:
            raise BadLayout(
                asked_by or path,
                f"{path.name} has no column {name!r}",
                f"It has {listed(names)}{near(name, names)}.",
            )
    if path.suffix in PARQUET:
        table = _read_parquet(path, numeric, textual, missing)
    else:
        with _unpacked(path):
            table = _read_csv(path, numeric, textual, missing, delimiter)
    if not len(table):
        raise BadData(path, "it has columns, but no row", "Put rows into it.")
    return table


def header(path: Path, delimiter: str | None = None) -> list[str]:
    """The names of a file's columns."""
    if not path.is_file():
        beside = sorted(each.name for each in path.parent.glob("*"))
        raise BadLayout(
            path,
            "it is no file, but a folder"
            if path.is_dir()
            else f"there is no such file; beside it are {listed(beside) or 'none'}",
            f"Put the file there, or mend its name{near(path.name, beside)}.",
        )
    if path.suffix in PARQUET:
        with _parquet_faults(path):
            import pyarrow.parquet

            names = list(pyarrow.parquet.read_schema(path).names)
    else:
        with _unpacked(path), _text(path) as lines:
            names = next(csv.reader(lines, delimiter=_delimiter(path, delimiter)), [])
        if not names:
            raise BadData(path, "the file is empty", "Its first row names the columns.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadData(
            path,
            f"columns of one name: {listed(twice)}",
            "Rename one of each, or take it out.",
            row=1,
        )
    return names


def _read_parquet(
    path: Path, numeric: list[str], textual: list[str], missing: Missing
) -> Table:
    import pyarrow as pa
    import pyarrow.parquet

    with _parquet_faults(path):
        columns = {
            name: pyarrow.parquet.read_table(path, columns=[name]).column(0)
            for name in dict.fromkeys((*numeric, *textual))
        }
    for name, column in columns.items():
        if pa.types.is_dictionary(column.type):
            columns[name] = column = column.cast(column.type.value_type)
        kind = column.type
        fits = (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_null(kind)
        )
        if name in numeric and not fits:
            raise BadData(
                path,
                f"column {name!r} is of type {kind}",
                "Write it as numbers, for instance days since the first date.",
            )
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise BadData(
                path,
                f"column {name!r} is of type {kind}",
                "A cell is one number or one text: make columns of it.",
            )
    return Table(
        path,
        np.arange(1, 1 + len(next(iter(columns.values()), ()))),
        {name: numbers(columns[name], missing, missing.empty) for name in numeric},
        {name: columns[name] for name in textual},
    )


def _read_csv(
    path: Path,
    numeric: list[str],
    textual: list[str],
    missing: Missing,
    delimiter: str | None,
) -> Table:
    import pyarrow as pa

    types = {name: pa.float64() for name in numeric}
    # A column may be both, and then is read as it stands.
    types.update((name, pa.string()) for name in textual)
    try:
        table = _parse(path, types, missing, delimiter)
    except pa.ArrowInvalid:
        # Some cell is no number: all as texts, to say which.
        types = dict.fromkeys(types, pa.string())
        try:
            table = _parse(path, types, missing, delimiter)
        except pa.ArrowInvalid as error:
            raise BadData(
                path,
                f"it cannot be read as CSV: {error}",
                "Save it as CSV in UTF-8, with one row a line.",
            ) from error
    rows = _rows(path, len(table), delimiter)
    columns = {name: table.column(name) for name in types}
    texts = {name: columns[name] for name in textual}
    del table
    # Each column of Arrow goes when its numbers are there: memory is for one of both.
    # Its nulls were declared missing: another empty cell would not have parsed.
    found = {
        name: numbers(columns.pop(name), missing, null_is_missing=True)
        for name in numeric
    }
    pa.default_memory_pool().release_unused()
    return Table(path, rows, found, texts)


def _parse(
    path: Path, types: dict[str, Any], missing: Missing, delimiter: str | None
) -> Any:
    """The columns of `types` out of a CSV file."""
    from pyarrow import csv as arrow

    ragged = []

    def refuse(row: Any) -> str:
        ragged.append(row)
        return "skip"

    table = arrow.read_csv(
        str(path),
        # One thread alone numbers the rows that do not fit.
        read_options=arrow.ReadOptions(use_threads=False),
        parse_options=arrow.ParseOptions(
            delimiter=_delimiter(path, delimiter),
            newlines_in_values=True,
            invalid_row_handler=refuse,
        ),
        convert_options=arrow.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=sorted(missing.texts),
            strings_can_be_null=False,
        ),
    )
    if ragged:
        first = ragged[0]
        rows = _rows(path, len(table) + len(ragged), delimiter)
        raise BadData(
            path,
            f"{first.actual_columns} cells ({first.text[:60]!r}), where the header has "
            f"{first.expected_columns}; {len(ragged)} such rows in all",
            "Put cells that hold the delimiter into quotes, or name the delimiter: "
            'delimiter = ";".',
            row=int(rows[first.number - 2]),
        )
    return table


def _rows(path: Path, count: int, delimiter: str | None) -> np.ndarray:
    """At which line each row starts, past empty lines and lines within quotes."""
    if _lines(path) == count + 1:
        return np.arange(2, count + 2)
    with _text(path) as lines:
        reader = csv.reader(lines, delimiter=_delimiter(path, delimiter), strict=True)
        found, start = [], 1
        try:
            for row in reader:
                if row:
                    found.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            raise BadData(
                path,
                f"a quote that opens there does not close: {error}",
                'Close it, or write a quote within a text as "".',
                row=start,
            ) from error
    if len(found) != count + 1:
        raise BadData(
            path,
            f"{len(found) - 1} rows by their quotes, but {count} by Arrow",
            "Save the file again with a program that quotes every text.",
        )
    return np.array(found[1:], np.int64)


def _lines(path: Path) -> int:
    """How many lines a file has, the last one with or without its end."""
    import pyarrow as pa

    count, last = 0, b"\n"
    with pa.input_stream(str(path)) as stream:
        while block := stream.read(1 << 20):
            count, last = count + block.count(b"\n"), block[-1:]
    return count + (last != b"\n")


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOWrapper]:
    """A file's text, without its mark of UTF-8, unpacked where its name says .gz."""
    import pyarrow as pa

    with pa.input_stream(str(path)) as stream:
        try:
            yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            raise BadData(
                path, f"it is not in UTF-8: {error}", "Save it in UTF-8."
            ) from error


@contextmanager
def _unpacked(path: Path) -> Iterator[None]:
    """Arrow's faults of a file that ends in .gz; those of the system have a number."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadData(
            path,
            f"it cannot be unpacked: {error}",
            "Copy it again; only gzip files end in .gz.",
        ) from error


@contextmanager
def _parquet_faults(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData(
            path,
            f"it cannot be read as Parquet: {error}",
            "Write or copy it again; a CSV file ends in .csv.",
        ) from error


def _delimiter(path: Path, delimiter: str | None) -> str:
    return delimiter or ("\t" if ".tsv" in path.suffixes else ",")
