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
        choices=["stress"],
        help="stress (default): one of two losses is multiplied by 1000",
    )
    study.add_argument("--methods", metavar="A,B", help="methods, separated by commas")
    study.add_argument("--seeds", type=_count, help="runs a method and scale (5)")
    study.add_argument("--steps", type=_count, help="training steps (1000)")
    study.add_argument("--lr", type=_rate, help="learning rate of Adam (0.003)")
    study.add_argument(
        "--out",
        type=Path,
        default=Path("results/stress"),
        help="folder for what is written (results/stress)",
    )
    study.add_argument(
        "--quick", action="store_true", help="smoke run: 4 methods, 2 seeds, 300 steps"
    )
    return parser


def _study(options: argparse.Namespace, command: str) -> int:
    start = time.perf_counter()
    print("mtl-optax study stress: loading JAX and the digits ...", flush=True)
    from mtl_optax.study.methods import KNOWN

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

    from mtl_optax.study import report, screen, stress

    chosen = {
        "methods": methods,
        "seeds": options.seeds,
        "steps": options.steps,
        "learning_rate": options.lr,
    }
    settings = stress.QUICK if options.quick else stress.Settings()
    settings = settings._replace(**{k: v for k, v in chosen.items() if v is not None})
    console = Console()
    with screen.progress(console, settings) as tick:
        results = stress.run(settings, tick)
    seconds = time.perf_counter() - start
    report.write(options.out, results, command, seconds)
    screen.show(console, results)
    print(f"Took {seconds:.0f} s. Report: {options.out / 'report.html'}")
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _fail(message: str, code: int = 2) -> int:
    print(f"mtl-optax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
