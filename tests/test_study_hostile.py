"""Reports of hostile results: names, scales, numbers that are none, narrow screens."""

import csv
import io
import json
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from study_folder import References, write
from tiny_study import SETTINGS, part, problem

from mtl_optax.study.engine.run import run
from mtl_optax.study.report import files, html, joined, one, summaries, terminal
from mtl_optax.study.report.document import Document, Figure, Table
from mtl_optax.study.report.figures import curves
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.losses import losses

TASKS = ('[bold]a, "x"', "<b>é</b>")
SCALES = (1, 10, 100)


@pytest.fixture(scope="module")
def result():
    return run(part(partial(problem, TASKS), scales=SCALES), SETTINGS)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile")
    write(path, result)
    return path


def shown(document, width):
    file = io.StringIO()
    terminal.show(Console(file=file, width=width), document)
    return file.getvalue()


def test_names_are_shown_as_they_are(result, folder):
    page = (folder / "report.html").read_text("utf-8")
    assert "<b>" not in page
    assert "<th>&lt;b&gt;é&lt;/b&gt; ×100</th>" in page
    assert "By &lt;i&gt;nobody &amp; co&lt;/i&gt;." in page
    assert all(x.startswith("data:image/png;base64,") for x in References(page).found)
    text = shown(one.document(result, {}), 300)
    assert "Tiny [red]study[/red]" in text
    for task in TASKS:
        assert all(f"{task} ×{scale}" in text for scale in SCALES)
    for name in ("metrics.csv", "summary.csv"):
        with open(folder / name, newline="", encoding="utf-8") as file:
            assert {row["task"] for row in csv.DictReader(file)} == set(TASKS)


def test_hostile_names_are_joined(folder):
    page = html.page(joined.join([joined.read(folder)]))
    assert "<b>" not in page
    assert "<th>&lt;b&gt;é&lt;/b&gt; ×100</th>" in page


def test_configurations_are_strict_json(folder):
    text = (folder / "config.json").read_text("utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["tasks"] == list(TASKS)
    odd = {"x": np.float32(0.5), "y": [np.nan, np.arange(2)], "z": {"é": np.inf}}
    assert json.loads(files.as_json(odd), parse_constant=pytest.fail) == {
        "x": 0.5,
        "y": [None, [0, 1]],
        "z": {"é": None},
    }


def test_a_marker_for_each_scale(result):
    figure = accuracy(result).figure
    (legend,) = figure.legends
    assert [x.get_text() for x in legend.get_texts()] == [
        f"loss scale ×{scale}" for scale in SCALES
    ]
    faces = [x.get_markerfacecolor() for x in legend.get_lines()]
    np.testing.assert_allclose(faces, [[1] * 3, [0.5] * 3, [0] * 3])


def test_no_curve_of_many_tasks_is_left_out(result):
    """In panels of one method each, where there are more tasks than usual lines."""
    own = [np.full(4, float(t)) for t in range(12)]
    names = [f"task {t}" for t in range(12)]
    both = {"unitary": own, "mean": own}
    figure, axes = curves.panel_a_method(result, both, names, "tasks")
    assert len(axes[1].lines) == 2 * 12  # the baseline behind
    (legend,) = figure.legends
    assert [x.get_text() for x in legend.get_texts()] == names


def with_scores(result, what):
    """The same, with this in place of one method's numbers at the second seed."""
    own = result.methods["mean"]
    score, losses = own.score.copy(), own.losses.copy()
    score[:, 1], losses[:, :, 1] = what, what
    metrics = {"end": {"loss": own.metrics["end"]["loss"].copy()}}
    metrics["end"]["loss"][:, :, 1] = what
    own = own._replace(score=score, losses=losses, metrics=metrics)
    return result._replace(methods={**result.methods, "mean": own})


@pytest.mark.parametrize("what", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
def test_numbers_that_are_none(result, what, tmp_path):
    diverged = with_scores(result, what)
    document = one.document(diverged, {})
    files.write(tmp_path, document)
    rows = pd.read_csv(tmp_path / "metrics.csv", dtype=str, keep_default_na=False)
    number = rows["loss"].str.fullmatch(r"\d+\.\d{4}")
    assert set(rows["loss"][~number]) == {f"{what}"}
    assert (~number).sum() == len(SCALES) * len(TASKS)
    means = summaries.summary([diverged]).set_index("method")
    assert means.loc["mean", ["t_low", "t_high"]].isna().all(axis=None)
    assert np.isfinite(means.loc["unitary", "mean"]).all()
    (table, *_) = (x for x in document.body if isinstance(x, Table))
    assert not table.is_text(1)  # numbers, that stand right
    assert {x.name for x in document.body if isinstance(x, Figure)} == {
        *("accuracy", "differences", "shares", "losses")
    }


def test_losses_below_zero_have_no_logarithm(result):
    own = result.methods["mean"]
    below = own._replace(losses=-own.losses)
    for methods, scale in (result.methods, "log"), ({"mean": below}, "linear"):
        axes = losses(result._replace(methods=methods)).figure.axes
        assert {ax.get_yscale() for ax in axes} == {scale}


def test_one_seed_has_no_spread(result):
    one_seed = {
        name: own._replace(
            score=own.score[:, :1],
            losses=own.losses[:, :, :1],
            shares=own.shares[:, :, :1],
            metrics={"end": {"loss": own.metrics["end"]["loss"][:, :, :1]}},
        )
        for name, own in result.methods.items()
    }
    judgement = result.part.judge(one_seed, TASKS)
    settings = SETTINGS._replace(seeds=1)
    alone = result._replace(methods=one_seed, settings=settings, judgement=judgement)
    document = one.document(alone, {})
    for text in (shown(document, 200), html.page(document)):
        words = re.sub('base64,[^"]*', "", text)
        assert not re.search(r"\bnan\b", words, re.IGNORECASE)
        assert "±" not in words.replace("Mean ± sd", "").replace("± 1 sd", "")
    assert {"accuracy", "shares", "losses"} == {
        x.name for x in document.body if isinstance(x, Figure)
    }


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_cell_is_cut(width):
    rows = [
        [f"hard_sharing_of_a_long_name_{x}", "1.00 ± 0.10", "not told apart", "abc" * 9]
        for x in "45"
    ]
    head = ["architecture", "first_task", "verdict", "[x]"]
    text = shown(Document("T", "", [], [Table("Title", "", head, rows)]), width)
    assert "\x1b" not in text
    assert all(len(line) <= width for line in text.splitlines())
    letters = "".join(text.split())
    for name in (*head[1:], *(row[0] for row in rows)):
        # Cells that are folded stand in their column: letter by letter at least.
        assert name in letters or all(letters.count(x) >= name.count(x) for x in name)
    assert letters.count("abc") >= 2
    assert "…" not in text
