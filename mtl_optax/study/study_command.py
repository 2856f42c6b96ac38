"""The command `mtl-optax study`: from its options to trained methods and a report."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from mtl_optax.study import (
    cache,
    checkpoints,
    compare,
    join,
    report,
    screen,
    toy,
    toy_report,
)
from mtl_optax.study.arguments import UsageError
from mtl_optax.study.compare import Study
from mtl_optax.study.methods import ALL, EVERY, KNOWN, OPTIMIZERS, SINGLE_TASK
from mtl_optax.study.settings import Settings
from mtl_optax.study.studies import STUDIES


def run(options: argparse.Namespace, start: float) -> None:
    """With one optimiser, or with several, which share a page; `start` is a time."""
    study = STUDIES[options.name]
    left_out = () if study.has_single_task else (SINGLE_TASK,)
    known = tuple(x for x in KNOWN if x not in left_out)
    if options.methods == (ALL,):
        options.methods = tuple(x for x in EVERY if x not in left_out)
    for method in options.methods or ():
        if method not in known:
            raise UsageError(f"unknown method '{method}'; known: {', '.join(known)}")
    out = options.out or Path("results") / options.name
    optimizers = options.optimizer or (None,)
    if len(optimizers) == 1:
        _train(options, study, optimizers[0], out, options.resume, start)
    elif study is toy.STUDY:
        raise UsageError("the toy's report stands alone: name one optimiser at a time")
    else:
        _train_each(options, study, out)
    seconds = time.perf_counter() - start
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")


def _train_each(options: argparse.Namespace, study: Study, out: Path) -> None:
    """One optimiser after the other, each in a folder of its own."""
    for name in options.optimizer:
        begun = (out / name / "checkpoints").exists()
        if options.resume and not begun and (out / name / "config.json").exists():
            print(f"{name} is finished: {out / name}")
            continue
        resume = options.resume and begun
        _train(options, study, name, out / name, resume, time.perf_counter())
    folders = [join.read(out / name) for name in options.optimizer]
    (out / "report.html").write_text(join.join(folders), encoding="utf-8")


def _train(
    options: argparse.Namespace,
    study: Study,
    optimizer: str | None,
    out: Path,
    resume: bool,
    start: float,
) -> None:
    """One study with one optimiser; None is the study's own."""
    settings = _settings(options, study, optimizer)
    identity = checkpoints.identity(study.name, settings._asdict())
    try:
        store = checkpoints.Checkpoints(out / "checkpoints", identity, resume=resume)
    except checkpoints.Refused as refused:
        raise UsageError(str(refused)) from None
    cache.configure(options.cache)
    console = Console()
    console.print(
        f"{len(settings.methods)} methods, {settings.seeds} seeds, {settings.steps} "
        f"steps, {settings.optimizer}; results go to {out}",
        highlight=False,
    )
    with screen.progress(console, settings.methods, settings.steps) as tick:
        results = compare.run(study, settings, tick, store)
    seconds = time.perf_counter() - start
    if study is toy.STUDY:
        toy_report.write(out, results, options.line, seconds)
        toy_report.show(console, results)
    else:
        report.write(out, results, options.line, seconds)
        screen.show(console, results)
    store.remove()


def _settings(
    options: argparse.Namespace, study: Study, optimizer: str | None
) -> Settings:
    """Those of the study, with what the options change."""
    rates = options.lr
    if rates is None and optimizer is not None:
        rates = (OPTIMIZERS[optimizer].learning_rate,)
    chosen = {
        "methods": options.methods,
        "seeds": options.seeds,
        "tuning_seeds": options.tuning_seeds,
        "steps": options.steps,
        "learning_rates": rates,
        "optimizer": optimizer,
    }
    settings = study.quick if options.quick else study.settings
    return settings._replace(**{k: v for k, v in chosen.items() if v is not None})
