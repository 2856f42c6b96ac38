"""The study of scalarisation: dropout, L2, two trunks; claims on made results."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.studies.scalarisation import claim, figures, rule
from benchmarks.studies.scalarisation.document import table
from benchmarks.studies.scalarisation.rule import PLAIN, REGULARISED
from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.data.regularised import dropped, regularised_digits
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.problem import Now, stateless
from mtl_optax.study.engine.transformations import Ingredients, decayed
from mtl_optax.study.report import claims
from mtl_optax.study.report.claims import HOLDS, NOT_HERE, OPEN

NOW = Now(jnp.zeros(()), jax.random.key(0))
GROUPS = ("left", "greater"), ("right", "parity")


def few(problem, split="train", count=8):
    return jax.tree.map(lambda x: jnp.asarray(x[:count]), problem.splits[split])


def losses(problem, batch, seed=3, **settings):
    params, state = problem.init(seed)
    return jnp.stack(problem.losses(params, state, batch, NOW, **settings)[0])


# --- The problem ----------------------------------------------------------------------


@pytest.mark.slow
def test_one_group_without_dropout_is_the_usual_network():
    ours, theirs = regularised_digits(2), digits_problem(2)
    batch = few(ours)
    np.testing.assert_array_equal(losses(ours, batch), losses(theirs, batch))
    np.testing.assert_allclose(
        losses(ours, batch, dropout=0.0), losses(theirs, batch), rtol=1e-6
    )
    assert (losses(ours, batch, dropout=0.5) != losses(theirs, batch)).all()


def test_what_is_dropped_is_zero_and_the_rest_is_larger():
    units = jnp.arange(1.0, 40001.0).reshape(200, 200)
    found = np.asarray(dropped(jax.random.key(1), 0.2, 0, units))
    kept = found != 0
    np.testing.assert_allclose(found[kept], np.asarray(units)[kept] / 0.8, rtol=1e-6)
    assert abs(kept.mean() - 0.8) < 0.01  # five standard deviations
    other = np.asarray(dropped(jax.random.key(1), 0.2, 1, units)) != 0
    assert abs((kept == other).mean() - 0.68) < 0.02  # layers are drawn apart


def test_evaluation_drops_nothing_and_gives_the_cross_entropy():
    problem = regularised_digits(2, train_scans=20)
    fit = few(problem, "fit")
    np.testing.assert_array_equal(fit.images, few(problem).images)
    params, state = problem.init(0)
    found = problem.evaluate(params, state, fit, jax.random.key(0))
    np.testing.assert_allclose(found["loss"], losses(problem, fit, 0), rtol=1e-5)


@pytest.mark.slow
def test_groups_of_tasks_share_nothing():
    problem = regularised_digits(4, train_scans=20, groups=GROUPS)
    params, state = problem.init(0)

    def loss(params, task):
        return problem.losses(params, state, few(problem), NOW)[0][task]

    for task, trunk in enumerate([0, 1, 1, 0]):
        grads = jax.grad(loss)(params, task)
        norms = [float(optax.tree.norm(x)) for x in grads["trunks"].values()]
        assert norms[trunk] > 0
        assert norms[1 - trunk] == 0


def test_l2_is_added_to_the_gradient():
    params = {"trunk": jnp.array([1.0, -2.0]), "head": jnp.array([3.0])}
    grads = {"trunk": jnp.array([[1.0, 0.0], [2.0, 1.0]]), "head": jnp.ones((2, 1))}
    problem = stateless(
        name="two leaves",
        tasks=("a", "b"),
        splits={},
        init=lambda seed: None,
        losses=lambda params, batch: (),
        metrics=(),
        evaluate=lambda params, split: {},
        owner=lambda params: {"trunk": None, "head": 1},
    )
    of = Ingredients(problem, optax.sgd(0.5), jax.random.key(0), jnp.ones(2))
    tx = decayed(METHODS["unitary"])(of, l2=0.1)
    found, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(found["trunk"], [-0.5 * 3.1, -0.5 * 0.8], rtol=1e-6)


# --- Rule and claims ------------------------------------------------------------------

UP = np.array([[-0.1], [0.0], [0.1], [0.05]])  # seeds differ, tasks do not


def made(candidates):
    """A method with (accuracy, training loss, gap) for each candidate; its first is
    the chosen one."""

    def split(function):
        runs = [function(*own) + 0.001 * UP + np.zeros((4, 2)) for own in candidates]
        return np.stack(runs)[:, None]

    return SimpleNamespace(
        chosen=np.array([0]),
        metrics={
            "test": {"accuracy": split(lambda accuracy, train, gap: accuracy)},
            "fit": {"loss": split(lambda accuracy, train, gap: train)},
            "val": {"loss": split(lambda accuracy, train, gap: train + gap)},
        },
    )


def part(seeds=4, **methods):
    settings = SimpleNamespace(seeds=seeds)
    return SimpleNamespace(methods=methods, settings=settings)


SUM = made([(90.0, 0.1, 0.5)])


def test_runs_are_means_over_tasks():
    own = rule.tuned(part(unitary=SUM))["unitary"]
    np.testing.assert_allclose(own.accuracy, 90 + 0.001 * UP[:, 0])
    np.testing.assert_allclose(own.gap, 0.5)


def test_the_ratio_is_that_of_logs():
    found = rule.ratio(np.array([2.0, 8.0]), np.ones(2))
    assert found.mean == pytest.approx(4)
    half = 12.706204736 * np.log(2)  # t of one degree, times sd over root 2
    assert found.high == pytest.approx(4 * np.exp(half))
    assert np.isnan(rule.ratio(np.ones(1), np.ones(1)).low)


def test_no_method_beats_the_sum_or_one_does():
    worse, better = made([(89.0, 0.1, 0.5)]), made([(91.0, 0.1, 0.5)])
    found = claim.beats(part(unitary=SUM, mgda=worse, rlw=worse))
    assert [x.estimate for x in found] == pytest.approx([-1, -1])
    assert claims.verdict(found) == HOLDS
    found = claim.beats(part(unitary=SUM, mgda=worse, rlw=better))
    assert [x.verdict for x in found] == [HOLDS, NOT_HERE]


def test_regularisation_is_read_at_the_rate_of_the_sum():
    # At its own rate mgda does the contrary; cagrad is none of the source's.
    mgda = made([(90.0, 0.2, 0.3), (90.0, 0.05, 0.9)])
    methods = {"unitary": SUM, "mgda": mgda, "cagrad": made([(90.0, 0.05, 0.9)])}
    found = claim.regularises(part(**methods))
    assert [x.estimate for x in found] == pytest.approx([2, -20], rel=0.01)
    assert claims.verdict(found) == HOLDS
    later = made([(90.0, 0.2, 0.3), (90.0, 0.1, 0.5)])
    later.chosen = np.array([1])
    found = claim.regularises(part(unitary=later, mgda=mgda))
    assert [x.verdict for x in found] == [NOT_HERE, NOT_HERE]


def test_the_file_has_the_rows_of_both_claims():
    own = part(unitary=SUM, mgda=made([(89.0, 0.1, 0.5)]))
    (table,) = claims.files_of(claim.of_parts({PLAIN: own, REGULARISED: own})).values()
    assert table["title"].nunique() == 2
    assert table["verdict"].tolist() == [HOLDS, NOT_HERE, NOT_HERE]
    assert set(table["number"]) == {3}


def test_one_seed_has_a_table_and_no_interval():
    one = rule.Runs(*np.array([[90.0], [0.1], [0.5]]))
    (_, row) = table("x", {"unitary": one, "mgda": one}).rows
    assert row == ["mgda", "90.0", "10.00", "50.0", "+0.00", "1.00 [nan, nan]", "+0.00"]
    alone = {PLAIN: part(seeds=1), REGULARISED: part(seeds=1)}
    assert figures.accuracy_from_sum(alone) is None
    measured = claims.Measured(
        "x", 1.0, *rule.ratio(one.train, one.train)[1:], "above", 1
    )
    assert measured.verdict == OPEN
