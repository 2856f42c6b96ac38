"""`mtl-optax train`: what the options say, then data, runs and the report."""

import argparse
import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
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
from mtl_optax.study.engine.checkpoints import Refused
from mtl_optax.study.engine.methods import OPTIMIZERS
from mtl_optax.study.report import terminal
from mtl_optax.training import methods, report
from mtl_optax.training.datasets import DATASETS, Line, open_dataset
from mtl_optax.training.networks import ARCHITECTURES
from mtl_optax.training.run import Diverged, Result, Run, Watch
from mtl_optax.training.settings import Settings

RESULTS = "results.json"


def train(options: argparse.Namespace) -> None:
    """The whole command."""
    console = Console(highlight=False)
    line = DATASETS[options.dataset]
    settings = _settings(options, line)
    out = options.out or Path("results") / f"{options.dataset}-{settings.method}"
    _check_out(out, options.resume)
    try:
        dataset = open_dataset(options.dataset, options.data, _own(options, line))
        found = _scanned(console, dataset, options.skip_bad)
        for table in report.description(dataset, found):
            terminal._table(console, table)
        _runs(console, dataset, found, settings, out, options)
    except (BadData, BadLayout, BadDataSet, Refused, Diverged) as error:
        raise UsageError(str(error)) from error


def _runs(
    console: Console,
    dataset: Dataset,
    found: Scan,
    settings: Settings,
    out: Path,
    options: argparse.Namespace,
) -> None:
    """The run of all tasks, then those of single ones, and the report of both."""
    out.mkdir(parents=True, exist_ok=True)
    result = _one(console, dataset, found, settings, out, options.resume)
    single: dict[str, Result] = {}
    if options.single_tasks:
        alone = dataclasses.replace(
            settings, method="unitary", arch="hps", hyper={}, mix=None
        )
        for task in dataset.names:
            console.print(f"single task {task}", markup=False)
            part, own = only(dataset, found, task)
            single[task] = _one(
                *(console, part, own, alone, out / "single" / task),
                options.resume,
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
    resume: bool,
) -> Result:
    """A run with a bar; with --resume one that had not begun begins."""
    folder.mkdir(parents=True, exist_ok=True)
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
        begun = (folder / "checkpoints").exists()
        try:
            ready = Run(
                *(dataset, found, settings, folder),
                resume=resume and begun,
                watch=watch,
            )
        except ValueError as error:  # what does not fit together
            raise UsageError(str(error)) from error
        return ready.to_the_end()


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


def _settings(options: argparse.Namespace, line: Line) -> Settings:
    """Those given, those of the data set, those of all."""
    _known("method", options.method, tuple(methods.EVERY))
    _known("architecture", options.arch, tuple(ARCHITECTURES))
    _known("optimiser", options.optimizer, tuple(OPTIMIZERS))
    devices = options.devices or len(jax.local_devices())
    rate = options.lr
    if rate is None:
        adam = options.optimizer == "adam"
        rate = (
            line.learning_rate if adam else OPTIMIZERS[options.optimizer].learning_rate
        )
    return Settings(
        method=options.method,
        arch=options.arch,
        encoder=options.encoder or line.encoder,
        width=options.width,
        epochs=options.epochs or line.epochs,
        batch_size=options.batch or line.batch_size,
        learning_rate=rate,
        optimizer=options.optimizer,
        schedule=options.schedule,
        seed=options.seed,
        devices=devices,
        workers=options.workers,
        convention=options.convention,
        mix=options.mix,
        hyper=options.hyper or {},
        weights=options.weights,
    )


def _own(options: argparse.Namespace, line: Line) -> Mapping[str, Any]:
    """Options of the data set; an error for those of others."""
    every = {name for x in DATASETS.values() for name in x.options}
    given = {name: getattr(options, name) for name in sorted(every)}
    for name, value in given.items():
        if value is not None and name not in line.options:
            whose = [key for key, x in DATASETS.items() if name in x.options]
            raise UsageError(
                f"--{name.replace('_', '-')} is of {', '.join(whose)}, not of "
                f"{options.dataset}"
            )
    return {name: given[name] for name in line.options}


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 3) or names
        raise UsageError(f"unknown {what} '{name}'; known: {', '.join(near)}")


def _check_out(out: Path, resume: bool) -> None:
    """Nothing that is there is written over."""
    there = (out / "checkpoints").exists() or (out / RESULTS).exists()
    if there and not resume:
        raise UsageError(
            f"{out} holds a run: go on with it by --resume, or take another --out"
        )
    if resume and not there:
        raise UsageError(f"there is no run to resume in {out}")
