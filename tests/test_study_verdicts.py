"""What the studies conclude from numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from mtl_optax.study.engine.outcome import choose, shares
from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.report import paired, rules
from mtl_optax.study.report import scale_rule as stress

TASKS = ("left", "right")
EQUAL = np.full((2, 3, 2), 0.5)
TURNED = np.stack([EQUAL[0], np.tile([0.6, 0.4], (3, 1))])
ALMOST = np.stack([EQUAL[0], np.tile([0.5009, 0.4991], (3, 1))])


@pytest.mark.parametrize(
    ("after", "first_shares", "expected"),
    [
        ((97, 60), TURNED, "dominated"),
        ((70, 97), TURNED, "over-corrects"),
        ((70, 60), TURNED, "fails"),
        ((70, 60), EQUAL, "fails"),
        ((96.8, 96.2), EQUAL, "invariant"),
        ((96.8, 96.2), ALMOST, "invariant"),
        ((96.8, 96.2), TURNED, "robust"),
        ((96.8, 96.2), EQUAL * np.nan, "robust"),
        ((95.01, 94.01), TURNED, "robust"),  # less than 2 points
        ((97, 93.99), TURNED, "dominated"),  # more than 2 points
        ((99, 99), TURNED, "robust"),  # a gain is no loss
    ],
)
def test_verdict(after, first_shares, expected):
    seeds = np.array([[-0.5], [0.0], [0.5]])
    accuracy = np.stack([seeds + np.array(x) for x in ((97.0, 96.0), after)])
    word = stress.verdict(accuracy, first_shares)
    assert word == expected
    text = stress.sentence("x", word, accuracy, TASKS)
    assert text.startswith(f"x {'' if word in ('over-corrects', 'fails') else 'is '}")
    assert word in text


def test_sentence_gives_the_numbers():
    accuracy = np.stack([np.full((2, 2), 96.8), np.tile([77.1, 96.9], (2, 1))])
    text = stress.sentence("mgda", "over-corrects", accuracy, TASKS)
    assert text == (
        "mgda over-corrects: left falls from 96.8 to 77.1 when its loss is multiplied "
        "by 1000."
    )


def test_shares_without_an_update_are_unknown():
    found = shares(np.array([[0.0, 0.0], [1.0, 3.0]]), np.ones((2, 2)))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [0.25, 0.75])


ACCURACY, LOSS = Metric("accuracy", "%"), Metric("loss", "nat", higher_is_better=False)


def results(metric=ACCURACY, **scores):
    """Of methods with these scores `[seeds, T]` at one scale."""
    return {
        name: SimpleNamespace(score=score[None], metric=metric)
        for name, score in scores.items()
    }


BASE = np.array([[97.0, 96.0], [96.0, 97.0], [98.0, 95.0]])
NOISY = BASE + np.array([[0.3, 0.1], [-0.3, -0.1], [0.1, 0.0]])
BETTER = BASE + np.array([[0.1, 0.5], [-0.1, 0.6], [0.0, 0.4]])


def test_who_differs_from_the_sum():
    same = rules.judge_against(results(unitary=BASE, a=NOISY), TASKS)
    assert same.statement == (
        "At equal scales 95 % intervals, paired over 3 seeds, exclude 0 in 0 of 2 "
        "comparisons with unitary, by chance in about 0.1: none. The largest mean "
        "difference is 0.03 points."
    )
    assert same.verdicts == {"unitary": "baseline", "a": "not told apart"}
    other = results(a=NOISY, b=BETTER, unitary=BASE, single_task=BETTER)
    named = rules.judge_against(other, TASKS)
    # t of 2 degrees of freedom is 4.303; 4.303 x 0.1 / sqrt(3) = 0.25
    assert "exclude 0 in 1 of 4" in named.statement
    assert "0.2: b on right (+0.50 [+0.25, +0.75] points)." in named.statement
    assert named.verdicts["b"] == "better"
    assert named.verdicts["single_task"] == "reference"
    assert named.sentences["a"].startswith("a, not told apart: left +0.03 [-0.73, ")
    for unable in (
        results(unitary=BASE),
        results(a=BASE, b=BASE),
        results(unitary=BASE[:1], a=NOISY[:1]),
    ):
        found = rules.judge_against(unable, TASKS)
        assert "no statement is possible" in found.statement
        assert set(found.verdicts.values()) <= {"baseline", "unknown"}


def test_the_paired_rule():
    up = np.array([1.0, 1.1, 0.9])
    words = [paired.word(x) for x in (up, -up, up - 1.0, up[:1])]
    assert words == ["better", "worse", "not told apart", "unknown"]
    assert paired.word(up, higher_is_better=False) == "worse"
    both = np.stack([up, -up, up - 1.0], axis=1)
    np.testing.assert_array_equal(paired.signs(both), [1, -1, 0])
    np.testing.assert_array_equal(paired.signs(both[:1]), [0, 0, 0])
    assert paired.word_of_tasks(both) == "better and worse"
    assert paired.word_of_tasks(both[:, 2:]) == "not told apart"


LOST = np.array([[90.0, 80.0], [91.0, 80.0], [92.0, 80.0]])
ALONE = np.array([[90.0, 88.0], [91.0, 89.0], [92.0, 90.0]])


def test_transfer_names_what_is_lost_and_who_repairs_it():
    tasks = ("left", "parity")

    def judged(**scores):
        return rules.judge_transfer(results(**scores), tasks)

    nobody = judged(unitary=LOST, a=LOST, single_task=ALONE)
    assert nobody.verdicts["a"] == "negative transfer"
    # t of 2 degrees of freedom is 4.303; 4.303 / sqrt(3) = 2.48
    text = nobody.sentences["a"]
    assert "left +0.00 [+0.00, +0.00], parity -9.00 [-11.5, -6.5] points" in text
    assert "Δp -5.05 [-6.31, -3.80] % (higher is better)" in text  # half of -9 / 89
    assert "parity -9.00 [-11.5, -6.5] points" in nobody.statement
    assert nobody.statement.endswith("None of a removes it.")
    cured = judged(unitary=LOST, a=ALONE, single_task=ALONE)
    assert cured.verdicts["a"] == "no loss"
    assert cured.statement.endswith("No task loses with a.")
    none = judged(unitary=ALONE, single_task=ALONE)
    assert none.statement.startswith("No negative transfer")
    unable = judged(unitary=ALONE)
    assert unable.statement.startswith("No statement is possible")
    assert unable.verdicts == {"unitary": "unknown"}


def test_the_rate_is_chosen_on_the_mean_of_validation():
    validation = np.zeros((3, 2, 2, 2))  # rates, scales, seeds, tasks
    validation[1, 0] = [[50, 60], [50, 60]]
    validation[0, 0, 0, 0] = 100  # best in one seed and task only
    validation[2, 1] = validation[1, 1] = 7  # a tie
    np.testing.assert_array_equal(choose(validation), [1, 1])


def test_a_diverged_rate_is_not_chosen_and_losses_are_better_when_low():
    validation = np.array([np.nan, 3.0, 1.0, 2.0]).reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(choose(validation), [1])
    np.testing.assert_array_equal(choose(validation, False), [2])


def test_a_lower_loss_is_better_and_has_its_unit():
    lower = BASE - np.array([[0.1, 0.5], [-0.1, 0.6], [0.0, 0.4]])
    found = rules.judge_against(results(LOSS, unitary=BASE, a=lower), TASKS)
    assert found.verdicts["a"] == "better"
    assert found.sentences["a"].endswith("right -0.50 [-0.75, -0.25] nat from unitary.")
    assert "a on right (-0.50 [-0.75, -0.25] nat)" in found.statement
    worse = rules.judge_against(results(LOSS, unitary=BASE, a=BETTER), TASKS)
    assert worse.verdicts["a"] == "worse"

    more = rules.judge_transfer(results(LOSS, unitary=ALONE, single_task=LOST), TASKS)
    assert more.verdicts["unitary"] == "negative transfer"
    assert "right +9.00 [+6.5, +11.5] nat" in more.statement
    assert "Δp -5.62 [" in more.sentences["unitary"]  # half of 9 / 80, and worse
    less = rules.judge_transfer(results(LOSS, unitary=LOST, single_task=ALONE), TASKS)
    assert less.verdicts["unitary"] == "no loss"
    assert "more than 2 nat against" in less.statement
    assert "Δp +5.05 [" in less.sentences["unitary"]


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_a_run_that_diverged_is_neither_as_good_nor_better(what):
    away = BASE.copy()
    away[0, 1] = what
    found = rules.judge_against(results(unitary=BASE, a=away, b=BETTER), TASKS)
    assert found.verdicts == {"unitary": "baseline", "a": "unknown", "b": "better"}
    assert "1 have no number: runs diverged. The largest mean difference is 0.50" in (
        found.statement
    )
    both = rules.judge_against(results(unitary=away, a=away), TASKS)
    assert both.verdicts["a"] == "unknown"
    assert "largest" not in rules.statement_against(
        results(unitary=away * what, a=away * what), TASKS
    )
    unknown = rules.judge_transfer(results(unitary=BASE, single_task=away), TASKS)
    assert unknown.verdicts["unitary"] == "unknown"
    assert unknown.statement.endswith("runs of single_task diverged.")
    if what != np.inf:
        lost = rules.judge_transfer(results(unitary=away, single_task=BASE), TASKS)
        assert lost.verdicts["unitary"] == "negative transfer"
        assert stress.verdict(np.stack([BASE, away]), EQUAL) == "dominated"


def test_no_relative_change_from_nothing():
    found = rules.judge_transfer(results(unitary=BASE, single_task=0 * BASE), TASKS)
    assert "Δp +nan" in found.sentences["unitary"]
    assert found.verdicts["unitary"] == "no loss"


def test_infinite_numbers_have_no_difference():
    ours, theirs = np.array([np.inf, np.inf, 1.0]), np.array([np.inf, 1.0, 0.5])
    np.testing.assert_array_equal(paired.minus(ours, theirs), [np.nan, np.inf, 0.5])
