"""Invariance to the scale of losses: each condition of the claim, kept and broken."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax.analysis.adam_scale import adam_scale_invariance

pytestmark = pytest.mark.usefixtures("x64")
SHARED = {"trunk": True, "a": False, "b": False}
ADAM = optax.adam(0.1, eps=0.0)
STEPS = 12
ROUNDING = 1e-9  # of the way gone; what is broken departs by far more
RNG = np.random.default_rng(0)


def start():
    """A trunk of two features of three numbers, and two linear heads."""
    return {
        "trunk": RNG.normal(size=(3, 2)),
        "a": RNG.normal(size=2),
        "b": RNG.normal(size=2),
    }


def losses_fn(params, batch):
    features = jnp.tanh(batch @ params["trunk"])
    return {
        task: jnp.mean((features @ params[task] - target) ** 2)
        for task, target in (("a", 1.0), ("b", -2.0))
    }


PARAMS, BATCHES = start(), RNG.normal(size=(STEPS, 5, 3))


def departures(scales=((1, 1), (10, 1), (0.01, 1)), **given):
    """The largest of heads and of the trunk after the last step."""
    given = {"optimizer": ADAM, "shared": SHARED, **given}
    found = adam_scale_invariance(losses_fn, PARAMS, np.array(scales), BATCHES, **given)
    assert found.heads.shape == found.trunk.shape == (len(scales), STEPS)
    assert not np.nan_to_num(found.heads[0]).any()
    return float(found.heads[:, -1].max()), float(found.trunk[:, -1].max())


def one_head(eps, scale):
    return adam_scale_invariance(
        *(lambda p, batch: (p["head"] * batch,), {"head": jnp.zeros(())}),
        *([[1.0], [scale]], jnp.array([1.0, 0.5, -0.2])),
        shared={"head": False},
        optimizer=optax.adam(0.1, eps=eps),
    )


def test_a_head_with_the_numbers_of_the_specification():
    same = one_head(0.0, 10.0).displacement["head"]
    np.testing.assert_allclose(same, -0.252889068, atol=5e-10)
    assert abs(same[1] - same[0]) < 1e-12
    apart = one_head(1e-8, 1e-3)
    difference = apart.displacement["head"][1] - apart.displacement["head"][0]
    assert difference == pytest.approx(3.1e-6, abs=5e-8)
    relative = difference / 0.252889068
    np.testing.assert_allclose(apart.leaves["head"], [0, relative], rtol=1e-4)
    np.testing.assert_array_equal(apart.trunk, 0)  # there is none


def test_a_trunk_with_the_numbers_of_the_specification():
    found = adam_scale_invariance(
        *(lambda p, batch: (p * batch[0], p * batch[1]), jnp.zeros(())),
        *([[1, 1], [10, 1], [7, 7]], jnp.array([[1, -0.5], [1, 0.25], [1, 0.5]])),
        shared=True,
        optimizer=ADAM,
    )
    expected = [-0.290028, -0.300378, -0.290028]
    np.testing.assert_allclose(found.displacement, expected, atol=5e-7)
    np.testing.assert_allclose(
        found.trunk[:, -1], [0, 0.010350 / 0.290028, 0], atol=1e-5
    )


KEPT = {
    "frozen": {"frozen": True},
    "momentum off": {
        "frozen": True,
        "optimizer": optax.adam(0.1, b1=0.0, b2=0.0, eps=0.0),
    },
    "signs": {"frozen": True, "optimizer": optax.sign_sgd(0.01)},
}
EVERYWHERE = {
    "all alike": {"scales": ((1, 1), (7, 7))},
    "an Adam a task": {"per_task": True, "optimizer": optax.adam(0.1, eps=1e-30)},
    "one over the loss": {
        "method": mtl.uw_o(2, eps=0.0),
        "optimizer": optax.sgd(0.1, momentum=0.9),
    },
}
growing = np.ones((2, STEPS, 2))
growing[1, :, 0] = np.linspace(1, 10, STEPS)
BROKEN = {
    "scales that change": {"frozen": True, "scales": growing},
    "epsilon": {"frozen": True, "optimizer": optax.adam(0.1, eps=0.1)},
    "a trunk that moves": {},
    "an L2 penalty before Adam": {
        "frozen": True,
        "optimizer": optax.chain(optax.add_decayed_weights(0.1), ADAM),
    },
    "clipping of all": {
        "frozen": True,
        "optimizer": optax.chain(optax.clip_by_global_norm(0.1), ADAM),
    },
    "plain steps": {"frozen": True, "optimizer": optax.sgd(0.01, momentum=0.9)},
}


@pytest.mark.parametrize("given", KEPT.values(), ids=KEPT)
def test_heads_that_see_one_loss_go_the_same_way(given):
    heads, trunk = departures(**given)
    assert heads < ROUNDING
    assert trunk == 0


@pytest.mark.parametrize("given", EVERYWHERE.values(), ids=EVERYWHERE)
def test_everything_goes_the_same_way(given):
    assert max(departures(**given)) < ROUNDING


@pytest.mark.parametrize("given", BROKEN.values(), ids=BROKEN)
def test_a_condition_that_is_broken_shows(given):
    heads, trunk = departures(**given)
    assert heads > 1e-4
    assert trunk == 0 if given.get("frozen") else trunk > 1e-2


def test_moments_of_before_show():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    before = optax.tree.set(ADAM.init(ones), mu=ones, nu=ones)
    assert departures(frozen=True, opt_state=before)[0] > 1e-2


def test_a_trunk_depends_on_scales_without_momentum_too():
    # The paper's stronger sentence, on betas of 0, is false: signs of a sum.
    plain = optax.adam(0.1, b1=0.0, b2=0.0, eps=0.0)
    assert departures(optimizer=plain)[1] > 1e-2


def test_zero_over_zero_is_no_invariance():
    assert np.isnan(departures(per_task=True)).all()  # heads of the other task


def test_runs_side_by_side_are_those_of_a_plain_loop():
    found = adam_scale_invariance(
        *(losses_fn, PARAMS, [[1.0, 1.0], [10.0, 1.0]], BATCHES),
        shared=lambda params: SHARED,
        optimizer=ADAM,
    )
    params, state = PARAMS, ADAM.init(PARAMS)
    for batch in BATCHES:
        alone = jax.grad(
            lambda p, x=batch: (
                10 * losses_fn(p, jnp.asarray(x))["a"]
                + losses_fn(p, jnp.asarray(x))["b"]
            )
        )
        updates, state = ADAM.update(alone(params), state, params)
        params = optax.apply_updates(params, updates)
    for leaf, moved in found.displacement.items():
        np.testing.assert_allclose(moved[1], params[leaf] - PARAMS[leaf], rtol=1e-9)


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ([[1.0, 1.0]], "two or more runs"),
        ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], "of 3 tasks, and losses_fn gives 2"),
        (np.ones((2, 3, 2)), rf"scales \[2, 3, 2\], and batches of length \[{STEPS}\]"),
        ([[1.0, 1.0], [0.0, 1.0]], "each scale must be above 0"),
    ],
)
def test_wrong_scales(scales, said):
    with pytest.raises(ValueError, match=said):
        departures(scales=scales)
