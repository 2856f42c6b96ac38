"""The command line: `mtl-optax study`.

Only the standard library is imported up here: heavy imports take seconds, and the user
should see something before them.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_EXTRA = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}
STUDIES = {
    "stress": "one of two losses is multiplied by 1000 (default)",
    "transfer": "four tasks, two of which suffer from joint training",
    "null": "two tasks at equal scales: does any method differ from the sum?",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.version:
        from mtl_optax import __version__

        print(f"mtl-optax {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    try:
        return _study(options, " ".join(["mtl-optax", *arguments]))
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtl-optax", description="Multi-task gradient methods for JAX and optax."
    )
    parser.add_argument("--version", action="store_true", help="print it and exit")
    commands = parser.add_subparsers(dest="command", title="commands")
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
    study.add_argument("--methods", metavar="A,B", help="methods, separated by commas")
    study.add_argument("--seeds", type=_count, help="runs a method and scale (5)")
    study.add_argument("--steps", type=_count, help="training steps (1000)")
    study.add_argument(
        "--lr",
        type=_rates,
        metavar="A,B",
        help="learning rates, the best on validation data is taken (0.003; sgd 0.03)",
    )
    study.add_argument(
        "--optimizer", choices=["adam", "sgd"], help="sgd has momentum 0.9 (adam)"
    )
    study.add_argument(
        "--out", type=Path, help="folder for what is written (results/NAME)"
    )
    study.add_argument(
        "--quick",
        action="store_true",
        help="smoke run: few methods, 2 seeds, 300 steps",
    )
    return parser


def _study(options: argparse.Namespace, command: str) -> int:
    if options.list:
        for name, line in STUDIES.items():
            print(f"{name:<9} {line}")
        return 0
    start = time.perf_counter()
    print(f"mtl-optax study {options.name}: loading JAX and the digits ...", flush=True)
    from mtl_optax.study.methods import KNOWN, OPTIMIZERS

    methods = None
    if options.methods is not None:
        methods = tuple(dict.fromkeys(options.methods.split(",")))
        for method in methods:
            if method not in KNOWN:
                return _fail(f"unknown method '{method}'; known: {', '.join(KNOWN)}")
    missing = [name for m, name in _EXTRA.items() if not importlib.util.find_spec(m)]
    if missing:
        names = ", ".join(missing)
        return _fail(f'{names} is missing; run: pip install "mtl-optax[study]"')

    from rich.console import Console

    from mtl_optax.study import compare, report, screen
    from mtl_optax.study.studies import STUDIES as studies

    rates = options.lr
    if rates is None and options.optimizer is not None:
        rates = (OPTIMIZERS[options.optimizer].learning_rate,)
    chosen = {
        "methods": methods,
        "seeds": options.seeds,
        "steps": options.steps,
        "learning_rates": rates,
        "optimizer": options.optimizer,
    }
    study = studies[options.name]
    settings = study.settings(options.quick)
    settings = settings._replace(**{k: v for k, v in chosen.items() if v is not None})
    out = options.out or Path("results") / options.name
    console = Console()
    with screen.progress(console, settings) as tick:
        results = compare.run(study, settings, tick)
    seconds = time.perf_counter() - start
    report.write(out, results, command, seconds)
    screen.show(console, results)
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")
    return 0


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


def _fail(message: str, code: int = 2) -> int:
    print(f"mtl-optax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
