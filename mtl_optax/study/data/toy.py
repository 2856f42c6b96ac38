"""The two-dimensional toy of CAGrad (Liu et al. 2021, Figure 1), and where runs end.

Signs are those of their code. Two losses with a narrow valley each above, and two bowls
below whose best compromises are known. A problem without data: the parameters are the
point, a seed is a start, and the path of the point is kept. Later papers multiply the
first loss by 0.1, which leaves the Pareto set where it is.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.points import of_a_path
from mtl_optax.study.engine.problem import Problem

# The starts of the paper, of its code, and of later papers (FAMO, Nash-MTL).
STARTS = (
    *((-8.5, 7.5), (-8.5, 5.0), (9.0, 9.0), (-8.5, -5.0)),
    *((0.0, 0.0), (10.0, -8.0), (-7.5, -0.5), (9.0, -1.0)),
)
IN_VALLEYS = 3  # the first ones, which have a valley to cross
SIDE = 10.0  # further starts are drawn from the square around 0 with this half side

MINIMUM = (0.0, -8.3551)  # of the mean loss
# Corners of a line along the Pareto set, which ends above the centres of the bowls.
PARETO_SET = np.array(
    [(-7, -8.4345), (-4.2, -8.3849), MINIMUM, (4.2, -8.3849), (7, -8.4345)]
)
NEAR = 0.05
BAND = (-8.5, -8.2)  # the second coordinate on the Pareto set, and a margin
WHERE = (
    f"between {BAND[0]:g} and {BAND[1]:g} in the second coordinate and not beyond "
    "±7 in the first, where no step is good for both losses"
)


def start(seed: int, starts: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """Those given, and after them random points."""
    if seed < len(starts):
        return np.array(starts[seed])
    return np.random.default_rng(seed).uniform(-SIDE, SIDE, 2)


def losses(point: jax.Array, *, first: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Both losses at a point `[2]`, the first one times a factor."""
    x, y = point
    up = jnp.maximum(jnp.tanh(0.5 * y), 0)
    down = jnp.maximum(jnp.tanh(-0.5 * y), 0)
    left = jnp.abs(0.5 * (-x - 7) - jnp.tanh(-y))
    right = jnp.abs(0.5 * (-x + 3) + jnp.tanh(-y) + 2)
    left, right = (jnp.log(jnp.maximum(u, 5e-6)) + 6 for u in (left, right))
    near_7 = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    near_minus_7 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    return first * (up * left + down * near_7), up * right + down * near_minus_7


def mean_loss(points: NDArray, *, first: float = 1.0) -> NDArray[np.float64]:
    """At points `[..., 2]`."""
    with jax.enable_x64(True):
        point = jnp.moveaxis(jnp.asarray(points), -1, 0)
        return np.asarray(sum(losses(point, first=first))) / 2


def distances(points: NDArray) -> NDArray[np.float64]:
    """Of points `[..., 2]` from MINIMUM."""
    return np.linalg.norm(points - np.array(MINIMUM), axis=-1)


def on_pareto_set(points: NDArray) -> NDArray[np.bool_]:
    """Which of points `[..., 2]` are WHERE, within NEAR at the ends."""
    x, y = np.moveaxis(points, -1, 0)
    return np.asarray((BAND[0] < y) & (y < BAND[1]) & (np.abs(x) <= 7 + NEAR))


def problem(
    starts: tuple[tuple[float, float], ...] = STARTS, first: float = 1.0
) -> Problem:
    """For the engine; the first loss is multiplied by `first`."""
    return of_a_path(
        name="CAGrad's toy",
        start=lambda seed: start(seed, starts),
        losses=partial(losses, first=first),
        about="All methods share starts and optimiser.",
        facts={"starts": starts, "factor_of_the_first_loss": first},
        credits="The toy is that of Liu et al., Conflict-Averse Gradient Descent for "
        "Multi-task Learning, 2021.",
    )
