"""The study of repairs: its arms, the share given back, and its claims."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.studies.repairs import claim, rule
from benchmarks.studies.repairs.arms import ALIKE, ARMS, LONGER, USUAL, WIDER, place
from benchmarks.studies.repairs.document import alike, arms, parameters, table
from benchmarks.studies.repairs.study import STUDY
from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.engine.settings import Candidate
from mtl_optax.study.report import claims
from mtl_optax.study.report.claims import HOLDS, NOT_HERE
from mtl_optax.study.report.paired import interval

NAMES = tuple(TASKS)
NOISE = 0.1 * np.random.default_rng(0).normal(size=(5, 4))
SINGLE = np.array([97.0, 97.0, 92.0, 93.0])
LOST = np.array([0.0, 0.0, 8.0, 4.0])


def test_arms_are_methods_of_the_parts():
    parts = {own.name: own for own in STUDY.parts}
    for arm in ARMS:
        part, method = place(arm)
        assert method in parts[part].settings.methods
    every = [x for own in STUDY.parts for x in own.settings.methods]
    assert every.count("single_task") == 1 + len(ALIKE)
    assert parts[LONGER].settings.steps == 4 * parts[USUAL].settings.steps
    for part in parts.values():
        assert rule.FIXED in part.settings.learning_rates


def test_groups_have_each_task_once():
    divided = [x.network["groups"] for x in ARMS.values() if x.kind == "groups"]
    assert len({frozenset(map(frozenset, x)) for x in divided}) == 3
    for groups in divided:
        assert sorted(x for group in groups for x in group) == sorted(NAMES)


def test_the_share_holds_the_ratios_that_cannot_be_excluded():
    rng = np.random.default_rng(1)
    gain, lost = rng.normal([3.0, 6.0], 1.0, size=(5, 2)).T
    found = rule.share(gain, lost)
    assert found.mean == pytest.approx(100 * gain.mean() / lost.mean())

    def excluded(percent):
        own = interval(gain - percent / 100 * lost)
        return own.low > 0 or own.high < 0

    for end in (found.low, found.high):
        inwards = 0.01 * np.sign(found.mean - end)
        assert not excluded(end + inwards)
        assert excluded(end - inwards)


def test_a_share_of_nothing_is_unknown():
    gain, lost = np.ones(4), np.array([-1.0, 1.0, -2.0, 2.5])
    assert np.isnan(rule.share(gain, lost).low)
    assert np.isnan(rule.share(gain[:1], gain[:1]).low)
    assert rule.share(gain, gain) == pytest.approx((100, 100, 100))


def made(back, best=1.0):
    """Gives back this share at FIXED and that one at its best rate, the last."""
    rates = rule.FIXED, 1e-2
    score = [SINGLE - (1 - x) * LOST + NOISE for x in (back, best)]
    return SimpleNamespace(
        candidates=tuple(Candidate(x, {}) for x in rates),
        chosen=np.array([1]),
        metric=SimpleNamespace(name="accuracy"),
        metrics={"test": {"accuracy": np.stack(score)[:, None]}},
    )


def parts(**methods):
    single = made(1.0)
    usual = {"unitary": made(0.0, 0.8), "single_task": single, **methods}
    every = {USUAL: usual}
    for name, back in ((LONGER, 0.9), (WIDER, 0.3)):
        every[name] = {"unitary": made(back, 1.1), "single_task": made(1.0, 1.2)}
    return {
        name: SimpleNamespace(methods=own, tasks=NAMES) for name, own in every.items()
    }


def test_shares_of_arms():
    found = {x.name: x for x in rule.tried(parts(cagrad=made(0.25)), rule.FIXED)}
    assert list(found) == ["unitary", LONGER, WIDER, "cagrad"]
    shares = [x.share.mean for x in found.values()]
    assert shares == pytest.approx([0, 90, 30, 25])
    np.testing.assert_allclose(found["unitary"].change.mean(axis=0), -LOST, atol=1e-9)
    best = {x.name: x for x in rule.tried(parts(), None)}
    assert best["unitary"].share.mean == pytest.approx(80)
    assert best["unitary"].alike is None
    assert (best[LONGER].alike > best[LONGER].single).any()


def test_methods_repair_what_the_rate_does_not():
    found = claim.methods(parts(cagrad=made(0.7, 0.9), mgda=made(0.2, 0.8)))
    assert [x.what.split(" ")[0].strip(",") for x in found] == ["cagrad"] * 2 + [
        "mgda"
    ] * 2
    assert [x.estimate for x in found] == pytest.approx([70, 0.6, 20, 0], abs=1e-6)
    assert [x.verdict for x in found] == [HOLDS, HOLDS, NOT_HERE, NOT_HERE]


def test_the_loss_and_what_means_give_back():
    found = claim.means(parts())
    assert [x.estimate for x in found] == pytest.approx([-8, -4, 80, 90, 30, 1.8])
    assert [x.verdict for x in found] == [HOLDS] * 4 + [NOT_HERE, HOLDS]
    assert claims.verdict(found) == NOT_HERE
    (rows,) = claims.files_of(claim.of_parts(parts())).values()
    assert set(rows["number"]) == {4}


def test_tables_of_arms():
    every = rule.tried(parts(cagrad=made(0.25)), rule.FIXED)
    rows = {row[0]: row for row in table("x", every).rows}
    assert rows["cagrad"][1:3] == ["methods", "0.003"]
    assert rows["cagrad"][-3:] == ["25 [25, 25]", "1.0", "4"]
    assert rows[WIDER][-2:] == ["2.6", "1"]
    assert len(arms({"x": every, "y": every})) == 2 * len(every)
    assert [row[0] for row in alike(parts()).rows] == [LONGER, WIDER]


def test_a_network_of_two_trunks_has_twice_their_parameters():
    trunk, heads = 144 * 128 + 128 + 128 * 64 + 64, 65 * sum(TASKS.values())
    sizes = {
        name: parameters(SimpleNamespace(arm=ARMS[name]))
        for name in ("unitary", "digits_apart")
    }
    assert sizes == {"unitary": trunk + heads, "digits_apart": 2 * trunk + heads}
