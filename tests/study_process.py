"""Studies so small that one is done in seconds, in a process of their own.

Each argument is NAME:FOLDER:HOW. With "kill" the process dies, as by `kill -9`, when a
method of the last part has done half of its steps; "resume" goes on from there.
"""

import os
import signal
import sys
from functools import partial

from mtl_optax.study import studies
from mtl_optax.study.command import cli, conduct
from mtl_optax.study.engine import program
from mtl_optax.study.engine.checkpoints import Checkpoints

STEPS, HALF = 4, 2
load, run = studies.load, conduct.run


def tiny(part, methods=1):
    """So many of its last methods, for a few steps, and no pictures."""
    sizes = {"steps": STEPS, "seeds": 2, "tuning_seeds": 0}
    quick = part.quick._replace(methods=part.quick.methods[-methods:], **sizes)
    return part._replace(quick=quick, figures=())


def load_tiny(name):
    """Two parts with a method each, or one part with two at a time."""
    study = load(name)
    parts = study.parts[:2]
    return study._replace(quick=tuple(tiny(x, 3 - len(parts)) for x in parts))


def run_or_die(last, part, settings, tick, store, study):
    def tick_or_die(method, stage, done):
        print(f"{part.name}:{method}:{stage}:{done}", flush=True)
        if part.name == last and stage == "training" and done == HALF:
            os.kill(os.getpid(), signal.SIGKILL)
        tick(method, stage, done)

    return run(part, settings, tick_or_die, store, study)


def main():
    program.CHUNK = HALF
    Checkpoints.__init__.__kwdefaults__["seconds"] = 0  # at every sign of progress
    studies.load = load_tiny
    for line in sys.argv[1:]:
        name, folder, how = line.split(":")
        last = load_tiny(name).quick[-1].name if how == "kill" else None
        conduct.run = partial(run_or_die, last)
        options = ["--resume"] if how == "resume" else []
        code = cli.main(["study", name, "--quick", "--out", folder, *options])
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
