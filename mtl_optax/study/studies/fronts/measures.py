"""How much of a known front the runs of a method reach from each start."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.pareto import hypervolume
from mtl_optax.study.data.pareto_problems import PROBLEMS, WORST, best_on_rays
from mtl_optax.study.engine.study import MethodResult

END = 0.02  # a loss below that is an end of the front
POINTS = 2001  # of the known front, at which gaps are looked for


class Measures(NamedTuple):
    """Of one method on one problem, a number a start."""

    volume: NDArray[np.float64]  # dominated up to WORST, as a share of the front's
    of_best: NDArray[np.float64]  # as a share of what points on the same rays have
    between: NDArray[np.float64]  # share of the runs none of whose losses is at an end
    gap: NDArray[np.float64]  # from a point of the front to the nearest run, at most


def points(own: MethodResult) -> NDArray[np.float64]:
    """The losses of every run, `[starts, preferences, T]`."""
    found = own.metrics["end"]["loss"][:, 0]  # [preferences, starts, T]
    return np.moveaxis(np.asarray(found, float), 0, 1)


def shares(own: MethodResult) -> NDArray[np.float64]:
    """Of the first task, one a preference."""
    return np.array([x.settings["share"] for x in own.candidates])


def measures(name: str, own: MethodResult) -> Measures:
    """Of all its runs."""
    known, share = PROBLEMS[name], shares(own)
    # Weights w make w f1 and (1 - w) f2 equal on the ray of (1 - w, w).
    best = best_on_rays(known, np.stack([1 - share, share], axis=1))
    worst = jnp.full(known.num_tasks, WORST)
    every = points(own)
    volume = np.array([float(hypervolume(runs, worst)) for runs in every])
    front = known.front(POINTS)
    return Measures(
        volume / known.volume,
        volume / best,
        (every.min(axis=-1) > END).mean(axis=-1),
        np.array([_gap(front, runs) for runs in every]),
    )


def _gap(front: NDArray, runs: NDArray) -> float:
    apart = np.linalg.norm(front[:, None] - runs[None], axis=-1)
    return float(apart.min(axis=1).max())
