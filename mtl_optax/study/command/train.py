"""`mtl-optax train`: what the options say, then data, runs and the report."""

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mtl_optax.data.dataset import Dataset
from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.scan import BadDataSet, Scan, scan
from mtl_optax.study.command.arguments import UsageError
from mtl_optax.study.command.train_choices import (
    at_most,
    check_fit,
    own_options,
    settings_of,
)
from mtl_optax.study.engine.checkpoints import Refused
from mtl_optax.study.report import terminal
from mtl_optax.study.report.document import Document
from mtl_optax.training import report
from mtl_optax.training.datasets import DATASETS, Line, open_dataset
from mtl_optax.training.run import RESULTS, Diverged, Result, Run, Watch
from mtl_optax.training.settings import Settings


def train(options: argparse.Namespace) -> None:
    """The whole command."""
    console = Console(highlight=False)
    line = DATASETS[options.dataset]
    settings = settings_of(options, line)
    out = options.out or Path("results") / f"{options.dataset}-{settings.method}"
    _check_out(out, options.resume)
    try:
        dataset, found, settings = _read(console, options, line, settings)
        told = report.description(dataset, found)
        terminal.show(
            console, Document(f"{dataset.name} in {options.data}", "", [], told)
        )
        settings = at_most(settings, found, options)
        _runs(console, dataset, found, settings, out, options)
    except (BadData, BadLayout, BadDataSet, Refused, Diverged) as error:
        raise UsageError(str(error)) from error


def _read(
    console: Console, options: argparse.Namespace, line: Line, settings: Settings
) -> tuple[Dataset, Scan, Settings]:
    """Opens the data set and reads all of it, if the options fit what it is."""
    own = own_options(options, line)
    try:
        dataset = open_dataset(options.dataset, options.data, own)
        settings = check_fit(dataset, settings)
        return dataset, _scanned(console, dataset, options.skip_bad), settings
    except OSError as error:
        where = error.filename or options.data
        raise UsageError(f"{where} cannot be read: {error.strerror or error}") from None


def _runs(
    console: Console,
    dataset: Dataset,
    found: Scan,
    settings: Settings,
    out: Path,
    options: argparse.Namespace,
) -> None:
    """The run of all tasks, then those of single ones, and the report of both."""
    result = _one(console, dataset, found, settings, out, options)
    single: dict[str, Result] = {}
    if options.single_tasks:
        alone = dataclasses.replace(
            settings, method="unitary", arch="hps", hyper={}, mix=None
        )
        for number, task in enumerate(dataset.names, 1):
            console.print(
                f"single task {task}, {number} of {len(dataset.tasks)}", markup=False
            )
            part, own = only(dataset, found, task)
            single[task] = _one(
                *(console, part, own, alone, out / "single" / folder_name(task)),
                options,
            )
    whole = report.Reported(dataset, found, settings, result, single, options.line)
    terminal.show(console, report.document(whole))
    console.print(f"Page: {report.write(whole)}", markup=False)


def _one(
    console: Console,
    dataset: Dataset,
    found: Scan,
    settings: Settings,
    folder: Path,
    options: argparse.Namespace,
) -> Result:
    """A run with a bar; with --resume one that had not begun begins."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("steps", total=None)
        watch = Watch(
            say=lambda text: bars.console.print(text, markup=False, soft_wrap=True),
            step=lambda done, of: bars.update(bar, completed=done, total=of),
        )
        begun = (folder / "checkpoints" / "settings.json").exists()
        if (folder / RESULTS).exists() and not begun:
            raise UsageError(
                f"{folder} holds {RESULTS}, but no checkpoint to go on from: take "
                "another --out"
            )
        try:
            ready = Run(
                *(dataset, found, settings, folder),
                resume=options.resume and begun,
                watch=watch,
            )
        except ValueError as error:  # what does not fit together
            raise UsageError(str(error)) from error
        options.begun = True
        return ready.to_the_end()


def folder_name(task: str) -> str:
    """The task's name, with signs that are no part of a folder's as numbers."""
    if re.fullmatch(r"\w[\w ()+-]*", task):
        return task
    return quote(task, safe=" ()+").replace(".", "%2E")


def only(dataset: Dataset, found: Scan, task: str) -> tuple[Dataset, Scan]:
    """One task of a data set; where tasks have their own examples, on those."""
    (own,) = (x for x in dataset.tasks if x.name == task)
    splits: dict[str, Any] = dict(dataset.splits)
    parts: dict[str, Any] = dict(found.splits)
    if dataset.by_task:
        splits = {name: split[task] for name, split in splits.items()}
        parts = {name: split[task] for name, split in parts.items()}
    # Its probability alone: there is no other to multiply it with.
    own = dataclasses.replace(own, given=None)
    return dataclasses.replace(dataset, tasks=(own,), splits=splits), Scan(
        {
            name: dataclasses.replace(part, labels={task: part.labels[task]})
            for name, part in parts.items()
        }
    )


def _scanned(console: Console, dataset: Dataset, skip_bad: bool) -> Scan:
    """Reads all examples, with a bar on a terminal."""
    with Progress(console=console, disable=not console.is_terminal) as bars:
        rows: dict[str, Any] = {}

        def tick(split: str, done: int, of: int) -> None:
            if split not in rows:
                rows[split] = bars.add_task(f"reading {split}", total=of)
            bars.update(rows[split], completed=done)

        console.print("reading every example once ...", markup=False)
        found = scan(dataset, skip_bad=skip_bad, tick=tick)
    for fault in found.faults:
        console.print(f"left out: {fault}", markup=False)
    return found


def _check_out(out: Path, resume: bool) -> None:
    """Nothing that is there is written over."""
    begun = (out / "checkpoints").exists()
    if (begun or (out / RESULTS).exists()) and not resume:
        raise UsageError(
            f"{out} holds a run: go on with it by --resume, or take another --out"
        )
    if resume and not begun:
        raise UsageError(f"there is no run to resume in {out}")
