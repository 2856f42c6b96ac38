"""Methods from the Gramian whose weights are learned, or run over time."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadprog
from method_runs import (
    SIZES,
    WIDTH,
    assert_same,
    columns,
    direction,
    lengths,
    run,
    seen,
)
from methods import BY_NAME
from problems import flat, params_of, random_matrix, stationary, tree_of

import mtl_optax as mtl


def sorted_onto_simplex(point):
    """By sorting, in float64."""
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(point) + 1)
    return np.maximum(point - excess[falling > excess][-1], 0)


def after_another_step(name, products, **hyper):
    """Weights of two updates that see these products of two batches."""
    num_tasks = products.shape[-1]
    tx = BY_NAME[name].make(num_tasks, **hyper)
    stacked = tree_of(random_matrix(num_tasks))
    state, seen_weights = tx.init(params_of(stacked)), []
    for cross in products:
        cross = jnp.asarray(cross, jnp.float32)
        _, state = tx.update(stacked, state, gramian=cross)
        seen_weights.append(np.asarray(state.task_weights, np.float64))
    return seen_weights


def products_of_two_batches(num_tasks, seed):
    batches = [random_matrix(num_tasks, seed=4 * seed + i) for i in range(4)]
    products = np.stack([batches[0] @ batches[1].T, batches[2] @ batches[3].T])
    return products.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_modo_steps_along_the_product_of_two_batches(num_tasks):
    gamma, rho = 0.02, 0.3
    for seed in range(3):
        products, wanted = products_of_two_batches(num_tasks, seed), 1 / num_tasks
        for got, cross in zip(
            after_another_step("modo", products, gamma=gamma, rho=rho),
            products,
            strict=True,
        ):
            wanted = np.broadcast_to(wanted, num_tasks)
            wanted = sorted_onto_simplex(
                wanted - gamma * (cross @ wanted + rho * wanted)
            )
            np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_sdmgrad_steps_along_the_product_of_two_batches(num_tasks):
    """Two steps a call, so that momentum counts; it starts anew at the next call."""
    rate, momentum, lam = 0.1, 0.5, 0.6
    hyper = {"learning_rate": rate, "momentum": momentum, "lam": lam, "num_iters": 2}
    pull = lam / num_tasks
    for seed in range(3):
        products = products_of_two_batches(num_tasks, seed)
        wanted = np.full(num_tasks, 1 / num_tasks)
        for got, cross in zip(
            after_another_step("sdmgrad", products, **hyper), products, strict=True
        ):
            norms = np.sqrt(np.maximum(np.diag(cross), 0))
            cross = cross / np.mean(norms) ** 2 if norms.any() else cross
            first = cross @ (wanted + pull)
            wanted = sorted_onto_simplex(wanted - rate * first)
            second = momentum * first + cross @ (wanted + pull)
            wanted = sorted_onto_simplex(wanted - rate * second)
            mixed = (wanted + pull) / (1 + lam)
            np.testing.assert_allclose(got, mixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_sdmgrad_reaches_the_regularised_smallest_norm(num_tasks):
    """From call to call: in the end only tasks of the least slope have a weight."""
    lam = 0.3
    matrix = seen(random_matrix(num_tasks, width=columns(num_tasks), seed=2))
    gram = np.repeat((matrix @ matrix.T)[None], 60, axis=0)
    mixed = after_another_step("sdmgrad", gram, lam=lam, learning_rate=0.2)[-1]
    simplex = (1 + lam) * mixed - lam / num_tasks
    slopes = matrix @ (mixed @ matrix)
    assert np.all(simplex * (slopes - slopes.min()) <= 1e-4 * np.mean(slopes))


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
@pytest.mark.parametrize("lazy", [False, True])
def test_products_of_two_batches_stand_in_for_the_gramian(name, lazy):
    """None is formed; NaN of a missing task does no harm; the record is symmetric."""
    matrix, active = random_matrix(3, seed=1), np.array([True, False, True])
    (cross, _), tx = products_of_two_batches(3, 0), BY_NAME[name].make(3)
    stacked = tree_of(matrix, width=WIDTH)
    params = params_of(stacked)

    def step(given, active):
        gradients = stacked
        if lazy:
            lines = jax.tree.leaves(stacked)

            def losses(params):
                leaves = jax.tree.leaves(params)
                pairs = list(zip(lines, leaves, strict=True))
                return tuple(sum(jnp.sum(g[t] * p) for g, p in pairs) for t in range(3))

            gradients = mtl.lazy_task_grads(losses)(params)[1]
        return tx.update(
            gradients, tx.init(params), params, gramian=given, active=active
        )

    broken = jnp.asarray(np.where(active[:, None] & active[None, :], cross, np.nan))
    update, state = jax.jit(step)(broken, jnp.asarray(active))
    alone = after_another_step(name, cross[None][:, active][:, :, active])[0]
    np.testing.assert_allclose(state.task_weights[active], alone, rtol=1e-5)
    assert_same(flat(update), alone @ seen(matrix)[active], 1e-5)
    record = np.where(np.outer(active, active), (cross + cross.T) / 2, 0)
    np.testing.assert_allclose(state.task_gramian, record, rtol=1e-6)
    text = jax.jit(step).lower(broken, None).as_text()
    assert "tensor<3x3xf32>, tensor<3xf32>" in text
    assert not re.search(r"dot_general.*-> tensor<3x3xf32>", text)


def nearest_to_the_first(matrix, tau):
    """Direction of PCD from scaled rows, by quadprog in float64; None: infeasible."""
    bounds = tau * np.sum(matrix[1:] ** 2, axis=1)
    identity = np.eye(matrix.shape[1])
    try:
        best = quadprog.solve_qp(identity, matrix[0], matrix[1:].T, bounds)[0]
    except ValueError:
        return None
    return best / np.linalg.norm(best)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("tau", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("spread", [0, 6])
def test_pcd_is_nearest_to_the_first_gradient(num_tasks, tau, spread):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix[0] -= 0.5 * matrix[1:].sum(axis=0)
        scales = np.logspace(-spread, spread, num_tasks)
        matrix *= np.random.default_rng(seed).permutation(scales)[:, None]
        given = seen(matrix)
        wanted = nearest_to_the_first(given / lengths(given)[:, None], tau)
        update = direction("pcd", matrix, tau=tau)
        assert_same(update / lengths(given)[0], wanted, 1e-4)


def test_pcd_divides_by_the_running_mean_of_squared_norms():
    """In the second step; no mean of a task moves while it is away."""
    tx = mtl.pcd(3, tau=[0.1, 0.4], beta=0.7)
    first, second = (random_matrix(3, seed=s) for s in (1, 2))
    params = params_of(tree_of(first))
    _, state = tx.update(
        tree_of(first), tx.init(params), active=jnp.array([True, False, True])
    )
    update, _ = tx.update(tree_of(second), state)
    squares = np.stack([lengths(first) ** 2, lengths(second) ** 2])
    means = (np.array([0.7 * 0.3, 0.3]) @ squares) / (1 - 0.7**2)
    means[1] = squares[1, 1]
    scaled = second / np.sqrt(means)[:, None]
    wanted = lengths(second)[0] * nearest_to_the_first(scaled, np.array([0.1, 0.4]))
    assert_same(flat(update), wanted, 1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("ratio", [1.0, 1e6])
def test_pcd_returns_the_first_gradient_where_no_vector_serves_the_others(
    num_tasks, ratio
):
    width = columns(num_tasks)
    for seed in range(5):
        others = stationary(max(num_tasks - 1, 2), width, seed)
        others *= np.logspace(0, np.log10(ratio), len(others))[:, None]
        matrix = np.concatenate([random_matrix(1, width, seed=100 + seed), others])
        update = direction("pcd", matrix, tau=0.02)
        assert_same(update, seen(matrix)[0], 1e-6)


def test_pcd_without_its_first_task_follows_the_next():
    matrix, there = random_matrix(4, seed=3), np.array([False, False, True, True])
    extras = {"active": jnp.asarray(there)}
    update, _ = run(BY_NAME["pcd"], matrix, extras)
    assert_same(update, direction("pcd", matrix[there]), 1e-6)


def test_pcd_with_a_zero_first_gradient_waits():
    matrix = random_matrix(3)
    matrix[0] = 0
    update, state = run(BY_NAME["pcd"], matrix)
    np.testing.assert_array_equal(update, 0)
    usual = state.weighting.usual_norm
    np.testing.assert_allclose(usual, lengths(matrix), rtol=1e-5)


@pytest.mark.parametrize("tau", [1e-4, 0.02, 0.5])
def test_pcd_of_opposite_gradients_turns_round_or_stops(tau):
    """What is left of the first gradient is tau of it, the other way."""
    row = random_matrix(1)[0]
    update = direction("pcd", np.stack([row, -3 * row]), tau=tau)
    if tau < 1e-3:
        np.testing.assert_array_equal(update, 0)
    else:
        assert_same(update, -row, 1e-3)


def test_pcd_with_a_tau_for_other_tasks():
    says = r"shape \(3,\), or \(2,\) without the primary"
    with pytest.raises(ValueError, match=says):
        mtl.pcd(3, tau=[0.1, 0.2, 0.3, 0.4])


def gradnorm_loss(scaled, rates, norms):
    """Its loss of the weights, from the paper: the target is a constant."""
    weighted = scaled * norms
    target = jax.lax.stop_gradient(jnp.mean(weighted) * rates)
    return jnp.sum(jnp.abs(weighted - target))


SCALED = {
    "paper": lambda values: values * len(values) / jnp.sum(values),
    "softmax": lambda values: len(values) * jax.nn.softmax(values),
}


@pytest.mark.parametrize("variant", SCALED)
@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.slow
def test_gradnorm_descends_its_loss(variant, num_tasks):
    """Three steps, by jax.grad of the loss; the paper scales w outside of it."""
    rate, alpha, rng = 0.01, 0.7, np.random.default_rng(num_tasks)
    tx = mtl.gradnorm(
        num_tasks, alpha=alpha, variant=variant, optimizer=optax.sgd(rate)
    )
    losses = jnp.asarray(rng.uniform(0.5, 2.0, (3, num_tasks)), jnp.float32)
    values = jnp.ones(num_tasks)
    state = tx.init(params_of(tree_of(random_matrix(num_tasks))))
    for step in range(3):
        matrix = random_matrix(num_tasks, seed=step)
        update, state = tx.update(tree_of(matrix), state, losses=losses[step])
        wanted = SCALED[variant](values)
        np.testing.assert_allclose(state.task_weights, wanted, rtol=2e-5)
        assert_same(flat(update), np.asarray(wanted) @ matrix, 1e-5)
        ratios = losses[step] / losses[0]
        rates = (ratios / jnp.mean(ratios)) ** alpha
        norms = jnp.asarray(lengths(matrix), jnp.float32)
        if variant == "paper":
            slope = jax.grad(gradnorm_loss)(wanted, rates, norms)
            values = wanted - rate * slope
        else:
            slope = jax.grad(
                lambda s, *rest: gradnorm_loss(SCALED["softmax"](s), *rest)
            )
            values = values - rate * slope(values, rates, norms)


@pytest.mark.parametrize("variant", SCALED)
def test_gradnorm_evens_out_weighted_norms(variant):
    """With alpha=0, whatever the losses, in steps that shrink."""
    matrix = random_matrix(3) * np.array([[0.3], [1.0], [2.0]])
    shrinking = optax.sgd(optax.exponential_decay(0.1, 1, 0.98))
    tx = mtl.gradnorm(3, alpha=0.0, variant=variant, optimizer=shrinking)
    stacked = tree_of(matrix)

    def step(state, losses):
        _, state = tx.update(stacked, state, losses=losses)
        return state, state.task_weights

    losses = jnp.asarray(1.5 ** random_matrix(400, 3), jnp.float32)
    _, steps = jax.lax.scan(step, tx.init(params_of(stacked)), losses)
    weighted = np.asarray(steps[-1]) * lengths(matrix)
    np.testing.assert_allclose(weighted, weighted.mean(), rtol=1e-2)
    np.testing.assert_allclose(np.sum(steps[-1]), 3, rtol=1e-5)


def test_gradnorm_takes_the_first_loss_of_each_task():
    """A task that comes later brings its own; losses have a floor."""
    tx = mtl.gradnorm(3)
    stacked = tree_of(random_matrix(3))
    state = tx.init(params_of(stacked))
    for losses, active in (
        ((2.0, np.nan, -1.0), (True, False, True)),
        ((1.0, 5.0, 3.0), (True, True, True)),
    ):
        _, state = tx.update(
            stacked, state, losses=jnp.array(losses), active=jnp.array(active)
        )
    np.testing.assert_allclose(state.weighting.initial_losses, [2, 5, 1e-8])
    chex.assert_tree_all_finite(state)


def test_gradnorm_keeps_weights_positive_where_steps_are_too_long():
    tx = mtl.gradnorm(2)
    stacked = tree_of(random_matrix(2) * np.array([[1.0], [1e4]]))
    state = tx.init(params_of(stacked))
    for _ in range(4):
        _, state = tx.update(stacked, state, losses=jnp.ones(2))
        assert np.all(state.task_weights > 0)
        np.testing.assert_allclose(np.sum(state.task_weights), 2, rtol=1e-6)
