"""Verdicts on claims, and the page of all of them."""

import pytest

from mtl_optax.study.report import claims
from mtl_optax.study.report.claims import HOLDS, NOT_HERE, OPEN, Measured

CLAIM = claims.Claim(1, "A title", "Somebody, 2021", "It is so.", "abstract", "toy")


def measured(claimed, low, high, bound=0.0):
    return Measured("this", (low + high) / 2, low, high, claimed, bound, "%", 5)


@pytest.mark.parametrize(
    ("claimed", "low", "high", "word"),
    [
        ("above", 0.1, 0.5, HOLDS),
        ("above", -0.1, 0.5, OPEN),
        ("above", -0.5, -0.1, NOT_HERE),
        ("above", 0.0, 0.0, NOT_HERE),  # exact, and not above
        ("below", -0.5, -0.1, HOLDS),
        ("below", -0.5, 0.1, OPEN),
        ("below", 0.1, 0.5, NOT_HERE),
        ("not above", -0.5, 0.1, HOLDS),
        ("not above", 0.1, 0.5, NOT_HERE),
        ("not below", -0.1, 0.5, HOLDS),
        ("not below", -0.5, -0.1, NOT_HERE),
        ("above", float("nan"), 0.5, OPEN),
        ("above", 0.1, float("inf"), OPEN),
    ],
)
def test_the_word_of_an_interval(claimed, low, high, word):
    assert measured(claimed, low, high).verdict == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.9, 1.0, HOLDS), (-1.1, 1.0, OPEN), (0.5, 1.5, OPEN), (1.1, 2.0, NOT_HERE)],
)
def test_within_a_margin(low, high, word):
    assert measured("within", low, high, bound=1.0).verdict == word


def test_a_claim_of_several_measurements():
    holds, open_, not_here = (
        measured("above", *ends) for ends in ((1, 2), (-1, 2), (-2, -1))
    )
    assert claims.verdict([holds, holds]) == HOLDS
    assert claims.verdict([holds, open_]) == OPEN
    assert claims.verdict([holds, open_, not_here]) == NOT_HERE
    assert claims.verdict([]) == OPEN


def test_one_run_has_no_interval_and_several_have():
    several = claims.of_runs("this", [1.0, 2.0, 3.0], "above")
    assert (several.estimate, several.runs) == (2.0, 3)
    assert several.low == pytest.approx(2 - 4.302652729911275 / 3**0.5)  # t, 2 degrees
    alone = claims.of_runs("this", [1.0], "above")
    assert alone.verdict == OPEN
    diverged = claims.of_runs("this", [1.0, float("nan"), 3.0], "above")
    assert diverged.verdict == OPEN


def test_a_claim_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="this: claimed must be"):
        _ = measured("better", 0, 1).verdict


def test_the_file_of_a_claim():
    (table,) = claims.files(CLAIM, [measured("above", 1e-13, 3e-13)]).values()
    (row,) = table.to_dict("records")
    assert (row["low"], row["verdict"], row["number"]) == ("1e-13", HOLDS, 1)
    shown = claims.shown(CLAIM, [measured("above", 1, 2)])
    assert shown.title == "A title: holds"
    assert shown.rows == [["this", "1.50 [1.00, 2.00] %", "above 0 %", "5", HOLDS]]
