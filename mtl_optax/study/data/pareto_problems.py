"""Test problems whose Pareto fronts are known: VLMOP2, ZDT1, ZDT2, DTLZ2.

Van Veldhuizen and Lamont 1999; Zitzler, Deb and Thiele 2000; Deb, Thiele, Laumanns and
Zitzler 2002. Each has the volume that its front dominates up to (1, ..., 1), DERIVED
here in closed form.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_optax.analysis.pareto import hypervolume

WORST = 1.0  # of each task, where volumes end
LEAST = 1e-6  # of what is under a root: its slope is infinite at 0


class Problem(NamedTuple):
    """Losses of a vector, where to start, and what is known of the best."""

    num_tasks: int
    losses: Callable[[jax.Array], tuple[jax.Array, ...]]
    start: Any  # [n], one of many
    box: tuple[float, float] | None  # where every entry must stay
    front: Callable[[int], np.ndarray]  # so many of its points, [about N, T]
    volume: float  # of what it dominates up to ones
    concave: bool


def vlmop2(x: jax.Array) -> tuple[jax.Array, ...]:
    """Two hills, upside down; the Pareto set is the line between their tops."""
    top = x.shape[0] ** -0.5
    return tuple(1 - jnp.exp(-jnp.sum((x + way * top) ** 2)) for way in (-1, 1))


def _zdt(x: jax.Array, shape: Callable[[jax.Array], jax.Array]) -> tuple[Any, ...]:
    above = 1 + 9 * jnp.mean(x[1:])
    return x[0], above * (1 - shape(x[0] / above))


def zdt1(x: jax.Array) -> tuple[jax.Array, ...]:
    """Convex front, 1 - sqrt(f1)."""
    return _zdt(x, jnp.sqrt)


def zdt2(x: jax.Array) -> tuple[jax.Array, ...]:
    """Concave front, 1 - f1^2."""
    return _zdt(x, jnp.square)


def dtlz2(x: jax.Array) -> tuple[jax.Array, ...]:
    """Three objectives; the front is an eighth of the unit sphere."""
    radius = 1 + jnp.sum((x[2:] - 0.5) ** 2)
    first, second = x[0] * jnp.pi / 2, x[1] * jnp.pi / 2
    return (
        radius * jnp.cos(first) * jnp.cos(second),
        radius * jnp.cos(first) * jnp.sin(second),
        radius * jnp.sin(first),
    )


def _line(count: int) -> np.ndarray:
    return np.linspace(0, 1, count)


def _of_vlmop2(count: int) -> np.ndarray:
    s = np.linspace(-1, 1, count)
    return np.stack([1 - np.exp(-((1 - s) ** 2)), 1 - np.exp(-((1 + s) ** 2))], axis=1)


def _sphere(count: int) -> np.ndarray:
    side = np.linspace(0, np.pi / 2, math.isqrt(count))
    first, second = (each.ravel() for each in np.meshgrid(side, side))
    low = np.cos(first)
    return np.stack([low * np.cos(second), low * np.sin(second), np.sin(first)], axis=1)


_RNG = np.random.default_rng(0)
PROBLEMS = {
    "VLMOP2": Problem(
        2,
        vlmop2,
        _RNG.uniform(-1, 1, 10) * 0.3,
        None,
        _of_vlmop2,
        # The ends' box, and the integral of (1 - f2) d(1 - f1) along the front.
        math.exp(-4) + 2 * math.exp(-2) * math.sqrt(math.pi / 2) * math.erf(2**0.5),
        True,
    ),
    "ZDT1": Problem(
        2,
        zdt1,
        _RNG.uniform(0.3, 0.7, 30),
        (LEAST, 1.0),
        lambda count: np.stack([_line(count), 1 - _line(count) ** 0.5], axis=1),
        2 / 3,
        False,
    ),
    "ZDT2": Problem(
        2,
        zdt2,
        _RNG.uniform(0.3, 0.7, 30),
        (LEAST, 1.0),
        lambda count: np.stack([_line(count), 1 - _line(count) ** 2], axis=1),
        1 / 3,
        True,
    ),
    "DTLZ2": Problem(
        3,
        dtlz2,
        _RNG.uniform(0.3, 0.7, 12),
        (0.0, 1.0),
        _sphere,
        1 - math.pi / 6,
        True,
    ),
}


def stays_in(box: tuple[float, float] | None) -> optax.GradientTransformation:
    """Cuts updates so that no parameter leaves the box; last in a chain."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if box is None:
            return updates, state
        to = jax.tree.map(lambda p, u: jnp.clip(p + u, *box) - p, params, updates)
        return to, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def best_on_rays(problem: Problem, rays: Any) -> float:
    """The volume of points on the true front in the directions of the rays."""
    front = problem.front(40_000)
    units = front / np.linalg.norm(front, axis=1)[:, None]
    wanted = np.asarray(rays) / np.linalg.norm(rays, axis=1)[:, None]
    nearest = np.argmax(wanted @ units.T, axis=1)
    return float(hypervolume(front[nearest], jnp.full(front.shape[1], WORST)))
