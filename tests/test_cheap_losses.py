"""uw_o, uw_so, ldc and go4align against their definitions in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax.core.solvers.one_dim_clusters import cluster_means

T = 5
PARAMS = jnp.zeros(2)
GRADS = jnp.ones((T, 2))


def weights_over_time(tx, losses, active=None):
    """Task weights `[S, T]` of updates that follow one another, and the last state."""
    update = jax.jit(tx.update)
    state, rows = tx.init(PARAMS), []
    for i, row in enumerate(losses):
        mask = {} if active is None else {"active": jnp.asarray(active[i])}
        grads = GRADS[: len(row)]
        _, state = update(grads, state, losses=jnp.asarray(row, jnp.float32), **mask)
        rows.append(np.asarray(state.task_weights, np.float64))
    return np.stack(rows), state


def random_losses(steps, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    losses = np.exp(spread * rng.standard_normal((steps, T))).astype(np.float32)
    active = rng.uniform(size=(steps, T)) < 0.7
    active[:, 1] |= ~active.any(axis=1)
    return losses.astype(np.float64), active


# --- uw_o and uw_so -------------------------------------------------------------------


def test_uw_o_is_scale_invariant_up_to_eps():
    losses, active = random_losses(3)
    plain, _ = weights_over_time(mtl.uw_o(T), losses, active)
    np.testing.assert_allclose(plain, active / (losses + 1e-8), rtol=1e-6)
    without, _ = weights_over_time(mtl.uw_o(T, eps=0.0), losses, active)
    same, _ = weights_over_time(mtl.scale_invariant(T), losses, active)
    np.testing.assert_array_equal(without, same)
    larger, _ = weights_over_time(mtl.uw_o(T, eps=0.5), losses, active)
    np.testing.assert_allclose(larger, active / (losses + 0.5), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_uw_so_is_the_softmax_of_inverse_losses(temperature):
    losses, active = random_losses(3)
    got, _ = weights_over_time(mtl.uw_so(T, temperature=temperature), losses, active)
    scores = np.where(active, 1 / (losses + 1e-8) / temperature, -np.inf)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got, shares, rtol=1e-4, atol=1e-7)


def test_uw_so_of_the_hand_checked_losses():
    for temperature, wanted in ((1, [0.817574, 0.182426]), (10, [0.537430, 0.462570])):
        tx = mtl.uw_so(2, temperature=temperature)
        got, _ = weights_over_time(tx, [[0.5, 2.0], [1.0, 1.0]])
        np.testing.assert_allclose(got, [wanted, [0.5, 0.5]], atol=5e-7)


def test_losses_at_the_ends_of_their_range():
    """At 0 weights are those of 1e-8, below it a task waits and takes none away."""
    losses = [[0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -2.0, -3.0]]
    losses += [[1e30, 1e30, 1e30], [np.inf, 1.0, 1.0]]
    got, _ = weights_over_time(mtl.uw_so(3), losses)
    half, third = [0, 0.5, 0.5], [1 / 3] * 3
    few = np.exp([0, 1, 1])
    wanted = [[1, 0, 0], half[::-1], half, [0] * 3, third, few / few.sum()]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    got, _ = weights_over_time(mtl.uw_o(3), losses[:4])
    wanted = [[1e8, 1, 0.5], [1e8, 1e8, 1], [0, 1, 1], [0] * 3]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_uw_so_refuses_a_temperature_that_is_not_positive():
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature must be positive"):
            mtl.uw_so(2, temperature=wrong)
    with pytest.raises(ValueError, match="eps must be at least 0"):
        mtl.uw_o(2, eps=-1.0)


# --- ldc ------------------------------------------------------------------------------


def total(form, lam, held, numbers, levels):
    """What LDC-MTL descends, of the tasks that are there, written as it is defined."""
    weighted = levels / (1 + np.exp(-numbers))
    if form == "symmetric":
        apart = weighted - np.mean(weighted)
    else:
        apart = weighted[:-1] - weighted[1:]
    return np.sum(weighted) / held + lam * np.sum(np.abs(apart))


def slopes(of, at, step=1e-6):
    """Central differences, which are 0 where both sides of an absolute value agree."""
    ways = step * np.eye(len(at))
    return np.array([(of(at + way) - of(at - way)) / (2 * step) for way in ways])


def ldc_by_differences(losses, active, *, form, lam, rate, first=None, epoch=None):
    """Weights over time, and the last r; with `first` zeros, of logs of ratios."""
    numbers, rows = np.linspace(-1, 1, T), []
    steps = np.zeros(T, int)
    for loss, mask in zip(losses, active, strict=True):
        at = np.flatnonzero(mask)
        levels, inner = loss[at], np.ones(len(at))
        if first is not None:
            for t in at:
                again = epoch and steps[t] and steps[t] % epoch == 0
                first[t] = loss[t] if first[t] == 0 or again else first[t]
            levels, inner = np.log(loss[at] / first[at]), 1 / loss[at]
        here = numbers[at]
        about = form, lam, np.sum(1 / (1 + np.exp(-here)))
        row = np.zeros(T)
        row[at] = slopes(lambda x, about=about, r=here: total(*about, r, x), levels)
        row[at] *= inner
        rows.append(row)
        of = lambda x, about=about, l=levels: total(*about, x, l)  # noqa: E731, E741
        numbers[at] -= rate * slopes(of, here)
        steps[at] += 1
    return np.stack(rows), numbers


@pytest.mark.parametrize("form", ["symmetric", "neighbours"])
@pytest.mark.parametrize("of", ["losses", "logs"])
def test_ldc_descends_what_it_says(form, of):
    losses, active = random_losses(6, seed=1)
    own = {"of": of, "epoch_steps": 2} if of == "logs" else {}
    start = np.linspace(-1, 1, T)
    tx = mtl.ldc(
        T, lam=0.3, optimizer=optax.sgd(0.5), init=jnp.asarray(start), form=form, **own
    )
    got, state = weights_over_time(tx, losses, active)
    about = {"first": np.zeros(T), "epoch": 2} if of == "logs" else {}
    wanted, numbers = ldc_by_differences(
        losses, active, form=form, lam=0.3, rate=0.5, **about
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.weighting.router.values, numbers, rtol=1e-4)


def test_ldc_of_two_tasks_has_one_form_only():
    """Total 2.1 for w = (1/2, 1/2), l = (1, 3), of which these are the slopes."""
    for form in ("symmetric", "neighbours"):
        value = total(form, 0.1, 1.0, np.zeros(2), np.array([1.0, 3.0]))
        assert value == pytest.approx(2.1)
        tx = mtl.ldc(2, init=0.0, form=form)
        got, state = weights_over_time(tx, [[1.0, 3.0]])
        np.testing.assert_allclose(got, [[0.45, 0.55]], rtol=1e-6)
        # Adam's first step is its rate, whatever the slope.
        np.testing.assert_allclose(state.weighting.router.values, -1e-3, rtol=1e-4)


def test_ldc_that_compares_neighbours_depends_on_the_order_of_tasks():
    losses, order = np.array([1.0, 2.0, 4.0, 3.0]), [2, 0, 3, 1]
    for form, same in (("symmetric", True), ("neighbours", False)):
        tx = mtl.ldc(4, form=form)
        plain, _ = weights_over_time(tx, [losses])
        permuted, _ = weights_over_time(tx, [losses[order]])
        assert np.allclose(permuted, plain[:, order], rtol=1e-6) == same


def test_ldc_with_given_first_losses_and_equal_tasks():
    tx = mtl.ldc(2, of="logs", initial_losses=jnp.array([1.0, 2.0]))
    got, state = weights_over_time(tx, [[0.5, 1.0]] * 2)
    np.testing.assert_allclose(got, [[1, 0.5]] * 2, rtol=1e-6)  # no penalty, shares 1/2
    np.testing.assert_array_equal(state.weighting.first, [1, 2])


def test_ldc_at_the_ends_of_what_losses_can_be():
    """Finite, and the shares are those of sigmoids too small to be numbers."""
    losses = [[0.0, 1.0, 1e30], [1e30, -1e30, 0.0], [1.0, 1.0, 1.0]]
    for of in ("losses", "logs"):
        got, state = weights_over_time(mtl.ldc(3, of=of), losses)
        assert np.isfinite(got).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    tx = mtl.ldc(2, init=jnp.array([-200.0, -200.0 + np.log(3)]))
    got, _ = weights_over_time(tx, [[1.0, 2.0]])
    np.testing.assert_allclose(got, [[0.25, 0.75]], rtol=1e-4)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"form": "next"}, "form must be one of 'symmetric', 'neighbours'"),
        ({"of": "log"}, "of must be one of 'losses', 'logs'"),
        ({"lam": -1.0}, "lam must be at least 0"),
        ({"epoch_steps": 3}, 'ldc: initial_losses= and epoch_steps=.*of="logs"'),
        ({"initial_losses": jnp.ones(2)}, 'say of="logs" too'),
        ({"of": "logs", "initial_losses": jnp.ones(3)}, "initial_losses must have one"),
        ({"of": "logs", "epoch_steps": 0}, "epoch_steps must be at least 1"),
        ({"init": jnp.ones(3)}, "init must have one entry a task"),
    ],
)
def test_what_ldc_refuses(own, message):
    with pytest.raises(ValueError, match=message):
        mtl.ldc(2, **own)


# --- go4align -------------------------------------------------------------------------


def cuts(values, num_groups):
    """Least cost, and the means, over all ways to cut the sorted numbers."""
    order, best = np.argsort(values), (np.inf, None)
    for ends in itertools.combinations(range(1, len(values)), num_groups - 1):
        groups = np.split(values[order], ends)
        cost = sum(np.sum((group - group.mean()) ** 2) for group in groups)
        if cost < best[0]:
            means = np.empty_like(values)
            means[order] = np.concatenate([np.full(len(x), x.mean()) for x in groups])
            best = cost, means
    return best


def test_clusters_are_the_best_cut_of_all():
    """Against every cut; with missing numbers, and fewer of these than groups."""
    rng = np.random.default_rng(0)
    size = 8
    for num_groups in (1, 2, 3, 8):
        for _ in range(15):
            values = rng.standard_normal(size) * 10 ** rng.uniform(-2, 2)
            active = rng.uniform(size=size) < rng.choice([0.3, 0.7, 1.1])
            given = jnp.asarray(np.where(active, values, np.nan), jnp.float32)
            means, groups = map(
                np.asarray, cluster_means(given, jnp.asarray(active), num_groups)
            )
            assert (means[~active] == 0).all()
            assert (groups[~active] == -1).all()
            values, means, groups = values[active], means[active], groups[active]
            if not len(values):
                continue
            count = min(num_groups, len(values))
            assert sorted(set(groups)) == list(range(count))
            cost, wanted = cuts(values, count)
            assert np.sum((values - means) ** 2) <= cost + 1e-5 * np.sum(values**2)
            np.testing.assert_allclose(means, wanted, rtol=1e-4, atol=1e-5)


def test_clusters_of_equal_numbers_and_of_ties():
    """Not by the order of tasks: 1, 2, 3 in two groups is a tie for either cut."""
    every = jnp.ones(4, bool)
    means, _ = cluster_means(jnp.full(4, 0.3), every, 3)
    np.testing.assert_array_equal(means, np.float32(0.3))
    values = jnp.array([1.0, 2.0, 3.0])
    wanted, _ = cluster_means(values, jnp.ones(3, bool), 2)
    np.testing.assert_array_equal(wanted, [1, 2.5, 2.5])
    for order in itertools.permutations(range(3)):
        place = jnp.array(order)
        got, _ = cluster_means(values[place], jnp.ones(3, bool), 2)
        np.testing.assert_array_equal(got, wanted[place])


@pytest.mark.parametrize("num_groups", [1, 3])
def test_go4align_follows_its_recursion(num_groups):
    losses, active = random_losses(5, seed=2, spread=2.0)
    tx = mtl.go4align(T, num_groups=num_groups, step_size=0.1)
    got, _ = weights_over_time(tx, losses, active)
    share = np.full(T, 1 / T)
    for row, loss, mask in zip(got, losses, active, strict=True):
        at = np.flatnonzero(mask)
        before = share[at].sum()
        share[at] *= np.exp(-0.1 * loss[at])
        share[at] *= before / share[at].sum()
        alone = share[at] / share[at].sum()
        values = alone * loss[at].sum() / loss[at]
        _, wanted = cuts(values, min(num_groups, len(at)))
        np.testing.assert_allclose(row[at], wanted, rtol=1e-4)
        assert (row[~mask] == 0).all()


def test_go4align_of_the_hand_checked_losses():
    for num_groups, wanted in (
        (1, [1.361195] * 3),
        (2, [2.333644, 0.874971, 0.874971]),
        (3, [2.333644, 1.166706, 0.583236]),
    ):
        tx = mtl.go4align(3, num_groups=num_groups)
        got, _ = weights_over_time(tx, [[1.0, 2.0, 4.0]])
        np.testing.assert_allclose(got, [wanted], atol=1.5e-6)


def test_go4align_at_the_ends_of_what_losses_can_be():
    losses = [[0.0, 1.0, 1.0], [1e30, 1.0, 0.0], [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    got, state = weights_over_time(mtl.go4align(3, num_groups=2), losses)
    assert np.isfinite(got).all()
    assert (got >= 0).all()
    assert np.isfinite(state.weighting.log_shares).all()
    np.testing.assert_allclose(got[0, 1:], got[0, 1], rtol=1e-6)


@pytest.mark.parametrize("wrong", [0, 3, 2.0, True])
def test_go4align_refuses_a_number_of_groups(wrong):
    with pytest.raises(ValueError, match="num_groups must be"):
        mtl.go4align(2, num_groups=wrong)
