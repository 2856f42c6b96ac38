"""Training and reports: of one study, of one with several optimisers, of parts."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from mtl_optax.study import (
    checkpoints,
    compare,
    join,
    progress,
    report,
    screen,
    toy,
    toy_report,
)
from mtl_optax.study.methods import OPTIMIZERS
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite, Whole


def alone(
    study: compare.Study, options: argparse.Namespace, out: Path, start: float
) -> None:
    """One study with one optimiser, or its own, into one folder."""
    name = options.optimizer[0] if options.optimizer else None
    results, store = _one(study, options, name, out, options.resume, start)
    _show(results)
    store.remove()


def optimizers(study: compare.Study, options: argparse.Namespace, out: Path) -> None:
    """One after the other, each in a folder of its own, and a page on all."""
    for name in options.optimizer:
        begun = (out / name / "checkpoints").exists()
        if options.resume and not begun and (out / name / "config.json").exists():
            print(f"{name} is finished: {out / name}")
            continue
        resume, start = options.resume and begun, time.perf_counter()
        results, store = _one(study, options, name, out / name, resume, start)
        _show(results)
        store.remove()
    folders = [join.read(out / name) for name in options.optimizer]
    (out / "report.html").write_text(join.join(folders), encoding="utf-8")


def parts(suite: Suite, options: argparse.Namespace, out: Path, start: float) -> None:
    """All parts, each in a folder of its own, and what the suite says of them."""
    name = options.optimizer[0] if options.optimizer else None
    results, stores = {}, []
    chosen = suite.quick if options.quick else suite.parts
    begun = {x.name: (out / x.name / "checkpoints").exists() for x in chosen}
    if options.resume and not any(begun.values()):
        raise checkpoints.Refused(f"nothing to resume in {out}")
    for part in chosen:
        resume, since = options.resume and begun[part.name], time.perf_counter()
        results[part.name], store = _one(
            part, options, name, out / part.name, resume, since
        )
        # Kept until all parts are done: resumed, the page needs the numbers of each.
        stores.append(store)
    measured = suite.measure(results)
    seconds = time.perf_counter() - start
    whole = Whole(suite, results, options.line, seconds, measured)
    suite.write(whole, out)
    suite.show(whole, Console())
    for store in stores:
        store.remove()


def _one(
    study: compare.Study,
    options: argparse.Namespace,
    optimizer: str | None,
    out: Path,
    resume: bool,
    start: float,
) -> tuple[compare.Results, checkpoints.Checkpoints]:
    """Trains and writes; the caller removes the checkpoints."""
    settings = _settings(study, options, optimizer)
    identity = checkpoints.identity(study.name, settings._asdict())
    store = checkpoints.Checkpoints(out / "checkpoints", identity, resume=resume)
    console = Console()
    console.print(
        f"{study.title}: {len(settings.methods)} methods, {settings.seeds} seeds, "
        f"{settings.steps} steps, {settings.optimizer}; results go to {out}",
        highlight=False,
    )
    with progress.bars(console, settings.methods, settings.steps) as tick:
        results = compare.run(study, settings, tick, store)
    seconds = time.perf_counter() - start
    write = toy_report.write if study is toy.STUDY else report.write
    write(out, results, options.line, seconds)
    return results, store


def _show(results: compare.Results) -> None:
    show = toy_report.show if results.study is toy.STUDY else screen.show
    show(Console(), results)


def _settings(
    study: compare.Study, options: argparse.Namespace, optimizer: str | None
) -> Settings:
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
