"""Verdicts on claims, and the page of all of them."""

import pandas as pd
import pytest

from benchmarks import claims as page
from benchmarks import report
from mtl_optax.study import studies
from mtl_optax.study.report import claims
from mtl_optax.study.report.claims import HOLDS, NOT_HERE, OPEN, Measured
from mtl_optax.study.studies.stress import claim as stress

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
    assert claims.number(claims.exactly("this", 3, "above", 2, "of 8")) == "3 of 8"


def test_the_page_is_what_the_files_say():
    text = page.PAGE.read_text("utf-8")
    made = text.partition(page.BEGIN)[2].partition(report.END)[0]
    assert made.strip() == page.made(page.RESULTS).strip(), (
        "python -m benchmarks.claims"
    )


def test_every_claim_has_a_study_and_a_page_of_results():
    found = page.read(page.RESULTS)
    assert {own.claim.number for own in found} == set(range(1, 13))
    assert len({own.heading for own in found}) == len(found)
    for own in found:
        assert own.claim.study in studies.STUDIES
        assert (own.folder / "README.md").exists()
        assert all(own.claim)


def test_a_verdict_that_is_no_longer_the_rule_s_is_found(tmp_path):
    (table,) = claims.files(CLAIM, [measured("above", 1, 2)]).values()
    table.assign(verdict=OPEN).to_csv(tmp_path / claims.FILE, index=False)
    with pytest.raises(ValueError, match="run the study again"):
        page.read(tmp_path)
    table.to_csv(tmp_path / claims.FILE, index=False)
    (found,) = page.read(tmp_path)
    assert found == (tmp_path, CLAIM, [measured("above", 1, 2)])
    assert "## 1. A title: holds" in page.made(tmp_path)
    assert "(#1-a-title-holds)" in page.made(tmp_path)


def test_stress_compares_the_worse_task_at_two_scales():
    rows = [
        ("imtl_g", 1, "left", 97.0, 0.5),
        ("imtl_g", 1000, "left", 96.0, 0.5),
        ("imtl_g", 1, "right", 96.0, 0.5),
        ("imtl_g", 1000, "right", 96.5, 0.5),
    ]
    names = ["method", "scale", "task", "mean", "sd"]
    means = pd.DataFrame(rows, columns=names).assign(seeds=5)
    (own,) = stress.measured(means)
    half = 2.306004135204166 * 0.1**0.5  # t of 8 degrees; sd² / 5 twice
    assert own.estimate == pytest.approx(-1)
    assert (own.low, own.high) == pytest.approx((-1 - half, -1 + half))
    assert own.verdict == HOLDS  # within 2 points
    assert {"imtl_g", "nash_mtl", "scale_invariant"} <= set(stress.promised())
    assert "unitary" not in stress.promised()
