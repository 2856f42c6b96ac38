"""`mtl-optax study all`: one study after another, as many as there is time for."""

import argparse
import copy
import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from mtl_optax.study.command.arguments import UsageError
from mtl_optax.study.studies import STUDIES

# What is one study's own business: they have not the same methods, nor the same rates.
OWN = ("methods", "seeds", "steps", "lr", "tuning_seeds", "optimizer", "shard")


def check(options: argparse.Namespace) -> None:
    """Says what cannot be asked of all studies."""
    given = [f"--{x.replace('_', '-')}" for x in OWN if getattr(options, x) is not None]
    if given:
        raise UsageError(
            f"studies differ in {', '.join(given)}: name one study, or leave it out"
        )


def run(
    options: argparse.Namespace, study: Callable[[argparse.Namespace], None]
) -> None:
    """Runs studies by length while the next one fits, then says what was left out.

    One fits if its listed time does, stretched as far as those before took longer. What
    a smoke run takes is not listed: there the budget says when the last one begins.
    """
    start = time.perf_counter()
    budget = options.budget or math.inf
    took: dict[str, float] = {}
    for name in sorted(STUDIES, key=lambda name: STUDIES[name].seconds):
        since = time.perf_counter()
        listed = 0.0 if options.quick else STUDIES[name].seconds * _slower(took)
        if since - start + listed > budget:
            continue
        study(_options(options, name))
        took[name] = time.perf_counter() - since
    for name, seconds in took.items():
        print(f"{name}: took {minutes(seconds)}")
    for name, line in STUDIES.items():
        if name not in took:
            print(f"{name}: left out, listed with {minutes(line.seconds)}")


def minutes(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _slower(took: dict[str, float]) -> float:
    """How much slower than the machine of the list this one is, at least 1."""
    listed = sum(STUDIES[name].seconds for name in took)
    return max(1.0, sum(took.values()) / listed) if took else 1.0


def _options(options: argparse.Namespace, name: str) -> argparse.Namespace:
    """Those of one study: its name, its folder, and the command that runs it alone."""
    own = copy.copy(options)
    own.name, own.arguments = name, ["study", name]
    out = None if options.out is None else options.out / name
    if out is not None:
        own.out = out
        own.arguments += ["--out", str(out)]
    if options.quick:
        own.arguments.append("--quick")
    # What was not begun has nothing to resume.
    own.resume = options.resume and (out or Path("results") / name).exists()
    own.line = shlex.join(["mtl-optax", *own.arguments])
    return own
