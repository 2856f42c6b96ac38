"""The command line: `mtl-optax study`, `train`, `methods` and `report`.

Only the standard library is imported up here, since heavy imports take seconds and the
user should see something before them. (JAX comes with the package itself.)
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mtl_optax.study import studies
from mtl_optax.study.command import every
from mtl_optax.study.command.arguments import ALL, Incomplete, UsageError, parser

_EXTRA = {
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "orbax": "orbax-checkpoint",
    "rich": "rich",
    "pandas": "pandas",
    "jinja2": "jinja2",
}
_EXTRA_OF_TRAIN = {
    **{"grain": "grain", "pyarrow": "pyarrow", "safetensors": "safetensors"},
    **{"tensorboardX": "tensorboardx", "PIL": "pillow"},
}


# What an --out can lead to that is no folder, or not the user's.
_UNWRITABLE = NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    whole = parser(_asked_about(arguments))
    options = whole.parse_args(arguments)
    if options.version:
        from mtl_optax import __version__

        print(f"mtl-optax {__version__}")
        return 0
    if options.command is None:
        whole.print_help()
        return 2
    options.line, options.arguments = " ".join(["mtl-optax", *arguments]), arguments
    command = {
        **{"study": _study, "train": _train},
        **{"methods": _methods, "report": _report},
    }
    try:
        command[options.command](options)
    except UsageError as error:
        return _fail(str(error), 2)
    except Incomplete as error:
        return _fail(str(error), 1)
    except _UNWRITABLE as error:
        return _fail(f"{error.filename} cannot be written: {error.strerror}", 2)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {_to_go_on(options)}", 130)
    return 0


def _to_go_on(options: argparse.Namespace) -> str:
    """How, after Ctrl-C."""
    if options.command == "train" and not hasattr(options, "begun"):
        return "the same command begins again"  # no step was done
    more = "" if getattr(options, "shard", None) else " and --resume"
    return f"it goes on with the same command{more}"


def _asked_about(arguments: list[str]) -> object:
    """The study whose help is wanted, if it can be loaded."""
    wanted = arguments[:1] == ["study"] and {"-h", "--help"} & set(arguments)
    if not wanted or _missing():
        return None
    named = (name for name in arguments if name in studies.STUDIES)
    return studies.load(next(named, next(iter(studies.STUDIES))))


def _study(options: argparse.Namespace) -> None:
    if options.list:
        width = max(map(len, studies.STUDIES))
        for name, line in studies.STUDIES.items():
            print(f"{name:<{width}} {every.minutes(line.seconds):>8}  {line.about}")
        return
    if options.name == ALL:
        every.check(options)
    elif options.budget is not None:
        raise UsageError(f"--budget is for mtl-optax study {ALL}")
    _ask_for_the_extra()
    if options.name == ALL:
        every.run(options, _one)
    else:
        _one(options)


def _one(options: argparse.Namespace) -> None:
    """The study of this name."""
    start = time.perf_counter()
    print(f"mtl-optax study {options.name}: loading ...", flush=True)
    from mtl_optax.study.command import conduct

    conduct.conduct(studies.load(options.name), options, start)


def _train(options: argparse.Namespace) -> None:
    _ask_for_the_extra("train", {**_EXTRA, **_EXTRA_OF_TRAIN})
    print(f"mtl-optax train {options.dataset}: loading ...", flush=True)
    from mtl_optax.study.command import train

    train.train(options)


def _methods(options: argparse.Namespace) -> None:
    _ask_for_the_extra()
    from mtl_optax.catalogue import page, terminal

    if options.markdown:
        print(page.markdown(), end="")
    else:
        terminal.show()


def _report(options: argparse.Namespace) -> None:
    _ask_for_the_extra()
    from mtl_optax.study.command import conduct
    from mtl_optax.study.report import html, joined

    named = list(dict.fromkeys(options.folders))
    sharded = [folder for folder in named if (folder / "shards").is_dir()]
    for folder in sharded:
        conduct.join(folder)
    if sharded == named and len(named) == 1 and options.out is None:
        return  # it has a page
    page = options.out or Path("results/joined.html")
    try:
        folders = [joined.read(folder) for folder in named]
    except joined.Unreadable as error:
        raise UsageError(str(error)) from None
    page = page / "joined.html" if page.is_dir() else page
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html.page(joined.join(folders)), encoding="utf-8")
    print(f"Page: {page}")


def _missing(extra: dict[str, str] = _EXTRA) -> list[str]:
    return [name for m, name in extra.items() if not importlib.util.find_spec(m)]


def _ask_for_the_extra(name: str = "study", extra: dict[str, str] = _EXTRA) -> None:
    if names := _missing(extra):
        raise UsageError(
            f'{", ".join(names)} is missing; run: pip install "mtl-optax[{name}]"'
        )


def _fail(message: str, code: int) -> int:
    print(f"mtl-optax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
