"""The study of fronts: its measures on fronts made by hand, its rule, its claim."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from mtl_optax.study.command import cli
from mtl_optax.study.data.pareto_problems import PROBLEMS, best_on_rays
from mtl_optax.study.engine.settings import Candidate
from mtl_optax.study.report import claims
from mtl_optax.study.studies.fronts import claim, rule
from mtl_optax.study.studies.fronts.measures import measures, points
from mtl_optax.study.studies.fronts.problem import BOXES, SHARES, SIZES, problem

STARTS = 3
# A preference a ray, at even angles
RAYS = np.stack([np.cos(a := np.linspace(0.02, 1.55, 39)), np.sin(a)], axis=1)
RAYS /= RAYS.sum(axis=1, keepdims=True)


def method(runs):
    """What a method did whose runs end at these losses `[preferences, 2]`."""
    losses = np.repeat(np.asarray(runs, float)[:, None, None], STARTS, axis=2)
    # Weights are the rays the other way round.
    candidates = [Candidate(0.02, {"share": second}) for _, second in RAYS[: len(runs)]]
    return SimpleNamespace(
        metrics={"end": {"loss": losses}}, candidates=tuple(candidates)
    )


def on_front(name):
    """The point of the front on each ray."""
    front = PROBLEMS[name].front(4001)
    units = front / np.linalg.norm(front, axis=1)[:, None]
    return front[np.argmax(RAYS @ units.T, axis=1)]


def at_ends(name):
    """The first half at one end, the others at the other."""
    front = PROBLEMS[name].front(3)
    return np.where(np.arange(len(RAYS))[:, None] < 20, front[0], front[-1])


@pytest.mark.parametrize("name", SIZES)
def test_points_on_the_rays_cover_the_front(name):
    own = method(on_front(name))
    assert points(own).shape == (STARTS, len(RAYS), 2)
    found = measures(name, own)
    np.testing.assert_allclose(found.of_best, 1, atol=2e-3)
    assert (0.9 < found.volume).all()
    assert (found.volume < 1).all()
    assert (found.gap < 0.06).all()
    assert (found.between > 0.8).all()


@pytest.mark.parametrize("name", SIZES)
def test_ends_leave_the_front_open(name):
    found = measures(name, method(at_ends(name)))
    assert (found.between == 0).all()
    # From the middle of the front to an end
    middle = {"VLMOP2": (1 - np.exp(-1),) * 2, "ZDT2": ((5**0.5 - 1) / 2,) * 2}[name]
    to_end = min(np.linalg.norm(middle - x) for x in PROBLEMS[name].front(2))
    np.testing.assert_allclose(found.gap, to_end, atol=2e-3)
    if name == "ZDT2":  # whose ends are at the border of what counts
        np.testing.assert_array_equal(found.volume, 0)


def test_volumes_of_rays_by_hand():
    # (0.618, 0.618) on the front of ZDT2; with the ends, which add nothing
    golden = (5**0.5 - 1) / 2
    rays = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    found = best_on_rays(PROBLEMS["ZDT2"], rays)
    np.testing.assert_allclose(found, (1 - golden) ** 2, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_starts_are_drawn_from_the_box_in_the_usual_dimension(name):
    starts = np.stack([problem(name).init(seed)[0] for seed in range(20)])
    assert starts.shape == (20, SIZES[name])
    low, high = BOXES[name]
    assert starts.min() >= low
    assert starts.max() <= high
    assert np.ptp(starts) > 0.8 * (high - low)
    assert (0 < np.array(SHARES)).all()
    np.testing.assert_allclose(np.array(SHARES) + SHARES[::-1], 1)


def test_the_rule_and_the_claim_on_hand_made_fronts():
    covered, ends = (
        {name: method(make(name)) for name in SIZES} for make in (on_front, at_ends)
    )

    def verdict(**methods):
        parts = {
            name: SimpleNamespace(methods={k: x[name] for k, x in methods.items()})
            for name in SIZES
        }
        return claims.verdict(claim.measured(parts))

    assert verdict(constant=ends, tchebycheff=covered, stch=covered) == "holds"
    assert verdict(constant=covered) == "does not hold here"
    assert verdict(stch=ends) == "does not hold here"
    results = {
        "constant": ends["ZDT2"],
        "stch": covered["ZDT2"],
        "half": method(on_front("ZDT2")[:20]),
    }
    said = rule.judge(results, ("first", "second"), name="ZDT2")
    assert said.verdicts == {
        "constant": "finds the ends",
        "stch": "covers the front",
        "half": "covers a part",
    }
    assert said.statement == "The front is covered by stch."


@pytest.mark.slow
def test_the_quick_form_leaves_claim_coverage_and_fronts(tmp_path, capsys):
    assert cli.main(["study", "fronts", "--quick", "--out", str(tmp_path)]) == 0
    assert "Coverage of the front" in capsys.readouterr().out
    with open(tmp_path / "claim.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 3 * 2
    for name in SIZES:
        assert (tmp_path / name / "fronts.png").exists()
        with open(tmp_path / name / "front.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 3 * 2 * 3  # methods, starts, preferences
        middle = [row for row in rows if float(row["share_of_first"]) == 0.5]
        for row in middle:  # equal weights make the losses equal, or take an end
            apart = abs(float(row["first"]) - float(row["second"]))
            assert (apart < 0.1) == (row["method"] != "constant"), row
