"""Plots return axes that hold the numbers given, and say what is wrong with others."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from mtl_optax.analysis import palette, plots
from mtl_optax.study.report.styles import FIRST

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def test_the_matrix_shows_each_pair_and_leaves_nan_blank():
    cosines = np.array([[1, -0.25, np.nan], [-0.25, 1, 0.5], [np.nan, 0.5, 1]])
    ax = plots.conflict_matrix(cosines, ["a", "b", "c"])
    shown = {text.get_position(): text.get_text() for text in ax.texts}
    assert shown[1, 0] == shown[0, 1] == "-0.25"
    assert (2, 0) not in shown
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b", "c"]
    (image,) = ax.images
    assert image.get_clim() == (-1, 1)  # so that white is orthogonal


def test_the_band_pools_pairs_of_a_window():
    random = np.random.default_rng(0).uniform(-1, 1, (7, 3, 3))
    cosines = random + random.transpose(0, 2, 1)
    ax = plots.conflict_band(
        cosines, steps=10 * np.arange(7), window=3, percentiles=(0, 100)
    )
    mean = ax.lines[0]
    np.testing.assert_array_equal(mean.get_xdata(), [20, 50])  # the seventh is left
    pairs = cosines[:, [0, 0, 1], [1, 2, 2]]
    wanted = [pairs[:3].mean(), pairs[3:6].mean()]
    np.testing.assert_allclose(mean.get_ydata(), wanted)
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(heights.max(), pairs[:6].max())


def test_the_front_fills_what_no_other_dominates():
    losses = np.array([[1.0, 3.0], [2.0, 1.0], [2.5, 2.0], [np.nan, 0.0]])
    ax = plots.pareto_front(losses, ["a", "b"], label="ours")
    front, others = ax.collections
    np.testing.assert_array_equal(front.get_offsets(), losses[:2])
    np.testing.assert_array_equal(others.get_offsets()[0], losses[2])
    assert len(others.get_facecolors()) == 0
    beside = plots.pareto_front(losses - 1, label="theirs", color="k", ax=ax)
    assert beside is ax
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["ours", "theirs"]


def test_three_losses_are_drawn_in_space():
    losses = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 2.0], [3.0, 3.0, 3.0]])
    ax = plots.pareto_front(losses)
    assert ax.name == "3d"
    assert ax.get_zlabel() == "loss of task 2"
    with pytest.raises(ValueError, match="projection='3d'"):
        plots.pareto_front(losses, ax=plt.figure().add_subplot())


@pytest.mark.parametrize("plot", [plots.task_weights, plots.losses])
def test_lines_of_many_tasks_all_differ(plot):
    values = 1 + np.arange(24.0).reshape(2, 12)
    ax = plot(values, steps=[5, 9])
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 12
    for line, column in zip(ax.lines, values.T, strict=True):
        np.testing.assert_array_equal(
            line.get_xydata(), [[5, column[0]], [9, column[1]]]
        )


def test_axes_given_are_drawn_on():
    _, ax = plt.subplots()
    assert plots.losses(np.ones((3, 2)), log=False, ax=ax) is ax
    assert ax.get_yscale() == "linear"
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.conflict_matrix(np.ones(3)), r"\[T, T\]; got shape \(3,\)"),
        (lambda: plots.conflict_matrix(np.ones((2, 3))), r"got shape \(2, 3\)"),
        (lambda: plots.conflict_matrix(np.eye(2), "ab"), "each of the 2 tasks"),
        (lambda: plots.conflict_band(np.ones((4, 1, 1))), "no pair"),
        (lambda: plots.conflict_band(np.ones((4, 2, 2)), window=5), "to the 4 records"),
        (lambda: plots.pareto_front(np.ones((5, 4))), "two or three losses; got 4"),
        (lambda: plots.losses(np.ones((5, 2)), steps=[1, 2]), r"\[5\]; got shape"),
        (lambda: plots.task_weights(np.ones((5, 2)), ["a"]), r"got \['a'\]"),
        (lambda: plots.losses(np.ones((0, 2))), r"got shape \(0, 2\)"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"mtl-optax\[study\]"):
        plots.losses(np.ones((3, 2)))


def test_colours_differ_and_studies_use_the_same_ones():
    assert len(set(palette.COLOURS)) == len(palette.COLOURS)
    assert all(colors.is_color_like(colour) for colour in palette.COLOURS)
    assert {style.colour for style in FIRST.values()} >= set(palette.COLOURS)
