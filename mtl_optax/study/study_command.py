"""The command `mtl-optax study`: which study its options name, and in what form."""

import argparse
import time
from pathlib import Path

from mtl_optax.study import cache, checkpoints, conduct
from mtl_optax.study.arguments import UsageError
from mtl_optax.study.methods import ALL, EVERY, KNOWN, SINGLE_TASK
from mtl_optax.study.studies import STUDIES
from mtl_optax.study.suite import Suite


def run(options: argparse.Namespace, start: float) -> None:
    """One study, or one with several optimisers, or all parts; `start` is a time."""
    study = STUDIES[options.name]
    left_out = () if study.has_single_task else (SINGLE_TASK,)
    known = tuple(x for x in (*KNOWN, *study.extra) if x not in left_out)
    if options.methods == (ALL,):
        options.methods = tuple(x for x in EVERY if x not in left_out)
    for method in options.methods or ():
        if method not in known:
            raise UsageError(f"unknown method '{method}'; known: {', '.join(known)}")
    fixed = isinstance(study, Suite) and study.has_fixed_methods
    if fixed and (options.methods or options.steps or options.optimizer or options.lr):
        raise UsageError(
            f"the parts of {options.name} have methods, steps, optimisers and rates of "
            "their own: leave --methods, --steps, --optimizer and --lr out"
        )
    several = len(options.optimizer or ()) > 1
    if several and (options.name == "toy" or isinstance(study, Suite)):
        raise UsageError(
            f"{options.name} has a page of its own: name one optimiser at a time"
        )
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
        raise UsageError(str(refused)) from None
    seconds = time.perf_counter() - start
    print(f"Took {seconds:.0f} s. Report: {out / 'report.html'}")
