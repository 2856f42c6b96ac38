"""Training and reports of a study, part by part."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mtl_optax.study import studies
from mtl_optax.study.command import choices, sharded
from mtl_optax.study.command.arguments import UsageError, parser
from mtl_optax.study.command.choices import Asked
from mtl_optax.study.command.progress import bars
from mtl_optax.study.engine import cache
from mtl_optax.study.engine.checkpoints import Checkpoints, Refused
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, PartResult, Study, StudyResult
from mtl_optax.study.report import files, one, parts, terminal
from mtl_optax.study.report.document import Document, Points, Text
from mtl_optax.study.report.summaries import summary


def conduct(study: Study, options: argparse.Namespace, start: float) -> None:
    """Trains what the options say, writes and shows it; `start` is a time."""
    asked = choices.asked(study, options)
    cache.configure(options.cache)
    try:
        if options.shard is not None:
            sharded.train(asked, options)
            return
        sharded.none_in(asked.out)
        _in_one_piece(asked, options.resume, start)
    except Refused as refused:
        raise UsageError(str(refused)) from None
    seconds = time.perf_counter() - start
    print(f"Took {seconds:.0f} s. Report: {asked.out / 'report.html'}")


def join(folder: Path) -> None:
    """Writes and shows what a run in one piece would have, from shards in the folder.

    Raises:
      UsageError: if they cannot be joined.
      Incomplete: if some are missing.
    """
    try:
        arguments = sharded.arguments(folder)
        options = parser().parse_args(arguments)
        options.out, options.line = folder, " ".join(["mtl-optax", *arguments])
        asked = choices.asked(studies.load(options.name), options)
        cache.configure(options.cache)
        pieces = sharded.complete(asked, arguments)
        joined = sharded.results(asked, pieces)
    except Refused as refused:
        raise UsageError(str(refused)) from None
    seconds = {name: _trained(result) for name, result in joined.items()}
    documents = {
        name: _write(asked, result, seconds[name]) for name, result in joined.items()
    }
    every = sum(seconds.values())
    terminal.show(Console(), _whole(asked, joined, documents, lambda: every))
    print(f"Joined {len(pieces)} pieces. Report: {folder / 'report.html'}")


def _trained(result: PartResult) -> float:
    """Seconds that its methods took, on whatever machines."""
    every = result.methods.values()
    return sum(own.compile_seconds + own.run_seconds for own in every)


def _in_one_piece(asked: Asked, resume: bool, start: float) -> None:
    """All parts, each in a folder of its own, and what the study says of them."""
    console = Console()
    kept = {name: asked.folder(name) / "checkpoints" for name in asked.parts}
    begun = {name: folder.exists() for name, folder in kept.items()}
    if resume and not any(begun.values()):
        raise Refused(f"nothing to resume in {asked.out}")
    results, documents, stores = {}, {}, []
    for name, (part, settings) in asked.parts.items():
        since = time.perf_counter()
        identity, going_on = asked.identity(name), resume and begun[name]
        store = Checkpoints(kept[name], identity, resume=going_on)
        _announce(console, part, settings, asked.folder(name))
        with bars(console, settings.methods, settings.steps) as tick:
            results[name] = run(part, settings, tick, store, asked.study.name)
        # Kept until all parts are done: resumed, the page needs the numbers of each.
        stores.append(store)
        spent = time.perf_counter() - (start if asked.alone else since)
        documents[name] = _write(asked, results[name], spent)
    took = lambda: time.perf_counter() - start  # noqa: E731
    terminal.show(console, _whole(asked, results, documents, took))
    for store in stores:
        store.remove()


def _write(asked: Asked, result: PartResult, seconds: float) -> Document:
    """The folder of a part."""
    folder = asked.folder(result.part.name)
    configuration = files.config(result, asked.line, seconds)
    document = one.document(result, configuration)
    files.write(folder, document)
    files.write_json(folder / "config.json", configuration)
    return document


def _whole(
    asked: Asked,
    results: dict[str, PartResult],
    documents: dict[str, Document],
    seconds: Callable[[], float],
) -> Document:
    """The page of the study; where its one part has it for itself, that."""
    if asked.alone:
        return documents.popitem()[1]
    measured = asked.study.measure(results)
    whole = StudyResult(asked.study, results, asked.line, seconds(), measured)
    said = (asked.study.document or parts.document)(whole, documents)
    document = _of_study(said, whole)
    files.write(asked.out, document)
    words = {"words": _words(document)}
    files.write_json(asked.out / "config.json", files.config_of_study(whole, words))
    return document


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
