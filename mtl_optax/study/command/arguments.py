"""The options of the command line. Only the standard library is imported here."""

import argparse
from pathlib import Path
from typing import Any

from mtl_optax.study.command import train_arguments as train
from mtl_optax.study.studies import STUDIES

ALL = "all"  # in place of a study: one after the other


class UsageError(Exception):
    """What the user can put right: the text is shown, and the exit code is 2."""


class Incomplete(Exception):
    """Shards are missing: the text says which, and the exit code is 1."""


def parser(study: Any = None) -> argparse.ArgumentParser:
    """The whole command; with a `Study` its help tells what this one does by itself."""
    whole = argparse.ArgumentParser(
        prog="mtl-optax", description="Multi-task gradient methods for JAX and optax."
    )
    whole.add_argument("--version", action="store_true", help="print it and exit")
    commands = whole.add_subparsers(dest="command", title="commands")
    _study(commands, _defaults(study))
    train.add(commands, _count)
    methods = commands.add_parser(
        "methods",
        help="what each method needs, costs, promises, and when not to use it",
    )
    methods.add_argument(
        "--markdown", action="store_true", help="print the page docs/choosing.md"
    )
    report = commands.add_parser(
        "report", help="join shards of a study, and several results on one page"
    )
    report.add_argument(
        *("folders",),
        nargs="+",
        type=Path,
        metavar="DIR",
        help="results; of a study with --shard they are made here, in the same folder",
    )
    report.add_argument(
        "--out",
        type=Path,
        help="the page (results/joined.html; of one folder with shards its own)",
    )
    return whole


def _study(commands: Any, own: dict[str, str]) -> None:
    study = commands.add_parser(
        "study", help="compare methods on real data that needs no download"
    )
    study.add_argument(
        "name",
        nargs="?",
        default=next(iter(STUDIES)),
        choices=[*STUDIES, ALL],
        help="; ".join(f"{name}: {line.about}" for name, line in STUDIES.items())
        + f"; {ALL}: one after the other, the shortest first",
    )
    study.add_argument(
        "--list", action="store_true", help="name the studies, with run times, and exit"
    )
    study.add_argument(
        "--budget",
        type=_seconds,
        metavar="TIME",
        help=f"of {ALL}: run what fits into this time, such as 30m, 2h or 90s",
    )

    def option(name: str, kind: Any, metavar: str, text: str) -> None:
        given = f" ({own[name]})" if name in own else ""
        study.add_argument(f"--{name}", type=kind, metavar=metavar, help=text + given)

    option(
        *("methods", _names, "A,B"),
        "methods, separated by commas; all, also beside others: every usual one",
    )
    option("seeds", _count, "N", "runs a method")
    option("steps", _count, "N", "training steps")
    option(
        *("lr", _rates, "A,B"),
        "learning rates, of which the best on validation data is taken",
    )
    option(
        *("tuning-seeds", _count, "N"),
        "choose the rate on N further seeds, not on those that are reported",
    )
    option(
        *("optimizer", _names, "A,B"),
        "adam, sgd with momentum 0.9, gd without, muon; each of several in its folder",
    )
    option("out", Path, "DIR", "folder for what is written")
    option(
        *("shard", _shard, "I/N"),
        "train the I-th of N parts only, I from 1; mtl-optax report DIR joins all",
    )
    for name, text in {
        "resume": "go on where a run in OUT was stopped",
        "quick": "smoke run: few methods, seeds and steps, no conclusions",
    }.items():
        study.add_argument(f"--{name}", action="store_true", help=text)
    study.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="compile anew: do without JAX's persistent compilation cache",
    )


def _defaults(study: Any) -> dict[str, str]:
    """What a study does where an option is not given."""
    if study is None:
        return {"out": "results/NAME"}
    settings = [part.settings for part in study.parts]

    def each(values: Any) -> str:
        return " or ".join(dict.fromkeys(values))

    return {
        "methods": each(", ".join(x.methods) for x in settings),
        "seeds": each(str(x.seeds) for x in settings),
        "steps": each(str(x.steps) for x in settings),
        "lr": each(", ".join(f"{r:g}" for r in x.learning_rates) for x in settings),
        "tuning-seeds": each(str(x.tuning_seeds) for x in settings),
        "optimizer": each(x.optimizer for x in settings),
        "out": f"results/{study.name}",
    }


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        value = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time, such as 30m, 2h or 90s")
    return value


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and all(x.isascii() and x.isdigit() for x in (index, count))):
        raise argparse.ArgumentTypeError(f"{text} is not I/N, as in 1/8, 2/8 ... 8/8")
    if not 1 <= int(index) <= int(count):
        raise argparse.ArgumentTypeError(
            f"{text}: of N parts the first is 1/N and the last N/N; where a scheduler "
            "counts from 0, add 1"
        )
    return int(index), int(count)


def _rates(text: str) -> tuple[float, ...]:
    try:
        values = tuple(dict.fromkeys(float(rate) for rate in text.split(",")))
    except ValueError:
        values = (0.0,)
    if not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text}: rates are positive numbers")
    return values
