"""The command line: `mtl-optax study`, `methods` and `report`.

Only the standard library is imported up here: heavy imports take seconds, and the user
should see something before them.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_EXTRA = {
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "orbax": "orbax-checkpoint",
    "rich": "rich",
}
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
    options.line = " ".join(["mtl-optax", *arguments])
    try:
        return {"study": _study, "methods": _methods, "report": _report}[
            options.command
        ](options)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; a study goes on with the same command and --resume", 130
        )


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
        "--resume", action="store_true", help="go on where a run in OUT was stopped"
    )
    study.add_argument(
        "--quick",
        action="store_true",
        help="smoke run: few methods, 2 seeds, 300 steps",
    )
    study.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="compile anew: do without JAX's persistent compilation cache",
    )
    commands.add_parser(
        "methods",
        help="what each method needs, costs, promises, and when not to use it",
    )
    report = commands.add_parser("report", help="join several results on one page")
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    report.add_argument(
        "--out",
        type=Path,
        default=Path("results/joined.html"),
        help="the page (results/joined.html)",
    )
    return parser


def _study(options: argparse.Namespace) -> int:
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
    if missing := _missing():
        return _fail(missing)
    from rich.console import Console

    from mtl_optax.study import cache, checkpoints, compare, report, screen
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
    identity = checkpoints.identity(study.name, settings._asdict())
    folder = out / "checkpoints"
    try:
        store = checkpoints.Checkpoints(folder, identity, resume=options.resume)
    except checkpoints.Refused as refused:
        return _fail(str(refused))
    cache.configure(options.cache)
    console = Console()
    with screen.progress(console, settings) as tick:
        results = compare.run(study, settings, tick, store)
    seconds = time.perf_counter() - start
    report.write(out, results, options.line, seconds)
    store.remove()
    screen.show(console, results)
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")
    return 0


def _methods(options: argparse.Namespace) -> int:
    del options
    if missing := _missing():
        return _fail(missing)
    from rich.console import Console

    from mtl_optax.study import catalogue

    catalogue.show(Console())
    return 0


def _report(options: argparse.Namespace) -> int:
    if missing := _missing():
        return _fail(missing)
    from mtl_optax.study import join

    try:
        folders = [join.read(folder) for folder in dict.fromkeys(options.folders)]
    except join.Unreadable as error:
        return _fail(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(join.join(folders), encoding="utf-8")
    print(f"Page: {options.out}")
    return 0


def _missing() -> str | None:
    names = [name for m, name in _EXTRA.items() if not importlib.util.find_spec(m)]
    if not names:
        return None
    return f'{", ".join(names)} is missing; run: pip install "mtl-optax[study]"'


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
