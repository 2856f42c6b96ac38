"""The studies, by name: a folder each, whose `study.py` holds `STUDY`.

A study's folder and a line in `OWN` are all that a new study needs. A large one has
both in `benchmarks/studies`, beside its results: a clone of the repository has these.
"""

import importlib
import pathlib
import sys
from typing import Any, NamedTuple


class Line(NamedTuple):
    """What `mtl-optax study --list` says of a study."""

    about: str
    seconds: int  # of the whole study, compilation included, on two cores


# Light: the command line shows these before it loads any of them.
OWN = {
    "stress": Line("one of two losses is multiplied by 1000 (default)", 60),
    "transfer": Line("four tasks, two of which suffer from joint training", 60),
    "toy": Line("two losses of two parameters, whose best compromise is known", 100),
    "toy_tenth": Line("the same with one loss times 0.1: who needs equal scales?", 40),
    "trajectories": Line("three pairs of quadratics: who reaches the Pareto set?", 50),
    "fronts": Line("concave fronts: linear weights against Tchebycheff's", 20),
    "rl": Line(
        "six point masses learn by reinforcement: soft actor-critic with any method",
        1900,
    ),
    "adam_scale": Line("Adam, and a loss in other units: heads, trunk", 60),
    "null": Line("two tasks at equal scales: does any method differ from the sum?", 60),
}
CLONE = pathlib.Path(__file__).resolve().parents[3]


def _in_clone() -> dict[str, Line]:
    """Those of `benchmarks/studies`, if the package is run from a clone."""
    if not (CLONE / "benchmarks" / "studies" / "__init__.py").exists():
        return {}
    if str(CLONE) not in sys.path:
        sys.path.append(str(CLONE))
    try:
        large = importlib.import_module("benchmarks.studies")
    except ImportError:  # another package is called benchmarks
        return {}
    return {name: Line(*line) for name, line in large.STUDIES.items()}


STUDIES = OWN | _in_clone()


def load(name: str) -> Any:
    """The `Study` of this name."""
    package = __name__ if name in OWN else "benchmarks.studies"
    return importlib.import_module(f"{package}.{name}.study").STUDY
