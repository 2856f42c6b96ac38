"""Training and reports of a study, part by part."""

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from mtl_optax.study.command.arguments import UsageError
from mtl_optax.study.command.progress import bars
from mtl_optax.study.engine import cache, checkpoints
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.methods import ALL, OPTIMIZERS
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study, StudyResult
from mtl_optax.study.report import files, joined, one, parts, terminal
from mtl_optax.study.report.document import (
    Details,
    Document,
    Points,
    Table,
    Text,
    pick,
)
from mtl_optax.study.report.summaries import summary


def conduct(study: Study, options: argparse.Namespace, start: float) -> None:
    """Trains what the options say, writes and shows it; `start` is a time."""
    out = options.out or Path("results") / study.name
    _check(study, options)
    if len(options.optimizer or ()) > 1:
        study = _by_optimizer(study, options, out)
    cache.configure(options.cache)
    try:
        _parts(study, options, out, start)
    except checkpoints.Refused as refused:
        raise UsageError(str(refused)) from None
    seconds = time.perf_counter() - start
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")


def _check(study: Study, options: argparse.Namespace) -> None:
    for name in options.optimizer or ():
        if name not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise UsageError(f"unknown optimiser '{name}'; known: {known}")
    if study.has_fixed_methods and (
        options.methods or options.steps or options.optimizer or options.lr
    ):
        raise UsageError(
            f"the parts of {study.name} have methods, steps, optimisers and rates of "
            "their own: leave --methods, --steps, --optimizer and --lr out"
        )
    if len(options.optimizer or ()) > 1 and len(study.parts) > 1:
        raise UsageError(f"{study.name} has parts: name one optimiser at a time")
    for some in (study.parts, study.quick):
        if len({part.name for part in some}) < len(some):
            raise ValueError(f"parts of {study.name} share a name, and so a folder")
    every = [*study.parts, *study.quick]
    methods = [x for x in every[0].known if all(x in part.known for part in every)]
    if options.methods == (ALL,):
        options.methods = tuple(x for x in every[0].every if x in methods)
    for method in options.methods or ():
        if method not in methods:
            names = ", ".join(methods)
            raise UsageError(f"unknown method '{method}'; known: {names}")


def _by_optimizer(study: Study, options: argparse.Namespace, out: Path) -> Study:
    """The one part with each of several optimisers, and a page that joins them."""
    (part,) = study.parts

    def with_optimizer(name: str) -> Part:
        own: dict[str, Any] = {"optimizer": name}
        own["learning_rates"] = (OPTIMIZERS[name].learning_rate,)
        settings, quick = (x._replace(**own) for x in (part.settings, part.quick))
        title = f"{part.title}, {name}"
        return part._replace(name=name, title=title, settings=settings, quick=quick)

    made = tuple(map(with_optimizer, options.optimizer))
    options.optimizer = None

    def document(result: StudyResult, documents: dict[str, Document]) -> Document:
        """One table, then each optimiser; how each was run stands at the end."""
        both = joined.join([joined.read(out / name) for name in result.parts])
        each = parts.document(result, documents)
        first, last = pick(both.body, Table), pick(both.body, Details)
        return each._replace(body=[*first, *each.body, *last])

    return study._replace(parts=made, quick=made, document=document)


def _parts(study: Study, options: argparse.Namespace, out: Path, start: float) -> None:
    """All parts, each in a folder of its own, and what the study says of them."""
    console = Console()
    chosen = study.quick if options.quick else study.parts
    alone = study.document is None and len(study.parts) == 1
    folders = {part.name: out if alone else out / part.name for part in chosen}
    begun = {name: (own / "checkpoints").exists() for name, own in folders.items()}
    if options.resume and not any(begun.values()):
        raise checkpoints.Refused(f"nothing to resume in {out}")
    results, documents, stores = {}, {}, []
    for part in chosen:
        since, folder = time.perf_counter(), folders[part.name]
        settings = _settings(part, options)
        # Of the study as well: others may have a part and settings like these.
        whose = part.name if alone else f"{study.name}, {part.name}"
        identity = checkpoints.identity(whose, settings._asdict())
        resume = options.resume and begun[part.name]
        store = Checkpoints(folder / "checkpoints", identity, resume=resume)
        _announce(console, part, settings, folder)
        with bars(console, settings.methods, settings.steps) as tick:
            result = run(part, settings, tick, store, study.name)
        # Kept until all parts are done: resumed, the page needs the numbers of each.
        stores.append(store)
        spent = time.perf_counter() - (start if alone else since)
        configuration = files.config(result, options.line, spent)
        document = one.document(result, configuration)
        files.write(folder, document)
        files.write_json(folder / "config.json", configuration)
        results[part.name], documents[part.name] = result, document
    if not alone:
        measured = study.measure(results)
        seconds = time.perf_counter() - start
        whole = StudyResult(study, results, options.line, seconds, measured)
        said = (study.document or parts.document)(whole, documents)
        document = _of_study(said, whole)
        files.write(out, document)
        words = {"words": _words(document)}
        files.write_json(out / "config.json", files.config_of_study(whole, words))
    terminal.show(console, document)
    for store in stores:
        store.remove()


def _announce(console: Console, part: Part, settings: Settings, folder: Path) -> None:
    console.print(
        f"{part.title}: {len(settings.methods)} methods, {settings.seeds} seeds, "
        f"{settings.steps} steps, {settings.optimizer}; results go to {folder}",
        highlight=False,
        markup=False,
    )


def _of_study(document: Document, whole: StudyResult) -> Document:
    """With the command and the means of all parts."""
    took = f"{whole.command} took {whole.seconds:.0f} s."
    means = {"summary.csv": summary(whole.parts.values())}
    body = [*document.body, Text(took, "small")]
    return document._replace(body=body, files={**means, **document.files})


def _words(document: Document) -> list[str]:
    """What it says in sentences."""
    words: list[str] = []
    for block in document.summary:
        if isinstance(block, Points):
            words += block.lines
        elif isinstance(block, Text):
            words.append(block.text)
    return words


def _settings(part: Part, options: argparse.Namespace) -> Settings:
    optimizer = options.optimizer[0] if options.optimizer else None
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
    settings = part.quick if options.quick else part.settings
    return settings._replace(**{k: v for k, v in chosen.items() if v is not None})
