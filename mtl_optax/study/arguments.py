"""The options of the command line. Only the standard library is imported here."""

import argparse
from pathlib import Path

STUDIES = {
    "stress": "one of two losses is multiplied by 1000 (default)",
    "transfer": "four tasks, two of which suffer from joint training",
    "toy": "two losses of two parameters, whose best compromise is known",
    "null": "two tasks at equal scales: does any method differ from the sum?",
    "flat": "six studies: flat minima under wrong and missing labels of a task",
    "priority": "cso, cdtt and nmt, each on the problem that it was made for",
    "arch": "architectures on the four tasks of transfer (minutes)",
    "towers": "width of task towers, with and without small auxiliary ones beside them",
    "groups": "two, four, six tasks in two blocks: who finds them? (minutes)",
    "vmtl": "priors made of other domains, where labels are few (minutes)",
}
OPTIMIZERS = ("adam", "sgd")


class UsageError(Exception):
    """What the user can put right: the text is shown, and the exit code is 2."""


def parser() -> argparse.ArgumentParser:
    """The whole command."""
    whole = argparse.ArgumentParser(
        prog="mtl-optax", description="Multi-task gradient methods for JAX and optax."
    )
    whole.add_argument("--version", action="store_true", help="print it and exit")
    commands = whole.add_subparsers(dest="command", title="commands")
    study = commands.add_parser(
        "study", help="compare methods on real data that needs no download"
    )
    study.add_argument(
        "name",
        nargs="?",
        default="stress",
        choices=list(STUDIES),
        help="; ".join(f"{name}: {line}" for name, line in STUDIES.items()),
    )
    study.add_argument("--list", action="store_true", help="name the studies and exit")
    study.add_argument(
        "--methods",
        type=_names,
        metavar="A,B",
        help="methods, separated by commas; all: every one (see mtl-optax methods)",
    )
    study.add_argument(
        "--seeds", type=_count, metavar="N", help="runs a method (5; toy: 8 starts)"
    )
    study.add_argument(
        "--steps", type=_count, metavar="N", help="training steps (1000; toy 100000)"
    )
    study.add_argument(
        "--lr",
        type=_rates,
        metavar="A,B",
        help="learning rates, the best on validation data is taken (0.003; sgd 0.03; "
        "toy 0.001)",
    )
    study.add_argument(
        "--tuning-seeds",
        type=_count,
        metavar="N",
        help="choose the rate on N further seeds, not on those that are reported",
    )
    study.add_argument(
        "--optimizer",
        type=_optimizers,
        metavar="A,B",
        help="adam, or sgd with momentum 0.9, or both, each in its folder (adam)",
    )
    study.add_argument(
        "--out", type=Path, help="folder for what is written (results/NAME)"
    )
    study.add_argument(
        "--resume", action="store_true", help="go on where a run in OUT was stopped"
    )
    study.add_argument(
        "--quick",
        action="store_true",
        help="smoke run: few methods, seeds and steps, no conclusions",
    )
    study.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="compile anew: do without JAX's persistent compilation cache",
    )
    methods = commands.add_parser(
        "methods",
        help="what each method needs, costs, promises, and when not to use it",
    )
    methods.add_argument(
        "--markdown", action="store_true", help="print the page docs/choosing.md"
    )
    report = commands.add_parser("report", help="join several results on one page")
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    report.add_argument(
        "--out",
        type=Path,
        default=Path("results/joined.html"),
        help="the page (results/joined.html)",
    )
    return whole


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _optimizers(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in OPTIMIZERS:
            raise argparse.ArgumentTypeError(
                f"unknown optimiser {name!r}; known: {', '.join(OPTIMIZERS)}"
            )
    return names


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _rates(text: str) -> tuple[float, ...]:
    values = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    if not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text}: rates are positive numbers")
    return values
