"""Methods from the losses: weights are the derivative of a scalar."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import precision
from method_runs import assert_same
from methods import BY_NAME

import mtl_optax as mtl

STRUCTURE = {"optimizer", "window", "average"}


def step_on(name, losses, state=None, dtype="float32", active=None, **hyper):
    """Weights [T] in float64, and the new state, from losses alone."""
    with precision(dtype):
        num_tasks = len(losses)
        static = {k: hyper.pop(k) for k in STRUCTURE & hyper.keys()}
        previous = hyper.pop("previous_losses", None)
        hyper = jax.tree.map(lambda x: jnp.asarray(x, dtype), hyper)
        tx = BY_NAME[name].make(num_tasks, **static, **hyper)
        rows, params = jnp.ones((num_tasks, 1), dtype), jnp.zeros(1, dtype)
        state = tx.init(params) if state is None else state
        given = {} if active is None else {"active": jnp.asarray(active)}
        if previous is not None:
            given["previous_losses"] = jnp.asarray(previous, dtype)
        losses = jnp.asarray(losses, dtype)
        _, state = tx.update(rows, state, params, losses=losses, **given)
        return np.asarray(state.task_weights, np.float64), state


def _unit(vector):
    return vector / jnp.linalg.norm(vector)


def _pbi(losses, theta, preference, reference):
    point, axis = losses - reference, _unit(preference)
    along = point @ axis
    return along + theta * jnp.linalg.norm(point - along * axis)


def _cosmos(losses, mu, preference):
    return preference @ losses - mu * _unit(preference) @ _unit(losses)


def _famo(losses, min_losses):
    """Its logits are 0 at first, and c counts as constant."""
    above = losses - min_losses + 1e-8
    constant = 1 / jax.lax.stop_gradient(jnp.mean(1 / above))
    return constant * jnp.mean(jnp.log(above))


P, Z, N = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.2, -0.3]), np.array([1.0, 2, 0.5])
# Name of the row, arguments, and the scalar as written in the paper.
SCALARS = {
    "gls": ("gls", {}, lambda losses: jnp.prod(losses) ** (1 / 3)),
    "scale_invariant": ("scale_invariant", {}, lambda x: jnp.sum(jnp.log(x))),
    "imtl_l": ("imtl_l", {"init": Z}, lambda x: jnp.sum(jnp.exp(Z) * x - Z)),
    "tchebycheff": (
        "tchebycheff",
        {"preference": P, "reference": Z},
        lambda losses: jnp.max(P * (losses - Z)),
    ),
    "pbi": (
        "pbi",
        {"theta": 2.0, "preference": P, "reference": Z},
        lambda losses: _pbi(losses, 2.0, P, Z),
    ),
    "cosmos": (
        "cosmos",
        {"mu": 2.0, "preference": P},
        lambda losses: _cosmos(losses, 2.0, P),
    ),
    "famo": ("famo", {"min_losses": Z}, lambda losses: _famo(losses, Z)),
}
for _mu in (0.01, 0.1, 1.0, 10.0):
    SCALARS[f"stch-{_mu}"] = (
        "stch",
        {"mu": _mu, "preference": P, "reference": Z},
        lambda x, mu=_mu: mu * jax.nn.logsumexp(P * (x - Z) / mu),
    )
    SCALARS[f"stch-log-{_mu}"] = (
        "stch",
        {"mu": _mu, "nadir": N},
        lambda x, mu=_mu: 3 * mu * jax.nn.logsumexp(jnp.log(x / N) / mu),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SCALARS)
def test_weights_are_the_derivative_of_the_scalar(case, dtype):
    name, hyper, scalar = SCALARS[case]
    for seed in range(5):
        losses = np.random.default_rng(seed).uniform(0.3, 3.0, 3).astype("float32")
        with precision("float64"):
            wanted = jax.grad(scalar)(jnp.asarray(losses, "float64"))
        got, _ = step_on(name, losses, dtype=dtype, **hyper)
        # A softmax at mu has rounding of 1/mu times that of the losses.
        error = np.finfo(dtype).eps * (100 + 20 / hyper.get("mu", 1))
        assert_same(got, np.asarray(wanted), error)


NADIR = ("stch", {"nadir": np.ones(5)})
NEED_POSITIVE = {
    "dwa": ("dwa", {}),
    "uw": ("uw", {}),
    "uw-sgd": ("uw", {"optimizer": optax.sgd(1.0)}),
    "imtl_l": ("imtl_l", {}),
    "imtl_l-sgd": ("imtl_l", {"optimizer": optax.sgd(1.0)}),
    "famo": ("famo", {}),
    "famo-sgd": ("famo", {"optimizer": optax.sgd(1.0)}),
    "stch-log": NADIR,
    "stch-log-0": ("stch", {"nadir": np.ones(5), "mu": 0.0}),
    "stch-log-tiny": ("stch", {"nadir": np.ones(5), "mu": 1e-30}),
}
TAKE_ANY = {
    "gls": ("gls", {}),
    "scale_invariant": ("scale_invariant", {}),
    "stch": ("stch", {}),
    "stch-0": ("stch", {"mu": 0.0}),
    "stch-tiny": ("stch", {"mu": 1e-30}),
    "tchebycheff": ("tchebycheff", {}),
    "pbi": ("pbi", {}),
    "cosmos": ("cosmos", {}),
}
HOSTILE_LOSSES = {
    "all": (0.0, -1.0, 1e-30, 1e30, float(np.finfo(np.float32).max)),
    "zero": (0.0,) * 5,
    "one_zero": (1.0, 2.0, 0.0, 1.0, 1.0),
    "one_negative": (1.0, -2.0, 0.5, 1.0, 1.0),
    "negative": (-1.0, -2.0, -1e30, -3.0, -1.0),
    "subnormal": (1e-40, 1.0, 1e-42, 2.0, 0.0),
    "huge": (3e38,) * 5,
}


@pytest.mark.parametrize("case", [*NEED_POSITIVE, *TAKE_ANY])
@pytest.mark.parametrize("name", HOSTILE_LOSSES)
def test_losses_of_any_size_and_sign_give_finite_weights(case, name):
    """Over several steps; where they must be positive, as if they had been clipped."""
    method, hyper = {**NEED_POSITIVE, **TAKE_ANY}[case]
    low = float(np.finfo(np.float32).tiny) ** 0.5
    state = clipped = None
    for turn in range(5):
        losses = np.roll(HOSTILE_LOSSES[name], turn).astype(np.float32)
        got, state = step_on(method, losses, state, **hyper)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
        if case in NEED_POSITIVE:
            in_range = np.clip(losses, low, 1 / low)
            wanted, clipped = step_on(method, in_range, clipped, **hyper)
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["gls", "scale_invariant"])
def test_a_task_at_its_bound_waits_and_the_others_do_not_notice(name):
    """Instead of a weight of 1e9 or 1e19: its loss has no logarithm."""
    for losses in ([0.5, 0.0, 2.0], [0.5, -3.0, 2.0]):
        got, _ = step_on(name, losses)
        alone, _ = step_on(name, [0.5, 2.0])
        np.testing.assert_allclose(got, [alone[0], 0, alone[1]], rtol=1e-6)
        got, _ = step_on(name, [-1.0, *losses[1:2], 0.0])
        np.testing.assert_array_equal(got, 0)
    # With bounds, losses of any sign count as their distances.
    got, _ = step_on(name, [-0.5, -3.0, 2.0], min_losses=[-1.0, -5.0, 2.0])
    wanted, _ = step_on(name, [0.5, 2.0])
    np.testing.assert_allclose(got, [*wanted, 0], rtol=1e-6)


def test_gls_neither_under_nor_overflows():
    losses = np.logspace(-15, 15, 50)
    got, _ = step_on("gls", losses)
    np.testing.assert_allclose(50 * got * losses, 1, rtol=1e-4)


def test_scale_invariant_losses_all_weigh_the_same():
    losses = np.logspace(-18, 18, 5)
    got, _ = step_on("scale_invariant", losses)
    np.testing.assert_allclose(got * losses, 1, rtol=1e-5)


@pytest.mark.parametrize("mu", [0.0, 1e-38, 1e-20, 1e-6])
def test_stch_with_a_tiny_mu_is_tchebycheff(mu):
    for losses in ([0.5, 2.0, 1.5], [3.0, 1.0, 3.0], [0.0, 0.0, 0.0]):
        wanted, _ = step_on("tchebycheff", losses)
        got, _ = step_on("stch", losses, mu=mu)
        np.testing.assert_array_equal(got, wanted)


def test_stch_with_a_large_mu_is_the_weighted_mean():
    got, _ = step_on("stch", [0.5, 2.0, 1.5], mu=1e30, preference=P)
    np.testing.assert_allclose(got, P / 3, rtol=1e-6)


def test_tchebycheff_shares_ties_equally():
    got, _ = step_on("tchebycheff", [2.0, 1.0, 2.0])
    np.testing.assert_allclose(got, [1 / 6, 0, 1 / 6], rtol=1e-6)
    got, _ = step_on("tchebycheff", [2.0, 1.0, 4.0], preference=[0.5, 1.0, 0.25])
    np.testing.assert_allclose(got, np.array([0.5, 1.0, 0.25]) / 3, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_no_pull_where_losses_lie_on_the_preference(size):
    """To within rounding, which theta and mu/|L| would blow up."""
    for seed in range(10):
        wanted = np.random.default_rng(seed).uniform(0.1, 1.0, 3)
        losses = size * wanted
        got, _ = step_on("pbi", losses, preference=wanted, theta=100.0)
        np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), rtol=1e-5)
        got, _ = step_on("cosmos", losses, preference=wanted, mu=100.0)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_an_infinite_loss_counts_as_a_huge_one():
    for name in ("pbi", "cosmos"):
        wanted, _ = step_on(name, [1e30, 1.0, 2.0], preference=P)
        for largest in (2e38, np.inf):
            got, _ = step_on(name, [largest, 1.0, 2.0], preference=P)
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_cosmos_of_zero_losses_is_the_weighted_sum():
    got, _ = step_on("cosmos", np.zeros(3), preference=P)
    np.testing.assert_allclose(got, P, rtol=1e-6)


def _ratio(seen, average, loss):
    """What DWA compares for one task, in windows of 2; `loss` is the new one."""
    if average == "sliding":
        new = [1.0] * 4 + seen + [loss]
        return np.mean(new[-2:]) / np.mean(new[-4:-2]) if len(seen) > 2 else 1.0
    closed = np.array(seen[: len(seen) // 2 * 2]).reshape(-1, 2).mean(axis=1)
    return closed[-1] / closed[-2] if len(closed) > 1 else 1.0


@pytest.mark.parametrize("average", ["epochs", "sliding"])
def test_dwa_gives_every_task_a_clock_of_its_own(average):
    """Against a replay of the steps at which each task was there."""
    rng = np.random.default_rng(0)
    history, state = [[], [], []], None
    for _ in range(20):
        losses, active = rng.uniform(0.5, 2.0, 3), rng.uniform(size=3) < 0.7
        got, state = step_on(
            "dwa", losses, state, active=active, window=2, average=average
        )
        pairs = zip(history, losses, strict=True)
        ratio = np.array([_ratio(seen, average, loss) for seen, loss in pairs])
        share = np.where(active, np.exp(ratio / 2), 0)
        wanted = active.sum() * share / max(share.sum(), 1)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        for t in np.flatnonzero(active):
            history[t].append(losses[t])


def test_stch_against_a_nadir_under_vmap():
    nadirs = jnp.array([[1.0, 2.0, 0.5], [3.0, 1.0, 1.0]])
    losses, everyone = jnp.array([0.5, 2.0, 1.5]), jnp.ones(3, bool)

    def weigh(nadir):
        rule = mtl.stch.weighting(nadir=nadir)
        return rule.update(None, (), losses=losses, active=everyone)[0]

    for nadir, got in zip(nadirs, jax.vmap(weigh)(nadirs), strict=True):
        ratio = np.asarray(losses / nadir)
        np.testing.assert_allclose(got, 3 * ratio / ratio.sum() / losses, rtol=1e-5)


@pytest.mark.parametrize("name", ["imtl_l", "dwa", "famo", "rlw"])
def test_a_state_that_was_donated_leaves_the_method_able_to_start(name):
    method, params = BY_NAME[name], jnp.zeros(1)
    given = {"init": jnp.zeros(3)} if name == "imtl_l" else {}
    tx = method.make(3, **given)
    step = jax.jit(
        lambda state, extras: tx.update(jnp.ones((3, 1)), state, params, **extras),
        donate_argnums=0,
    )
    extras = method.extras(3, params)
    first, _ = step(tx.init(params), extras)
    again, _ = step(tx.init(params), extras)
    np.testing.assert_array_equal(again, first)


SGD = optax.sgd(1.0)


def logits_of(state):
    return np.asarray(state.weighting.logits.values)


def test_famo_lowers_the_logit_of_the_loss_that_fell_more():
    _, state = step_on("famo", [1.0, 2.0], optimizer=SGD, weight_decay=0.0)
    np.testing.assert_array_equal(logits_of(state), 0)
    _, again = step_on(
        "famo",
        [7.0, 7.0],
        state,
        optimizer=SGD,
        weight_decay=0.0,
        previous_losses=[0.5, 1.9],
    )
    np.testing.assert_allclose(logits_of(again), [-0.16046, 0.16046], rtol=1e-4)
    # Without the losses of the same batch, those of the next one.
    _, deferred = step_on("famo", [0.5, 1.9], state, optimizer=SGD, weight_decay=0.0)
    np.testing.assert_array_equal(logits_of(deferred), logits_of(again))
    _, decayed = step_on("famo", [7.0, 7.0], again, optimizer=SGD, weight_decay=0.5)
    np.testing.assert_allclose(logits_of(decayed), logits_of(again) / 2, atol=1e-6)


def test_famo_rests_where_all_losses_fall_equally_fast():
    """Adam would make full steps of the rounding of the logarithms."""
    losses, state = np.array([1.3, 7.7, 310.0, 25.0]), None
    for _ in range(10):
        _, state = step_on("famo", losses, state, weight_decay=0.0)
        losses = losses * 0.7
    np.testing.assert_array_equal(logits_of(state), 0)


def test_famo_learns_from_a_task_once_it_has_been_seen_twice():
    state = None
    for losses, active, moved in [
        ([1.0, 2.0, 9.0], [True, True, False], [False] * 3),
        ([0.5, 1.9, 9.0], [True] * 3, [True, True, False]),
        ([0.4, 9.0, 1.0], [True, False, True], [True, False, True]),
    ]:
        before = np.zeros(3) if state is None else logits_of(state)
        _, state = step_on("famo", losses, state, active=active)
        np.testing.assert_array_equal(logits_of(state) != before, moved)


@functools.cache
def random_weights(distribution, count=4000):
    """[count, 3] of three of four tasks."""
    active = jnp.array([True, False, True, True])
    rule = mtl.rlw.weighting(key=0, distribution=distribution)

    def step(state, _):
        weights, state = rule.update(None, state, active=active)
        return state, weights

    drawn = jax.lax.scan(step, rule.init(4), length=count)[1]
    np.testing.assert_array_equal(drawn[:, 1], 0)
    np.testing.assert_allclose(np.sum(drawn, axis=1), 1, rtol=1e-6)
    assert np.all(drawn >= 0)
    return np.asarray(drawn, np.float64)[:, [0, 2, 3]]


@pytest.mark.parametrize(
    "distribution",
    ["normal", "uniform", "dirichlet", "bernoulli", "constrained_bernoulli"],
)
def test_rlw_favours_no_task(distribution):
    drawn = random_weights(distribution)
    error = 4 * drawn.std(axis=0) / len(drawn) ** 0.5
    assert np.all(np.abs(drawn.mean(axis=0) - 1 / 3) <= error)


def test_rlw_distributions_have_their_moments():
    drawn = random_weights("dirichlet")
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 18, rtol=0.1)
    drawn = random_weights("uniform")
    assert np.max(drawn.max(axis=1) / drawn.min(axis=1)) < np.e
    logs = np.log(random_weights("normal"))
    np.testing.assert_allclose(np.var(logs[:, 0] - logs[:, 1]), 2, rtol=0.1)
    assert np.all(np.isin(random_weights("constrained_bernoulli"), [0, 1]))


def test_rlw_bernoulli_draws_every_nonempty_set_equally_often():
    chosen = random_weights("bernoulli") > 0
    sets = chosen @ np.array([1, 2, 4])
    counts = np.bincount(sets, minlength=8)
    assert counts[0] == 0
    wanted = len(chosen) / 7
    assert np.all(np.abs(counts[1:] - wanted) <= 4 * wanted**0.5)


def test_rlw_random_normal_keeps_the_moments_it_drew():
    tx = mtl.rlw(3, key=0, distribution="random_normal")
    normals, params = np.array([0.5, -1.0, 2.0]), jnp.zeros(1)
    first = state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(
            jnp.ones((3, 1)), state, params, normals=jnp.asarray(normals, "float32")
        )
    moments = np.asarray(state.weighting.moments, np.float64)
    np.testing.assert_array_equal(moments, first.weighting.moments)
    wanted = np.exp(moments[:, 0] + moments[:, 1] * normals)
    np.testing.assert_allclose(state.task_weights, wanted / wanted.sum(), rtol=1e-5)


@pytest.mark.parametrize("num_tasks", [3, 5, 7])
@pytest.mark.optimized  # the compiler must not subtract products before rounding them
def test_the_largest_loss_keeps_its_weight_under_jit(num_tasks):
    for tx in (mtl.tchebycheff(num_tasks), mtl.stch(num_tasks, mu=0.0)):
        params = jnp.zeros(2)
        state, stacked = tx.init(params), jnp.ones((num_tasks, 2))

        @jax.jit
        def weights(losses, tx=tx, state=state, stacked=stacked, params=params):
            new = tx.update(stacked, state, params, losses=losses)[1]
            return new.task_weights

        draws = np.random.default_rng(0).uniform(1, 8, (100, num_tasks))
        for losses in draws.astype(np.float32):
            wanted = np.where(losses == losses.max(), 1 / num_tasks, 0)
            np.testing.assert_allclose(weights(losses), wanted, rtol=1e-6)
