"""Cells of a table: what counts as missing, and numbers and texts out of columns."""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"


class Missing(NamedTuple):
    """Values that stand for "not known"."""

    texts: frozenset[str]
    numbers: frozenset[float]  # -1 is missing as -1, -1.0 and "-1"

    @classmethod
    def of(cls, values: Iterable[str | float]) -> "Missing":
        """From a list as TOML has it."""
        texts = {plain(str(value)) for value in values}
        numbers = {number for text in texts if (number := as_number(text)) is not None}
        return cls(frozenset(texts), frozenset(numbers))

    def has(self, text: str) -> bool:
        """Whether a plain text is one."""
        return text in self.texts or as_number(text) in self.numbers

    @property
    def empty(self) -> bool:
        """Whether empty cells are (null in Parquet)."""
        return "" in self.texts

    @property
    def nan(self) -> bool:
        """Whether "nan" is."""
        return any(text.lower() == "nan" for text in self.texts)


class Numbers(NamedTuple):
    """A column of numbers."""

    values: np.ndarray  # [M] float64, NaN where there is none
    bad: dict[int, str]  # from rows to what stands there, where it is no number


class Texts(NamedTuple):
    """A column of texts, each distinct one once."""

    codes: np.ndarray  # [M] int32 into `values`, -1 where the cell is missing
    values: list[str]
    bad: dict[int, str]


def plain(text: str) -> str:
    """Without spaces around, and an integer without ".0"."""
    text = text.strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def as_number(text: str) -> float | None:
    """The finite number that a text is, or None."""
    return float(text) if re.match(NUMBER, text) else None


def numbers(column: Any, missing: Missing, null_is_missing: bool) -> Numbers:
    """A column of Arrow as numbers; true and false are 1 and 0.

    A missing value is NaN. What is neither that nor a finite number is in `bad`.
    """
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _numbers_in_text(column, missing)
    empty = column.is_null().to_numpy()
    # With nulls as NaN, which are told apart by `empty`.
    # Unsafe: integers beyond 2^53 may be rounded here.
    values = (
        column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64, copy=True)
    )
    unknown = np.isin(values, list(missing.numbers))
    if null_is_missing:
        unknown |= empty
    if missing.nan:
        unknown |= np.isnan(values) & ~empty
    bad = np.flatnonzero(~np.isfinite(values) & ~unknown)
    found = {int(row): "" if empty[row] else str(values[row]) for row in bad}
    values[unknown | ~np.isfinite(values)] = np.nan
    return Numbers(values, found)


def texts(column: Any, missing: Missing) -> Texts:
    """A column of Arrow as texts without spaces around; digits are kept exactly."""
    import pyarrow as pa

    coded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    codes = coded.indices.fill_null(-1).to_numpy().astype(np.int32)
    written = [plain(text) for text in coded.dictionary.to_pylist()]
    values = sorted({text for text in written if not missing.has(text)})
    number = {text: code for code, text in enumerate(values)}
    # The last entry is what -1, an empty cell of Parquet, finds.
    table = np.array([*(number.get(text, -1) for text in written), -1], np.int32)
    bad: dict[int, str] = {}
    if not missing.empty:
        bad = {int(row): "" for row in np.flatnonzero(codes < 0)}
    return Texts(table[codes], values, bad)


def mean_and_sd(values: np.ndarray) -> tuple[float, float]:
    """Of a column without its NaN; the sd of a constant is 0."""
    known = values[~np.isnan(values)]
    if known.min() == known.max():  # whose sd is a rounding error
        return float(known[0]), 0.0
    # Squares of 1e200 overflow, those of ratios do not.
    scale = float(np.max(np.abs(known)))
    return float(np.mean(known / scale)) * scale, float(np.std(known / scale)) * scale


def _numbers_in_text(column: Any, missing: Missing) -> Numbers:
    """Of a column some cells of which are no numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_ltrim(pc.utf8_trim_whitespace(column), "+")
    digits = pc.fill_null(pc.match_substring_regex(trimmed, NUMBER), False)
    values = pc.if_else(digits, trimmed, None).cast(pa.float64()).to_numpy()
    values = values.astype(np.float64, copy=True)
    # What is declared needs no look: of a sparse label that is most cells.
    declared = pc.is_in(trimmed, pa.array(sorted(missing.texts), trimmed.type))
    odd = ~digits.to_numpy() & ~declared.to_numpy() | np.isinf(values)
    bad: dict[int, str] = {}
    for row in np.flatnonzero(odd):
        text = plain(column[int(row)].as_py() or "")
        if text.lower() in ("true", "false"):
            values[row] = text.lower() == "true"
        elif not missing.has(text):
            bad[int(row)] = text
            values[row] = math.nan
    values[np.isin(values, list(missing.numbers))] = np.nan
    return Numbers(values, bad)
