"""The two-dimensional toy of CAGrad (Liu et al. 2021, Figure 1).

Signs are those of their code. Two losses with a narrow valley each above, and two bowls
below whose best compromise is known. A problem without data: the parameters are the
point, a seed is a start, and the path of the point is kept.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.problem import Metric, Problem, stateless

# The starts of the paper, of its code, and of later papers (FAMO, Nash-MTL).
STARTS = (
    *((-8.5, 7.5), (-8.5, 5.0), (9.0, 9.0), (-8.5, -5.0)),
    *((0.0, 0.0), (10.0, -8.0), (-7.5, -0.5), (9.0, -1.0)),
)
SIDE = 10.0  # further starts are drawn from the square around 0 with this half side


def start(seed: int) -> NDArray[np.float64]:
    """STARTS, and after them random points."""
    if seed < len(STARTS):
        return np.array(STARTS[seed])
    return np.random.default_rng(seed).uniform(-SIDE, SIDE, 2)


def losses(point: jax.Array, batch: None = None) -> tuple[jax.Array, jax.Array]:
    """Both losses at a point `[2]`."""
    del batch
    x, y = point
    up = jnp.maximum(jnp.tanh(0.5 * y), 0)
    down = jnp.maximum(jnp.tanh(-0.5 * y), 0)
    left = jnp.abs(0.5 * (-x - 7) - jnp.tanh(-y))
    right = jnp.abs(0.5 * (-x + 3) + jnp.tanh(-y) + 2)
    left, right = (jnp.log(jnp.maximum(u, 5e-6)) + 6 for u in (left, right))
    first = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    second = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    return up * left + down * first, up * right + down * second


def mean_loss(points: NDArray) -> NDArray[np.float64]:
    """At points `[..., 2]`."""
    with jax.enable_x64(True):
        return np.asarray(sum(losses(jnp.moveaxis(jnp.asarray(points), -1, 0)))) / 2


def problem() -> Problem:
    """For the engine."""
    return stateless(
        name="CAGrad's toy",
        tasks=("first", "second"),
        splits={"end": None},
        init=lambda seed: jnp.asarray(start(seed)),
        losses=losses,
        metrics=(Metric("loss", "", higher_is_better=False),),
        evaluate=lambda point, split: {"loss": jnp.stack(losses(point))},
        owner=lambda point: None,
        chosen_on="end",  # nothing is held back: the losses are all there is
        reported_on="end",
        watch=lambda point, state: point,
        precision="float64",
        about="All methods share starts and optimiser.",
        facts={"starts": STARTS},
        credits="The toy is that of Liu et al., Conflict-Averse Gradient Descent for "
        "Multi-task Learning, 2021.",
    )
