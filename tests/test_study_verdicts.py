"""What the studies conclude from numbers worked out by hand."""

import numpy as np
import pytest

from mtl_optax.study.outcome import choose
from mtl_optax.study.shares import shares
from mtl_optax.study.verdicts import null, stress, transfer

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
    text = stress.sentence("x", word, accuracy, ("left", "right"), 1000)
    assert text.startswith(f"x {'' if word in ('over-corrects', 'fails') else 'is '}")
    assert word in text


def test_sentence_gives_the_numbers():
    accuracy = np.stack([np.full((2, 2), 96.8), np.tile([77.1, 96.9], (2, 1))])
    text = stress.sentence("mgda", "over-corrects", accuracy, ("left", "right"), 1000)
    assert text == (
        "mgda over-corrects: left falls from 96.8 to 77.1 when its loss is multiplied "
        "by 1000."
    )


def test_shares_without_an_update_are_unknown():
    parts = shares(np.array([[0.0, 0.0], [1.0, 3.0]]), np.ones((2, 2)))
    assert np.isnan(parts[0]).all()
    np.testing.assert_allclose(parts[1], [0.25, 0.75])


def test_null_statement():
    base = np.array([[97.0, 96.0], [96.0, 97.0], [98.0, 95.0]])
    noisy = base + np.array([[0.3, 0.1], [-0.3, -0.1], [0.1, 0.0]])
    better = base + np.array([[0.1, 0.5], [-0.1, 0.6], [0.0, 0.4]])
    tasks = ("left", "right")
    same = null.statement({"unitary": base, "a": noisy}, tasks)
    assert same == (
        "At equal scales no method differs from unitary by more than 2 sd; the largest "
        "mean difference is 0.03 points. Intervals of 95 %, paired over 3 seeds, "
        "exclude 0 in 0 of 2 comparisons; by chance in about 0.1."
    )
    named = null.statement({"a": noisy, "b": better, "unitary": base}, tasks)
    assert "b on right (+0.50 ± 0.10 points); no other does." in named
    assert "0.3 of 4" in named
    assert "exclude 0 in 1 of 4 comparisons; by chance in about 0.2" in named
    for unable in [{"unitary": base}, {"a": base, "b": base}]:
        assert "no statement is possible" in null.statement(unable, tasks)
    one_seed = {"unitary": base[:1], "a": noisy[:1]}
    assert "no statement is possible" in null.statement(one_seed, tasks)


def test_chance_of_a_false_alarm():
    # Student's t of 1 degree of freedom beyond 2 sqrt(2): the Cauchy distribution.
    assert null.chance(2) == pytest.approx(2 / np.pi * np.arcsin(1 / 3), rel=1e-5)
    assert 1 / null.chance(5) == pytest.approx(90, abs=1)


LOST = np.array([[90.0, 80.0], [91.0, 80.0], [92.0, 80.0]])
ALONE = np.array([[90.0, 88.0], [91.0, 89.0], [92.0, 90.0]])


def test_transfer_names_what_is_lost_and_who_repairs_it():
    tasks = ("left", "parity")
    assert transfer.verdict(LOST - ALONE) == "negative transfer"
    assert transfer.verdict(ALONE - ALONE) == "no loss"
    text = transfer.sentence("a", "negative transfer", LOST, ALONE, tasks)
    # t of 2 degrees of freedom is 4.303; 4.303 / sqrt(3) = 2.48
    assert "left +0.00 [+0.00, +0.00], parity -9.00 [-11.5, -6.5] points" in text
    assert "Δp -5.05 [-6.31, -3.80] % (higher is better)" in text  # half of -9 / 89
    nobody = transfer.statement({"unitary": LOST, "a": LOST}, ALONE, tasks)
    assert "parity -9.00 [-11.5, -6.5] points" in nobody
    assert nobody.endswith("None of a removes it.")
    cured = transfer.statement({"unitary": LOST, "a": ALONE}, ALONE, tasks)
    assert cured.endswith("No task loses with a.")
    none = transfer.statement({"unitary": ALONE}, ALONE, tasks)
    assert none.startswith("No negative transfer")
    unable = transfer.statement({"unitary": ALONE}, None, tasks)
    assert unable.startswith("No statement is possible")


def test_null_verdict_is_about_paired_differences():
    assert null.verdict(np.array([[0.3], [-0.3], [0.1]])) == "no difference"
    assert null.verdict(np.array([[0.3], [0.3], [0.31]])) == "differs"
    assert null.verdict(np.array([[9.0]])) == "unknown"


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
