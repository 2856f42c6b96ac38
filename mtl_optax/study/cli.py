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
    from mtl_optax.study.methods import ALL, KNOWN, SINGLE_TASK
    from mtl_optax.study.studies import STUDIES as studies

    study = studies[options.name]
    known = tuple(x for x in KNOWN if study.has_single_task or x != SINGLE_TASK)
    if options.methods == (ALL,):
        options.methods = known
    if unknown := _unknown(options.methods, known):
        return _fail(unknown)
    out = options.out or Path("results") / options.name
    if options.optimizer is None or len(options.optimizer) == 1:
        only = None if options.optimizer is None else options.optimizer[0]
        code = _train(options, only, out, options.resume, start)
        return code if code else _done(out, start)
    if options.name == "toy":
        return _fail("the toy's report stands alone: name one optimiser at a time")
    for name in options.optimizer:  # one after the other, each in a folder of its own
        begun = (out / name / "checkpoints").exists()
        if options.resume and not begun and (out / name / "config.json").exists():
            print(f"{name} is finished: {out / name}")
            continue
        resume = options.resume and begun
        if code := _train(options, name, out / name, resume, time.perf_counter()):
            return code
    from mtl_optax.study import join

    folders = [join.read(out / name) for name in options.optimizer]
    (out / "report.html").write_text(join.join(folders), encoding="utf-8")
    return _done(out, start)


def _done(out: Path, start: float) -> int:
    seconds = time.perf_counter() - start
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")
    return 0


def _train(
    options: argparse.Namespace,
    optimizer: str | None,
    out: Path,
    resume: bool,
    start: float,
) -> int:
    """One study with one optimiser; None is the study's own."""
    from rich.console import Console

    from mtl_optax.study import cache, checkpoints, compare, report, screen, toy_report
    from mtl_optax.study.methods import OPTIMIZERS
    from mtl_optax.study.studies import STUDIES as studies

    study, rates = studies[options.name], options.lr
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
    settings = settings._replace(**{k: v for k, v in chosen.items() if v is not None})
    identity = checkpoints.identity(study.name, settings._asdict())
    try:
        store = checkpoints.Checkpoints(out / "checkpoints", identity, resume=resume)
    except checkpoints.Refused as refused:
        return _fail(str(refused))
    cache.configure(options.cache)
    console = Console()
    console.print(
        f"{len(settings.methods)} methods, {settings.seeds} seeds, {settings.steps} "
        f"steps, {settings.optimizer}; results go to {out}",
        highlight=False,
    )
    with screen.progress(console, settings.methods, settings.steps) as tick:
        results = compare.run(study, settings, tick, store)
    seconds = time.perf_counter() - start
    if study is studies["toy"]:
        toy_report.write(out, results, options.line, seconds)
        toy_report.show(console, results)
    else:
        report.write(out, results, options.line, seconds)
        screen.show(console, results)
    store.remove()
    return 0


def _methods(options: argparse.Namespace) -> int:
    if missing := _missing():
        return _fail(missing)
    from rich.console import Console

    from mtl_optax.study import catalogue, choosing_page

    if options.markdown:
        print(choosing_page.markdown(), end="")
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
