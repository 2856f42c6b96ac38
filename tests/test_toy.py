"""Runs whose end is known: the two-dimensional toy of CAGrad, and three quadratics.

Asserted is what does not depend on rounding. Where on the Pareto set MGDA and PCGrad
end does: in the toy's valleys Adam jumps from wall to wall, which is chaotic.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax.core.solvers.min_norm import min_norm_weights
from mtl_optax.study.data import toy as problem_of_study
from mtl_optax.study.studies.trajectories.quadratics import QUADRATICS

pytestmark = pytest.mark.usefixtures("x64")

STARTS = np.array(problem_of_study.STARTS)
ABOVE = slice(0, problem_of_study.IN_VALLEYS)  # those that have a valley to cross
MINIMUM = np.array(problem_of_study.MINIMUM)
mean_loss = problem_of_study.mean_loss


def toy(point):
    first, second = problem_of_study.losses(point)
    return {"1": first, "2": second}


def advance(tx, losses_fn, point, state):
    """One step."""
    _, grads = mtl.task_grads(losses_fn)(point)
    updates, state = tx.update(grads, state, point)
    return optax.apply_updates(point, updates), state


def toy_ends(method, steps=100_000):
    """Where these steps of Adam end from each start, `[8, 2]`."""
    tx = optax.chain(method, optax.adam(1e-3))

    def end(start):
        def step(_, carry):
            return advance(tx, toy, *carry)

        return jax.lax.fori_loop(0, steps, step, (start, tx.init(start)))[0]

    return jax.vmap(end)(jnp.asarray(STARTS))


# --- The toy --------------------------------------------------------------------------


def test_toy_values():
    def values(*point):
        return [float(loss) for loss in toy(point).values()]

    np.testing.assert_allclose(values(*MINIMUM), [-15.0916, -15.0916], atol=5e-5)
    # The ends of the Pareto set, each above the centre of one bowl.
    np.testing.assert_allclose(values(-7.0, -8.43), [-0.398, -19.989], atol=1e-3)
    np.testing.assert_allclose(values(7.0, -8.43), [-19.989, -0.398], atol=1e-3)
    # The floors of the valleys at y = 4: tanh(2) (log(5e-6) + 6).
    at = 7 - 2 * np.tanh(4.0)
    np.testing.assert_allclose(values(-at, 4.0), [-5.9828, 7.3360], atol=1e-4)
    np.testing.assert_allclose(values(at, 4.0), [7.3360, -5.9828], atol=1e-4)
    # Between valleys and bowls both losses are flat.
    assert values(3.0, 0.0) == [0, 0]


def test_toy_gradients():
    losses, grads = mtl.task_grads(toy)(jnp.asarray(MINIMUM))
    assert losses.dtype == grads.dtype == jnp.float64
    # 0.2 * 7 * tanh(8.3552 / 2), in opposite directions
    np.testing.assert_allclose(grads[:, 0], [-1.39934, 1.39934], atol=1e-5)
    np.testing.assert_allclose(grads[:, 1], 0, atol=1e-5)
    np.testing.assert_allclose(jnp.mean(grads, axis=0), 0, atol=1e-5)
    everywhere = jax.vmap(mtl.task_grads(toy))(jnp.asarray(STARTS))
    assert all(bool(jnp.all(jnp.isfinite(array))) for array in everywhere)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("radii", "steps"),
    # With c = 0.2 runs arrive between 70,000 and 110,000 steps, as rounding has it (in
    # 48 runs from starts moved by 1e-9, four were late at 100,000).
    [((0.4, 0.5, 0.8), 100_000), ((0.2,), 130_000)],
    ids=["0.4 to 0.8", "0.2"],
)
def test_cagrad_reaches_the_minimum_of_the_mean_from_every_start(radii, steps):
    run = jax.vmap(lambda c: toy_ends(mtl.cagrad(2, c=c), steps))
    ends = jax.jit(run)(jnp.array(radii))
    distance = np.linalg.norm(np.asarray(ends) - np.array([0, -8.355]), axis=-1)
    assert np.max(distance) < 0.05, distance


@pytest.mark.slow
def test_adam_on_the_mean_stays_in_a_valley():
    ends = np.asarray(jax.jit(lambda: toy_ends(mtl.mean(2)))())
    assert np.all(mean_loss(ends[ABOVE]) > 0), ends


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [mtl.mgda(2), mtl.pcgrad(2, key=0)], ids=["mgda", "pcgrad"]
)
def test_mgda_and_pcgrad_stop_where_they_meet_the_pareto_set(method):
    ends = np.asarray(jax.jit(lambda: toy_ends(method))())
    assert np.all((ends[:, 1] > -8.5) & (ends[:, 1] < -8.2)), ends
    assert np.max(mean_loss(ends)) > -14.8, ends


# --- Three quadratics -----------------------------------------------------------------


class Quadratics(NamedTuple):
    """Losses `(x - u_t)' A_t (x - u_t)`, and a rate: what a program is given."""

    matrices: jax.Array  # A, [2, 2, 2]
    centres: jax.Array  # u, [2, 2]
    rate: float


def quadratic_losses(point, matrices, centres):
    away = [point - centre for centre in centres]
    return tuple(x @ matrix @ x for x, matrix in zip(away, matrices, strict=True))


@functools.partial(jax.jit, static_argnums=0)
def trajectory(method, factor, problem, start):
    """The start and the 200 points after it."""
    tx = optax.chain(method, optax.sgd(factor * problem.rate))

    losses = functools.partial(
        quadratic_losses, matrices=problem.matrices, centres=problem.centres
    )

    def step(carry, _):
        return advance(tx, losses, *carry), carry[0]

    return jax.lax.scan(step, (start, tx.init(start)), length=201)[1]


@jax.jit
def shortest(problem, point):
    """Length of the shortest vector in the hull of the gradients: 0 if stationary."""
    grads_fn = mtl.task_grads(quadratic_losses)
    gramian = mtl.gramian(grads_fn(point, problem.matrices, problem.centres)[1])
    weights = min_norm_weights(gramian, jnp.ones(2, bool))
    return jnp.sqrt(jnp.maximum(weights @ gramian @ weights, 0))


UPGRAD, PCGRAD = mtl.upgrad(2), mtl.pcgrad(2, key=0)


@pytest.mark.parametrize("name", QUADRATICS)
@pytest.mark.slow
def test_quadratics(name):
    given = QUADRATICS[name]
    problem = Quadratics(
        jnp.array(given.matrices), jnp.array(given.centres), given.rate
    )
    for start in np.array(given.starts):
        upgrad = trajectory(UPGRAD, 1.0, problem, start)[: given.steps + 1]
        # With two tasks PCGrad's sum is twice UPGrad's mean, until UPGrad stops: where
        # the gradients are opposite to about 4e-8, the root of the noise floor.
        pcgrad = trajectory(PCGRAD, 0.5, problem, start)[: given.steps + 1]
        moves = np.any(np.diff(upgrad, axis=0) != 0, axis=1)
        assert np.all(moves[: given.steps // 5])
        same = np.concatenate([[True], moves])
        np.testing.assert_allclose(pcgrad[same], upgrad[same], rtol=1e-7, atol=1e-7)
        # EWQ shrinks by (1 - 0.075)^50 = 0.020, the others by far more.
        assert shortest(problem, upgrad[-1]) <= 0.03 * shortest(problem, start)
