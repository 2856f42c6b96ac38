"""The study of trajectories: its geometry against other forms, its rule, its claim."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.study.command import cli
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.report import claims
from mtl_optax.study.studies.trajectories import claim, rule
from mtl_optax.study.studies.trajectories.measures import measures, whole_path
from mtl_optax.study.studies.trajectories.methods import methods, times
from mtl_optax.study.studies.trajectories.quadratics import (
    QUADRATICS,
    gradients,
    pareto_set,
    problem,
    shortest,
    start,
    to_pareto_set,
    values,
)

NAMES = tuple(QUADRATICS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_jax_have_the_same_losses(name):
    own, made = QUADRATICS[name], problem(name)
    points = np.random.default_rng(0).normal(size=(6, 2))

    def losses(point):
        return jnp.stack(made.losses(point, (), None, Now(0.0, None))[0])

    points = np.concatenate([points, np.array(own.starts)])
    np.testing.assert_allclose(
        values(own, points), jax.vmap(losses)(points), atol=1e-12
    )
    np.testing.assert_allclose(
        np.stack(gradients(own, points), axis=1),
        jax.vmap(jax.jacobian(losses))(points),
        atol=1e-12,
    )


def test_values_by_hand():
    np.testing.assert_allclose(values(QUADRATICS["EWQ"], np.array([3, -2])), [9, 4])
    # (-1, 0) A_1 (-1, 0)' = 1 and (1, 0) A_2 (1, 0)' = 3
    np.testing.assert_allclose(values(QUADRATICS["CQF"], np.zeros(2)), [1, 3])
    # 2 x (1, 0) from the first centre and 20 x (-10, 0)' from the second, squared
    np.testing.assert_allclose(values(QUADRATICS["HQF"], np.zeros(2)), [2, 2000])


@pytest.mark.parametrize("name", NAMES)
def test_points_of_the_pareto_set_are_stationary_and_at_no_distance(name):
    own = QUADRATICS[name]
    points = pareto_set(own, np.array([-9.0, -2.0, 0.3, 1.0, 8.0]))
    np.testing.assert_allclose(shortest(own, points), 0, atol=1e-12)
    np.testing.assert_allclose(to_pareto_set(own, points), 0, atol=1e-7)


def test_distances_by_hand():
    # The origin; and the line from one centre to the other, since both bowls are alike.
    points = np.array([(3.0, -4.0), (0.0, 2.0), (2.0, 0.0), (-11.0, 0.0)])
    found = to_pareto_set(QUADRATICS["EWQ"], points)
    np.testing.assert_allclose(found, [5, 2, 2, 11])
    found = to_pareto_set(QUADRATICS["HQF"], points)
    np.testing.assert_allclose(found, [5**0.5 * 2, 2, 1, 1], atol=1e-7)
    # Where one gradient is zero, or they are opposite; else the shorter, or between.
    found = shortest(QUADRATICS["EWQ"], np.array([(0.0, 5.0), (3.0, 4.0)]))
    np.testing.assert_allclose(found, [0, 6 * 8 / 10])


def test_starts_are_those_of_the_suite_then_random():
    own = QUADRATICS["CQF"]
    np.testing.assert_array_equal(start(own, 1), (-0.3, 7.0))
    more = np.array([start(own, seed) for seed in range(3, 20)])
    assert len(np.unique(more)) == more.size


def test_rates_are_overridden_where_the_suite_does():
    assert times("EWQ")["nash_mtl"] == 2
    assert (times("HQF")["nash_mtl"], times("HQF")["imtl_g"]) == (20, 2)
    assert (times("CQF")["nash_mtl"], times("CQF")["imtl_g"]) == (0.5, 1)
    assert set(methods("HQF")) == set(times("EWQ"))


def along(*points):
    """What a method did whose path from the first start of EWQ, (3, -2), is this."""
    return SimpleNamespace(path=np.array(points)[:, None, None])


DOWN = along((1.5, -1.0), (0.03, -0.02))
UP = along((1.5, -2.2), (0.03, -0.02))  # the second objective rises
SHORT = along((1.5, -1.0), (0.3, -0.2))


def test_measures_of_a_hand_made_path():
    np.testing.assert_allclose(whole_path("EWQ", DOWN)[0], [(3, -2)])
    found = measures("EWQ", DOWN)
    np.testing.assert_allclose(found.left, 0.01)
    np.testing.assert_allclose(found.distance, 0.01 * 13**0.5)
    # Steps and both gradients: (3, -2) against (6, 0) and (0, -4)
    np.testing.assert_allclose(found.cosine, 2 / 13**0.5)
    assert found.rise[0] < 0
    found = measures("EWQ", UP)
    # Step (1.5, 0.2), to be descended along, against the gradient (0, -4)
    np.testing.assert_allclose(found.cosine, -0.2 / np.hypot(1.5, 0.2))
    np.testing.assert_allclose(found.rise, (2.2**2 - 2**2) / 2**2)


def test_the_rule_says_who_arrives_without_a_setback():
    results = {"upgrad": DOWN, "mean": UP, "mgda": SHORT}
    said = rule.judge(results, ("first", "second"), name="EWQ")
    assert said.verdicts == {
        "upgrad": "arrives from 1 of 1",
        "mean": "arrives from 1 of 1",
        "mgda": "arrives from 0 of 1",
    }
    assert "raises an objective on the way from 1" in said.sentences["mean"]
    assert said.statement.endswith("from every start: upgrad.")


def test_the_claim_on_hand_made_paths():
    def verdict(**methods):
        part = SimpleNamespace(methods=methods)
        return claims.verdict(claim.measured({"EWQ": part}))

    assert verdict(upgrad=DOWN, pcgrad=DOWN) == "holds"
    assert verdict(upgrad=DOWN) == "holds"
    assert verdict(upgrad=UP, pcgrad=UP) == "does not hold here"
    assert verdict(upgrad=SHORT, pcgrad=SHORT) == "does not hold here"
    assert verdict(upgrad=DOWN, pcgrad=SHORT) == "does not hold here"
    assert verdict(mgda=DOWN) == "cannot tell"


@pytest.mark.slow
def test_the_quick_form_leaves_claim_distances_and_paths(tmp_path, capsys):
    assert cli.main(["study", "trajectories", "--quick", "--out", str(tmp_path)]) == 0
    assert "Trajectories on three quadratics: holds" in capsys.readouterr().out
    with open(tmp_path / "claim.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 3
    for name in ("EWQ", "CQF"):
        assert (tmp_path / name / "trajectories.png").exists()
        with open(tmp_path / name / "distances.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 3 * len(QUADRATICS[name].starts)
        left = {row["method"]: float(row["left"]) for row in rows}
        # The mean of EWQ shrinks by its rate in each step.
        if name == "EWQ":
            assert left["mean"] == pytest.approx((1 - 0.075) ** 50, rel=1e-4)
