"""Three pairs of quadratics, from the trajectory suite of TorchJD, and their geometry.

Objective t is `(x - u_t)' A_t (x - u_t)`. A point of the Pareto set is the minimum of
`w f_1 + (1 - w) f_2` for a w between 0 and 1, a linear equation.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.points import of_a_path
from mtl_optax.study.engine.problem import Problem

Pair = tuple[tuple[float, float], tuple[float, float]]


class Quadratics(NamedTuple):
    """Two objectives of a point, and how to descend on them."""

    title: str
    matrices: tuple[Pair, Pair]  # A
    centres: Pair  # u
    rate: float  # of gradient descent
    steps: int
    starts: tuple[tuple[float, float], ...]
    window: Pair  # of both coordinates, where paths are drawn


QUADRATICS = {
    "EWQ": Quadratics(
        title="a square for each coordinate",
        matrices=(((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, 1.0))),
        centres=((0.0, 0.0), (0.0, 0.0)),
        rate=0.075,
        steps=50,
        starts=((3.0, -2.0), (0.0, -3.0), (-4.0, 4.0), (-3.0, 4.0), (-3.5, -0.75)),
        window=((-5, 5), (-5, 5)),
    ),
    "CQF": Quadratics(
        title="two narrow bowls, crossed",
        matrices=(((1.0, 0.2), (0.2, 0.05)), ((3.0, -0.6), (-0.6, 0.2))),
        centres=((1.0, 0.0), (-1.0, 0.0)),
        rate=0.125,
        steps=200,
        starts=((0.5, 0.5), (-0.3, 7.0), (0.0, 0.0)),
        window=((-2, 2), (-1, 8)),
    ),
    "HQF": Quadratics(
        title="one bowl and ten times the same, apart",
        matrices=(((2.0, -1.0), (-1.0, 2.0)), ((20.0, -10.0), (-10.0, 20.0))),
        centres=((1.0, 0.0), (-10.0, 0.0)),
        rate=0.005,
        steps=100,
        starts=((-6.0, 4.0), (-3.0, -1.5), (1.5, 2.0), (2.5, 5.5)),
        window=((-11, 4), (-5, 8)),
    ),
}
SIDE = 5.0  # further starts are drawn from the square around 0 with this half side
ENDS = 30.0  # logits of w beyond which the Pareto set has ended
HALVINGS = 120  # of an interval of logits, more than float64 can tell apart
GOLDEN = (np.sqrt(5) - 1) / 2


def start(own: Quadratics, seed: int) -> NDArray[np.float64]:
    """Those of the suite, and after them random points."""
    if seed < len(own.starts):
        return np.array(own.starts[seed])
    return np.random.default_rng(seed).uniform(-SIDE, SIDE, 2)


def values(own: Quadratics, points: NDArray) -> NDArray[np.float64]:
    """Both objectives `[..., 2]` at points `[..., 2]`."""
    each = zip(own.matrices, own.centres, strict=True)
    away = ((points - np.array(u), np.array(a)) for a, u in each)
    return np.stack([np.einsum("...i,ij,...j", x, a, x) for x, a in away], axis=-1)


def gradients(own: Quadratics, points: NDArray) -> tuple[NDArray, NDArray]:
    """Of both objectives, each `[..., 2]`."""
    (a, b), (u, v) = own.matrices, own.centres
    return 2 * (points - np.array(u)) @ a, 2 * (points - np.array(v)) @ b


def shortest(own: Quadratics, points: NDArray) -> NDArray[np.float64]:
    """Length of the shortest convex combination of both gradients; 0: stationary."""
    one, two = gradients(own, points)
    apart = one - two
    square = (apart**2).sum(axis=-1)
    share = -(two * apart).sum(axis=-1) / np.where(square > 0, square, 1)
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(np.linalg.norm(share * one + (1 - share) * two, axis=-1))


def pareto_set(own: Quadratics, logits: NDArray) -> NDArray[np.float64]:
    """The points `[..., 2]` for these logits of w."""
    w = 1 / (1 + np.exp(-logits))[..., None, None]
    matrices, centres = np.array(own.matrices), np.array(own.centres)
    pulls = np.einsum("tij,tj->ti", matrices, centres)
    left = w * matrices[0] + (1 - w) * matrices[1]
    right = w[..., 0] * pulls[0] + (1 - w[..., 0]) * pulls[1]
    return np.asarray(np.linalg.solve(left, right[..., None])[..., 0])


def to_pareto_set(own: Quadratics, points: NDArray) -> NDArray[np.float64]:
    """Distances of points `[N, 2]` from it: a grid, then golden sections."""
    grid = np.linspace(-ENDS, ENDS, 1201)
    far = np.linalg.norm(points[:, None] - pareto_set(own, grid)[None], axis=-1)
    nearest = far.argmin(axis=1)
    low, high = grid[np.maximum(nearest - 1, 0)], grid[np.minimum(nearest + 1, 1200)]

    def distance(logits: NDArray) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(points - pareto_set(own, logits), axis=-1))

    for _ in range(HALVINGS):
        width = GOLDEN * (high - low)
        inner, outer = high - width, low + width
        keep_low = distance(inner) < distance(outer)
        low, high = np.where(keep_low, low, inner), np.where(keep_low, outer, high)
    return distance((low + high) / 2)


def problem(name: str) -> Problem:
    """For the engine."""
    own = QUADRATICS[name]

    def losses(point: jax.Array) -> tuple[jax.Array, ...]:
        each = zip(own.matrices, own.centres, strict=True)
        away = ((point - jnp.array(u), jnp.array(a)) for a, u in each)
        return tuple(x @ a @ x for x, a in away)

    return of_a_path(
        name=name,
        start=partial(start, own),
        losses=losses,
        about="All methods share starts; steps are plain gradient steps.",
        facts={"starts": own.starts},
        credits="The quadratics, starts and rates are those of the trajectory suite of "
        "TorchJD (Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, "
        "2024).",
    )


PROBLEMS = {name: partial(problem, name) for name in QUADRATICS}
