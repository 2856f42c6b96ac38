"""What `table.toml` says of a table, read and checked; no data are read here."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mtl_optax.data.faults import BadLayout
from mtl_optax.data.table_values import Missing, plain

TOP = ("file", "delimiter", "id", "groups", "missing", "inputs", "tasks", "splits")
INPUTS = ("numeric", "categorical", "missing")
SPLITS = ("train", "val", "test", "column", "seed")
OF_ALL = ("kind", "column", "missing")  # keys of every task
KEYS = {  # of a task, by its kind, and which metric or loss it may name
    "class": ("classes",),
    "binary": ("classes", "metric"),
    "ordinal": ("levels",),
    "regression": ("loss", "unit"),
}
CHOICES = {
    "metric": ("accuracy", "f1", "auc"),
    "loss": ("squared", "absolute"),
}


@dataclass(frozen=True)
class TaskColumn:
    """A task, and the column that has its labels."""

    name: str
    kind: str
    column: str
    missing: Missing
    choices: tuple[str, ...] | None  # classes or levels in order; None: from the data
    metric: str = ""
    loss: str = "squared"
    unit: str = ""


@dataclass(frozen=True)
class Description:
    """All of it. Paths are as the TOML has them."""

    path: Path  # of the TOML
    files: Mapping[str, str]  # from splits to files of their own; {"": file} if one
    fractions: Mapping[str, float]  # of the first file's rows: "val", "test"
    split_column: str | None
    seed: int
    delimiter: str | None
    id: str | None
    groups: str | None
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    missing: Missing  # of inputs
    tasks: tuple[TaskColumn, ...]  # sorted by name


def read_description(path: Path) -> Description:
    """Reads a TOML; raises `BadLayout` with what is wrong and how to mend it."""
    try:
        top = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadLayout(
            path, f"this is no TOML: {error}", "Strings stand in quotes, lists in [ ]."
        ) from error
    return _Reader(path).description(top)


class _Reader:
    """Takes values out of the parsed TOML, and complains in its name."""

    def __init__(self, path: Path):
        self.path = path

    def description(self, top: Mapping[str, Any]) -> Description:
        self.known("the top of the file", top, TOP)
        everywhere = self.missing("missing", top.get("missing", [""]))
        inputs = self.table("inputs", top)
        self.known("[inputs]", inputs, INPUTS)
        numeric = self.strings("inputs.numeric", inputs.get("numeric", []))
        categorical = self.strings("inputs.categorical", inputs.get("categorical", []))
        self.inputs_are_sound(numeric + categorical)
        tasks = self.tasks(self.table("tasks", top), everywhere)
        for task in tasks:
            if task.column in numeric + categorical:
                raise self.bad(
                    f"column {task.column!r} is an input and the label of task "
                    f"{task.name!r}",
                    "A network would copy it: take it out of [inputs].",
                )
        splits = self.table("splits", top)
        self.known("[splits]", splits, SPLITS)
        files, fractions, column = self.splits(top.get("file"), splits)
        seed = splits.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise self.bad(f"splits.seed is {seed!r}", "Give an integer from 0.")
        delimiter = self.string("delimiter", top.get("delimiter"))
        if delimiter is not None and len(delimiter) != 1:
            raise self.bad(f"delimiter is {delimiter!r}", "Give one character.")
        return Description(
            path=self.path,
            files=files,
            fractions=fractions,
            split_column=column,
            seed=seed,
            delimiter=delimiter,
            id=self.string("id", top.get("id")),
            groups=self.string("groups", top.get("groups")),
            numeric=numeric,
            categorical=categorical,
            missing=(
                self.missing("inputs.missing", inputs["missing"])
                if "missing" in inputs
                else everywhere
            ),
            tasks=tasks,
        )

    def inputs_are_sound(self, columns: tuple[str, ...]) -> None:
        if not columns:
            raise self.bad(
                "[inputs] names no column",
                'Add numeric = ["..."], categorical = ["..."], or both.',
            )
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise self.bad(
                f"[inputs] names {listed(twice)} twice",
                "A column is numeric or categorical, once.",
            )

    def tasks(
        self, tables: Mapping[str, Any], missing: Missing
    ) -> tuple[TaskColumn, ...]:
        if not tables:
            raise self.bad(
                "there is no task",
                'Add one, for instance [tasks.price] with kind = "regression".',
            )
        return tuple(self.task(name, tables[name], missing) for name in sorted(tables))

    def task(self, name: str, table: Any, missing: Missing) -> TaskColumn:
        here = f"[tasks.{name}]"
        if not isinstance(table, Mapping):
            raise self.bad(
                f"tasks.{name} is {table!r}", f'Write {here} and kind = "..." below it.'
            )
        kind = table.get("kind")
        if "kind" not in table:
            every = {"kind", *OF_ALL, *(key for keys in KEYS.values() for key in keys)}
            self.known(f"{here}", table, tuple(sorted(every)))
        if kind not in KEYS:
            raise self.bad(
                f"{here} has kind {kind!r}"
                if "kind" in table
                else f"{here} has no kind",
                f"A kind is one of {listed(KEYS)}{near(str(kind), KEYS)}.",
            )
        self.known(f"{here}, of kind {kind},", table, (*OF_ALL, *KEYS[kind]))
        words: dict[str, Any] = {
            key: self.string(f"tasks.{name}.{key}", table[key])
            for key in ("metric", "loss", "unit")
            if key in table
        }
        for key, choices in CHOICES.items():
            if key in words and words[key] not in choices:
                raise self.bad(
                    f"tasks.{name}.{key} is {words[key]!r}",
                    f"It is one of {listed(choices)}.",
                )
        if "missing" in table:
            missing = self.missing(f"tasks.{name}.missing", table["missing"])
        return TaskColumn(
            name=name,
            kind=kind,
            column=self.string(f"tasks.{name}.column", table.get("column")) or name,
            missing=missing,
            choices=self.choices(name, kind, table),
            **words,
        )

    def choices(
        self, name: str, kind: str, table: Mapping[str, Any]
    ) -> tuple[str, ...] | None:
        """Classes or levels as text: a list in order, or how many integers from 0."""
        key = "levels" if kind == "ordinal" else "classes"
        given = table.get(key)
        if given is None:
            return None
        where = f"tasks.{name}.{key}"
        if isinstance(given, int) and not isinstance(given, bool):
            given = list(range(given))
        if not isinstance(given, list) or not all(
            isinstance(value, str | int) for value in given
        ):
            raise self.bad(
                f"{where} is {given!r}",
                "Give a list of names or integers, in order, or how many there are.",
            )
        # TOML's true is true in CSV, not Python's True.
        names = tuple(
            plain(str(value).lower() if isinstance(value, bool) else str(value))
            for value in given
        )
        if len(set(names)) < max(2, len(names)):
            raise self.bad(
                f"{where} has fewer than two values, or one twice: {listed(names)}",
                "List each once.",
            )
        if kind == "binary" and len(names) != 2:
            raise self.bad(
                f"{where} has {len(names)} values",
                'A binary task has two, "no" first. With more, kind = "class".',
            )
        return names

    def splits(
        self, file: Any, splits: Mapping[str, Any]
    ) -> tuple[dict[str, str], dict[str, float], str | None]:
        """From splits to files, from splits to fractions of the first, and a column."""
        example = 'Give val = 0.1 (a fraction), a file each, or column = "...".'
        given = {
            name: splits[name] for name in ("train", "val", "test") if name in splits
        }
        column = self.string("splits.column", splits.get("column"))
        if column is not None:
            if given or file is None:
                raise self.bad(
                    "splits.column goes with one file and nothing else of [splits]",
                    'Write file = "..." at the top, and take train, val, test out.',
                )
            return {"": self.string("file", file) or ""}, {}, column
        files = {name: value for name, value in given.items() if isinstance(value, str)}
        fractions = {name: value for name, value in given.items() if name not in files}
        for name, value in fractions.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self.bad(f"splits.{name} is {value!r}", example)
            if not 0 < value < 1:
                raise self.bad(
                    f"splits.{name} is {value}", "A fraction lies between 0 and 1."
                )
        if sum(fractions.values()) >= 1:
            raise self.bad("the fractions leave no row for training", "Lower them.")
        if (file is None) == ("train" not in files):
            raise self.bad(
                "one of `file` and `splits.train` must name the file to train on, and "
                f"{'none does' if file is None else 'both do'}",
                'Write file = "data.csv" at the top, or [splits] train = "train.csv".',
            )
        if "train" in fractions:
            raise self.bad(
                "splits.train is a fraction", "Training has what val and test leave."
            )
        if "val" not in given:
            raise self.bad("[splits] says nothing of val", example)
        if files.get("train", file) in (files.get("val"), files.get("test")):
            raise self.bad(
                f"{files.get('train', file)} is to train on and to measure on",
                "What was learned by heart would count: take fractions of it.",
            )
        if file is not None:
            files = {"": self.string("file", file) or "", **files}
        return files, fractions, None

    def known(self, where: str, table: Mapping[str, Any], keys: Iterable[str]) -> None:
        """Raises for the first key that nothing reads."""
        for key in table:
            if key not in keys:
                raise self.bad(
                    f"{where} has an unknown key, {key!r}",
                    f"Known are {listed(keys)}{near(key, keys)}.",
                )

    def table(self, key: str, top: Mapping[str, Any]) -> Mapping[str, Any]:
        value = top.get(key, {})
        if not isinstance(value, Mapping):
            raise self.bad(
                f"{key} is {value!r}", f"Write [{key}] on a line of its own."
            )
        return value

    def string(self, where: str, value: Any) -> str | None:
        if value is None or (isinstance(value, str) and value):
            return value
        raise self.bad(f"{where} is {value!r}", "It is a text in quotes.")

    def strings(self, where: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise self.bad(f"{where} is {value!r}", 'It is a list: ["one", "other"].')

    def missing(self, where: str, value: Any) -> Missing:
        if isinstance(value, list) and all(
            isinstance(each, str | int | float) and not isinstance(each, bool)
            for each in value
        ):
            return Missing.of(value)
        raise self.bad(f"{where} is {value!r}", 'It is a list: ["", "NA", -1].')

    def bad(self, found: str, cure: str) -> BadLayout:
        return BadLayout(self.path, found, cure)


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for a message: "a, b, c", the first twenty."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def near(name: str, names: Iterable[str]) -> str:
    """What to add to a message where one of the names is close."""
    close = get_close_matches(name.lower(), [each.lower() for each in names], n=1)
    found = [each for each in names if close and each.lower() == close[0]]
    return f"; did you mean {found[0]!r}?" if found else ""
