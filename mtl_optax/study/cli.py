"""The command line: `mtl-optax study`, `methods` and `report`.

Only the standard library is imported up here, since heavy imports take seconds and the
user should see something before them. (JAX comes with the package itself.)
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mtl_optax.study.arguments import STUDIES, parser

_EXTRA = {
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "orbax": "orbax-checkpoint",
    "rich": "rich",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    whole = parser()
    options = whole.parse_args(arguments)
    if options.version:
        from mtl_optax import __version__

        print(f"mtl-optax {__version__}")
        return 0
    if options.command is None:
        whole.print_help()
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


def _study(options: argparse.Namespace) -> int:
    if options.list:
        for name, line in STUDIES.items():
            print(f"{name:<9} {line}")
        return 0
    start = time.perf_counter()
    print(f"mtl-optax study {options.name}: loading ...", flush=True)
    if missing := _missing():
        return _fail(missing)
    from mtl_optax.study import cache, checkpoints, conduct
    from mtl_optax.study.methods import ALL, EVERY, KNOWN, SINGLE_TASK
    from mtl_optax.study.studies import STUDIES as studies
    from mtl_optax.study.suite import Suite

    study = studies[options.name]
    left_out = () if study.has_single_task else (SINGLE_TASK,)
    known = tuple(x for x in KNOWN if x not in left_out)
    if options.methods == (ALL,):
        options.methods = tuple(x for x in EVERY if x not in left_out)
    if unknown := _unknown(options.methods, known):
        return _fail(unknown)
    several = len(options.optimizer or ()) > 1
    if several and (options.name == "toy" or isinstance(study, Suite)):
        return _fail(f"{options.name} has a page of its own: name one optimiser")
    out = options.out or Path("results") / options.name
    cache.configure(options.cache)
    try:
        if isinstance(study, Suite):
            conduct.parts(study, options, out, start)
        elif several:
            conduct.optimizers(study, options, out)
        else:
            conduct.alone(study, options, out, start)
    except checkpoints.Refused as refused:
        return _fail(str(refused))
    seconds = time.perf_counter() - start
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")
    return 0


def _methods(options: argparse.Namespace) -> int:
    if missing := _missing():
        return _fail(missing)
    from rich.console import Console

    from mtl_optax.study import catalogue, choosing

    if options.markdown:
        print(choosing.page(), end="")
    else:
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


def _unknown(methods: Sequence[str] | None, known: Sequence[str]) -> str | None:
    for method in methods or ():
        if method not in known:
            return f"unknown method '{method}'; known: {', '.join(known)}"
    return None


def _fail(message: str, code: int = 2) -> int:
    print(f"mtl-optax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
