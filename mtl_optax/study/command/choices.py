"""What the options of the command line make of a study."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from mtl_optax.study.command.arguments import UsageError
from mtl_optax.study.engine import checkpoints
from mtl_optax.study.engine.methods import ALL, OPTIMIZERS
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study, StudyResult
from mtl_optax.study.report import joined
from mtl_optax.study.report import parts as report_of_parts
from mtl_optax.study.report.document import Details, Document, Table, pick


class Asked(NamedTuple):
    """What is to be trained, and where it is written."""

    study: Study
    parts: dict[str, tuple[Part, Settings]]  # by name
    out: Path
    line: str  # the command

    @property
    def alone(self) -> bool:
        """Whether the one part has the folder and the page for itself."""
        return self.study.document is None and len(self.study.parts) == 1

    def folder(self, part: str) -> Path:
        """Of its results."""
        return self.out if self.alone else self.out / part

    def identity(self, part: str) -> dict[str, Any]:
        """All that its numbers depend on."""
        # Of the study as well: others may have a part and settings like these.
        whose = part if self.alone else f"{self.study.name}, {part}"
        return checkpoints.identity(whose, self.parts[part][1]._asdict())


def default_out(name: str) -> Path:
    """Where a study writes if nobody says."""
    return Path("results") / name


def asked(study: Study, options: argparse.Namespace) -> Asked:
    """What the options say, checked."""
    out = options.out or default_out(study.name)
    check(study, options)
    if len(options.optimizer or ()) > 1:
        study = by_optimizer(study, options, out)
    parts = study.quick if options.quick else study.parts
    every = {part.name: (part, settings(part, options)) for part in parts}
    return Asked(study, every, out, options.line)


def check(study: Study, options: argparse.Namespace) -> None:
    """Says what cannot be."""
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
    if ALL in (options.methods or ()):
        usual = tuple(x for x in every[0].every if x in methods)
        named = (usual if x == ALL else (x,) for x in options.methods)
        options.methods = tuple(dict.fromkeys(y for x in named for y in x))
    for method in options.methods or ():
        if method not in methods:
            names = ", ".join(methods)
            raise UsageError(f"unknown method '{method}'; known: {names}")


def by_optimizer(study: Study, options: argparse.Namespace, out: Path) -> Study:
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
        each = report_of_parts.document(result, documents)
        first, last = pick(both.body, Table), pick(both.body, Details)
        return each._replace(body=[*first, *each.body, *last])

    return study._replace(parts=made, quick=made, document=document)


def settings(part: Part, options: argparse.Namespace) -> Settings:
    """The part's own, or what the options say."""
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
    own = part.quick if options.quick else part.settings
    return own._replace(**{k: v for k, v in chosen.items() if v is not None})
