"""Burgers' equation with a small viscosity: a sine that steepens into a shock.

u_t + u u_x = ν u_xx for x in [-1, 1] and t in [0, 1], with u(x, 0) = -sin πx and
u(±1, t) = 0. The reference is the solution of Cole and Hopf: with f(y) = exp(-cos(πy) /
(2πν)) and y = x - z √(4νt), u is minus the mean of sin πy over z, weighted by f(y) and
exp(-z²), in float64 and with Gauss-Hermite quadrature. (The array that ConFIG's authors
ship differs from it by about as much as their methods differ from the array.)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.studies.pinn import network
from benchmarks.studies.pinn.equation import Equation

VISCOSITY = 0.01 / np.pi
NODES = 100  # of the quadrature
EDGE = 50  # points of each condition, as published
LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 1.0])


def exact(x: ArrayLike, t: ArrayLike, nodes: int = NODES) -> NDArray[np.float64]:
    """Cole and Hopf's solution at `x`, `t`, arrays of one shape; on the host."""
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    x, t = np.asarray(x, np.float64)[..., None], np.asarray(t, np.float64)[..., None]
    y = x - z * np.sqrt(4 * VISCOSITY * t)
    logs = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
    # Divided by the largest, so that none overflows.
    shares = weights * np.exp(logs - logs.max(axis=-1, keepdims=True))
    return -(shares * np.sin(np.pi * y)).sum(axis=-1) / shares.sum(axis=-1)


def draw(seed: int, inside: int) -> dict[str, NDArray]:
    """The points of a run; half of those at the walls at each."""
    rng = np.random.default_rng(seed)
    points = network.spread(rng, inside, LOW, HIGH)
    initial = network.spread(rng, EDGE, LOW, HIGH) * [1, 0]
    walls = network.spread(rng, EDGE, LOW, HIGH)
    walls[:, 0] = np.where(np.arange(EDGE) % 2, 1, -1)
    return {"inside": points, "initial": initial, "boundary": walls}


def losses(params: Any, points: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
    """Mean squares of what is left of the equation and of each condition."""
    u = network.derivatives(params, points["inside"], twice=(0,))
    by_x, by_t = u.first
    rest = by_t + u.value * by_x - VISCOSITY * u.second[0]
    start = network.value(params, points["initial"])[:, 0]
    start += jnp.sin(np.pi * points["initial"][:, 0])
    walls = network.value(params, points["boundary"])
    return tuple(jnp.mean(x**2) for x in (rest, start, walls))


def regions(points: NDArray) -> NDArray[np.bool_]:
    """Everywhere, at the start, at the walls."""
    x, t = points.T
    return np.stack([x == x, t == LOW[1], np.isin(x, (LOW[0], HIGH[0]))], axis=1)


EQUATION = Equation(
    name="Burgers",
    tasks=("residual", "initial", "boundary"),
    axes=("x", "t"),
    outputs=("u",),
    sides=(np.linspace(LOW[0], HIGH[0], 201), np.linspace(LOW[1], HIGH[1], 101)),
    exact=lambda x, t: exact(x, t)[..., None],
    regions=regions,
    draw=draw,
    losses=losses,
    about=f"Burgers' equation, ν = 0.01/π, with {EDGE} points at the start and {EDGE} "
    f"at the walls.",
)
