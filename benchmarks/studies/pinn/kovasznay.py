"""Kovasznay's flow behind a grid at Reynolds number 40, whose form is known.

(u·∇)u + ∇p = Δu / Re and ∇·u = 0 on [-0.5, 1] x [-0.5, 1.5], with velocity and
pressure given on the boundary.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.studies.pinn import network
from benchmarks.studies.pinn.equation import Equation

REYNOLDS = 40.0
RATE = REYNOLDS / 2 - np.sqrt(REYNOLDS**2 / 4 + 4 * np.pi**2)
EDGE = 100  # points of the boundary
LOW, HIGH = np.array([-0.5, -0.5]), np.array([1.0, 1.5])


def exact(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Velocities and pressure, `[..., 3]`; on the host."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    decay, angle = np.exp(RATE * x), 2 * np.pi * y
    u = 1 - decay * np.cos(angle)
    v = RATE / (2 * np.pi) * decay * np.sin(angle)
    return np.stack([u, v, (1 - decay**2) / 2], axis=-1)


def draw(seed: int, inside: int) -> dict[str, NDArray]:
    """The points of a run, a quarter of those on the boundary on each side of it."""
    rng = np.random.default_rng(seed)
    points = network.spread(rng, inside, LOW, HIGH)
    edge = network.spread(rng, EDGE, LOW, HIGH)
    for side, at in enumerate((LOW[0], HIGH[0], LOW[1], HIGH[1])):
        edge[side::4, side // 2] = at
    return {"inside": points, "boundary": edge, "given": exact(*edge.T)}


def losses(params: Any, points: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
    """Mean squares: of all three equations together, and of what the boundary has."""
    found = network.derivatives(params, points["inside"], twice=(0, 1))
    u, v = found.value[:, 0], found.value[:, 1]
    by_x, by_y = found.first
    rest = u[:, None] * by_x + v[:, None] * by_y - found.second.sum(axis=0) / REYNOLDS
    along, across = rest[:, 0] + by_x[:, 2], rest[:, 1] + by_y[:, 2]
    residual = along**2 + across**2 + (by_x[:, 0] + by_y[:, 1]) ** 2
    edge = network.value(params, points["boundary"]) - points["given"]
    return jnp.mean(residual), jnp.mean(jnp.sum(edge**2, axis=1))


def regions(points: NDArray) -> NDArray[np.bool_]:
    """Everywhere, and on the boundary."""
    edge = ((points == LOW) | (points == HIGH)).any(axis=1)
    return np.stack([np.ones_like(edge), edge], axis=1)


EQUATION = Equation(
    name="Kovasznay",
    tasks=("residual", "boundary"),
    axes=("x", "y"),
    outputs=("u", "v", "p"),
    sides=(np.linspace(LOW[0], HIGH[0], 101), np.linspace(LOW[1], HIGH[1], 101)),
    exact=exact,
    regions=regions,
    draw=draw,
    losses=losses,
    about=f"Kovasznay's flow, Re = 40, with {EDGE} points on the boundary, where "
    f"velocity and pressure are given.",
)
