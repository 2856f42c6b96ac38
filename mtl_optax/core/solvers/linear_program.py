"""Linear programs of about as many numbers as there are tasks: the dual simplex method.

One solver for EPO and PMGDA, which both start at a vertex that is the best one but for
constraints that it violates. Each step solves with the basis anew, so that no rounding
piles up; the loop is bounded and nothing leaves the device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.solvers.linalg import dot, noise_floor

Array = jax.Array


class _Vertex(NamedTuple):
    step: Array
    working: Array  # [n] the constraints that hold with equality
    point: Array  # [n]
    done: Array
    feasible: Array


@jax.jit
def linear_program(
    normals: Array, bounds: Array, objective: Array, start: Array, held: Array
) -> tuple[Array, Array]:
    """`argmax c'x` over `N x >= b`, and whether there is an x within rounding.

    Args:
      normals: N, `[m, n]`, of rank n, rows of about one size.
      bounds: b, `[m]`.
      objective: c, `[n]`.
      start: `[n]` int32, the constraints that hold with equality at a vertex that would
        be the best one, were there no others: c is a combination of their normals in
        which none but those of `held` ones has a positive factor.
      held: `[m]` bool, which of them are to hold with equality whatever the others say.

    Where several vertices are the best, it is one of them. The point violates
    constraints by some roundings of their largest terms.
    """
    count, size = normals.shape
    index = jnp.arange(count, dtype=jnp.int32)
    noise = noise_floor(size, normals.dtype)

    def step(state: _Vertex) -> _Vertex:
        basis, working = normals[state.working], state.working
        point = jnp.linalg.solve(basis, bounds[working])
        terms = dot(jnp.abs(normals), jnp.abs(point)) + jnp.abs(bounds)
        missing = bounds - dot(normals, point)
        within = jnp.any(index[:, None] == working[None, :], axis=1)
        violated = ~within & (missing > noise * terms)
        # The most violated first; after many steps the first, which cannot cycle.
        patient = state.step < 5 * size
        amount = jnp.where(patient, missing, -index.astype(missing.dtype))
        enters = lax.argmax(jnp.where(violated, amount, -jnp.inf), 0, jnp.int32)

        # Each of the working ones that stands in its way may leave: the one whose
        # price per unit of help is the least, so that the others stay the best.
        prices, help_ = jnp.linalg.solve(
            basis.T, jnp.stack([-objective, normals[enters]], axis=1)
        ).T
        helps = ~held[working] & (help_ > noise * jnp.max(jnp.abs(help_)))
        ratio = jnp.maximum(prices, 0) / jnp.where(helps, help_, 1)
        least = jnp.min(jnp.where(helps, ratio, jnp.inf))
        tied = helps & (ratio <= least)
        amount = jnp.where(patient, help_, -working.astype(help_.dtype))
        leaves = lax.argmax(jnp.where(tied, amount, -jnp.inf), 0, jnp.int32)

        solved, stuck = ~jnp.any(violated), ~jnp.any(helps)
        done = solved | stuck
        swapped = jnp.where(jnp.arange(size) == leaves, enters, working)
        return _Vertex(
            state.step + jnp.int32(1),
            jnp.where(done, working, swapped),
            point,
            done,
            solved,
        )

    def unsolved(state: _Vertex) -> Array:
        return ~state.done & (state.step < 20 * size + 20)

    no = jnp.asarray(False)
    first = _Vertex(jnp.int32(0), start, jnp.zeros_like(objective), no, no)
    end = lax.while_loop(unsolved, step, first)
    return end.point, end.feasible & jnp.all(jnp.isfinite(end.point))
