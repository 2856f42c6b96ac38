"""The study of task groups: its truth, its network, its rules, and its command."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from benchmarks.studies.groups import blocks, halves, study
from benchmarks.studies.groups import rule as groups
from benchmarks.studies.groups.networks import serving
from mtl_optax.study.command import cli
from mtl_optax.study.data import networks
from mtl_optax.study.engine import run
from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.report import files

BLOCKS = ((0, 1, 2), (3, 4, 5))


# --- Problem --------------------------------------------------------------------------


def test_labels_are_questions_about_one_digit_each():
    digits = np.array([[3, 8], [6, 5], [0, 1]])
    left = [[3, 1, 0], [6, 0, 1], [0, 0, 0]]
    right = [[8, 0, 1], [5, 1, 1], [1, 1, 0]]
    six = np.concatenate([left, right], axis=1)
    np.testing.assert_array_equal(blocks.labels(digits, 6), six)
    np.testing.assert_array_equal(blocks.labels(digits, 4), six[:, [0, 1, 3, 4]])
    np.testing.assert_array_equal(blocks.labels(digits, 2), digits)
    assert list(blocks.classes(6).items()) == [
        *(("left", 10), ("left_parity", 2), ("left_high", 2)),
        *(("right", 10), ("right_parity", 2), ("right_high", 2)),
    ]
    assert [blocks.truth(t) for t in (2, 6)] == [((0,), (1,)), BLOCKS]


@pytest.mark.parametrize("network", blocks.NETWORKS)
def test_tasks_share_the_trunk_and_own_their_heads(network):
    problem = blocks.block_digits(4, network)
    params = jax.eval_shape(lambda: problem.init(0)[0])
    owner = jax.tree.leaves(problem.owner(params), is_leaf=lambda x: x is None)
    # Two leaves a layer; nnx sorts the heads by name.
    trunk = 4 if network == "mlp" else 6
    assert sorted(t for t in owner if t is not None) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert owner.count(None) == trunk
    for name, head in zip(problem.tasks, (10, 2, 10, 2), strict=True):
        assert params["heads"][name]["bias"].get_value().shape == (head,)


def test_network_of_patches_is_the_convolutional_one():
    images = jax.random.uniform(jax.random.key(0), (3, 144))
    net = networks.MultiTaskCNN({"a": 10, "b": 2}, rngs=nnx.Rngs(1))
    features = images.reshape(3, 12, 12, 1)
    for conv in (net.first, net.second):
        kernel = conv.linear.kernel.get_value()
        kernel = kernel.reshape(3, 3, -1, networks.CHANNELS)
        features = jax.lax.conv_general_dilated(
            *(features, kernel, (1, 1), "SAME"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        features = nnx.relu(features + conv.linear.bias.get_value()[None, None, None])
        features = nnx.max_pool(features, (2, 2), strides=(2, 2))
    features = nnx.relu(net.dense(features.reshape(3, -1)))
    for task, answers in net(images).items():
        np.testing.assert_allclose(answers, net.heads[task](features), atol=1e-5)


# --- Rules ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (BLOCKS, True),
        (((5, 4, 3), (0, 2, 1)), True),
        (((0, 1, 2), (2, 3, 4, 5)), False),  # a task too many
        (((0, 1), (2,), (3, 4, 5)), False),
        ((tuple(range(6)),), False),
    ],
)
def test_recovered_means_the_blocks_exactly(found, expected):
    assert groups.recovered(found, BLOCKS) is expected


def test_labels_become_groups_and_shares_of_the_second_half():
    assert groups.partition(np.array([0, 1, 0, 3])) == ((0, 2), (1,), (3,))
    right, wrong = [0, 0, 2, 2], [0, 0, 2, 3]
    labels = np.array([wrong, wrong, right, wrong])[:, None]  # [records, seeds, T]
    assert groups.fraction_recovered(labels, ((0, 1), (2, 3))) == 0.5
    assert groups.ever_merged(labels)
    assert not groups.ever_merged(np.array([[0, 1], [0, 1]]))


def test_two_tasks_merge_up_to_their_similarity():
    affinity = np.array([[[1, 0.25], [0.25, 1]], [[2, 0.9], [0.45, 1]]], np.float32)
    # Their similarities are 0.25 and (0.9 / 1 + 0.45 / 2) / 2 = 0.5625.
    assert groups.merging_preference(affinity) == 0.2
    assert groups.merging_preference(affinity[1:]) == 0.5
    assert groups.merging_preference(affinity - 5) is None


def test_tag_chooses_the_blocks_of_a_block_matrix():
    affinity = np.full((6, 6), 0.01)
    affinity[:3, :3] = affinity[3:, 3:] = 0.2
    assert groups.tag_groups(affinity[None]) == [BLOCKS]
    assert groups.in_seeds([BLOCKS, (BLOCKS[0],)], BLOCKS) == "1 of 2"


def result(score, **readings):
    """Of accuracies `[seeds, T]`, and of readings `[records, seeds, ...]`."""
    nothing = MethodResult(*(None,) * len(MethodResult._fields))
    nothing = nothing._replace(metric=Metric("accuracy", "%"))
    own = {name: np.asarray(x)[:, None] for name, x in readings.items()}
    score = np.array(score, float)[None]
    metric = Metric("accuracy", "%")
    return nothing._replace(metric=metric, score=score, readings=own)


def test_the_verdict_of_two_tasks_that_the_median_keeps_apart():
    affinity = np.array([[1, 0.25], [0.25, 1]], np.float32)[None, None]
    readings = {"affinity": np.repeat(affinity, 2, axis=1)}
    apart, once = [[[0, 1]] * 2] * 2, [[[0, 0], [0, 1]], [[0, 1]] * 2]
    found = groups.judge(
        {
            "joint": result([[90, 90], [91, 91]], **readings),
            "selective_groups": result([[94, 90]] * 2, groups=apart, **readings),
            "selective_preference": result([[94, 94]] * 2, groups=once, **readings),
            "single_task": result([[90, 90]] * 2),
            "grouped": result([[92, 80], [93, 81]]),
        },
        ("left", "right"),
    )
    assert found.verdicts == {
        "joint": "baseline",
        "selective_groups": "blocks in 2 of 2",
        "selective_preference": "blocks in 2 of 2",
        "single_task": "reference",
        "grouped": "better and worse",
    }
    assert "right -10.00 [-10.0, -10.0] points from joint" in found.sentences["grouped"]
    assert "TAG has no choice" in found.statement
    assert "selective_groups recovers the blocks in 2 of 2 seeds" in found.statement
    assert "any two tasks here: with two tasks the median is (1 +" in found.statement
    assert "selective_preference does in some seed." in found.statement
    assert "a preference of 0.2 or less merges tasks in every seed." in found.statement


def test_a_task_of_two_groups_is_served_by_the_better_one():
    affinity = np.array([[0, 0.1, 0.2], [0.8, 0, 0.3], [0.1, 0.4, 0]])
    found = serving(affinity[None], [((0, 1), (1, 2))])
    assert found == [[(0, (0, 1)), (0, (1, 2)), (0, (1, 2))]]


# --- The joint step against steps of halves -------------------------------------------


def test_decrease_on_a_quadratic():
    """Two tasks, a shared scalar and a head each; all steps worked out by hand."""
    rate = 0.1

    def quadratics(params):
        x, heads = params["x"], params["heads"]
        first = 1 + (x - 1) ** 2 + (heads["a"] - 1) ** 2
        return first, 1 + (x + 1) ** 2 + (heads["b"] - 1) ** 2

    params = {"x": jnp.array(0.5), "heads": {"a": jnp.array(0.0), "b": jnp.array(0.0)}}
    owner = {"x": None, "heads": {"a": 0, "b": 1}}
    tx = halves.joint_against_halves(2, optax.sgd(rate), lambda params: owner)
    new, state = tx.update(None, tx.init(params), params, losses_fn=quadratics)
    x, head = 0.5, 0.0

    def loss(x, head, centre):
        return 1 + (x - centre) ** 2 + (head - 1) ** 2

    moved = head + 2 * rate
    together = x - rate * 4 * x
    assert new["x"] == pytest.approx(together - x)
    assert new["heads"]["b"] == pytest.approx(moved)
    expected = np.zeros((3, 2))
    for task, centre in enumerate((1, -1)):
        before = np.log(loss(x, head, centre))
        expected[0, task] = before - np.log(loss(together, moved, centre))
        first = x - rate * 2 * (x - centre)  # its own step before the other's
        last = first - rate * 2 * (first + centre)
        own_first = before - np.log(loss(first, moved, centre))
        whole_first = before - np.log(loss(last, moved, centre))
        other = x - rate * 2 * (x + centre)  # the other's before its own
        between = np.log(loss(other, head, centre))
        end = np.log(loss(other - rate * 2 * (other - centre), moved, centre))
        expected[1, task] = (own_first + between - end) / 2
        expected[2, task] = (whole_first + before - end) / 2
    np.testing.assert_allclose(state.decrease[0], expected, atol=1e-6)
    assert state.decrease.shape == (2, 3, 2)


# --- Networks of their own ------------------------------------------------------------


@pytest.mark.slow
def test_networks_have_the_rate_that_joint_chose():
    """Of two rates, one of which learns nothing; each network is a candidate of one."""
    part = study.part(4, "mlp")
    rates = 1e-9, 3e-3
    settings = part.quick._replace(methods=("joint",), steps=6, learning_rates=rates)
    result = run.run(part, settings)
    assert list(result.methods) == ["joint", "grouped", "blocks"]
    assert result.chosen("joint")[0].learning_rate == 3e-3
    for name in ("grouped", "blocks"):
        own = result.methods[name]
        assert own.score.shape == (1, 2, 4)
        assert np.isnan(own.shares).all()
        assert [x.learning_rate for x in own.candidates] == [3e-3]
    table = files.metrics(result)
    own = table[table["method"] == "blocks"]
    assert set(own["learning_rate"]) == {"0.003"}
    assert list(own["chosen"]) == [1] * 2 * 2 * 4  # splits, seeds, tasks
    assert files.config(result, "", 0)["chosen_rates"]["grouped"] == [3e-3]


# --- Command line ---------------------------------------------------------------------


@pytest.mark.slow
def test_quick_study_of_groups(tmp_path, capsys):
    command = ["study", "groups", "--quick", "--steps", "20", "--out", str(tmp_path)]
    assert cli.main([*command, "--no-cache"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "TAG recovers the blocks in" in out
    assert "selective_preference recovers the blocks in" in out
    assert "What one batch does for each loss" in out
    part = tmp_path / "mlp_4"
    pictures = {path.stem for path in part.glob("*.png")}
    assert pictures >= {"affinity", "groups_over_time", "accuracy", "decrease"}
    with open(part / "metrics.csv", newline="") as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    assert methods >= {"joint", "single_task", "grouped", "blocks"}
    assert not list(tmp_path.glob("*.png"))  # those of its parts lie with them
    words = json.loads((tmp_path / "config.json").read_text())["words"]
    assert words[0].startswith("mlp_4: TAG recovers the blocks in")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'href="mlp_4/report.html"' in page
    assert page.count("<img") == len(pictures)
    for folder in (tmp_path, part):
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert "smoke run" in page
        assert "The blocks are recovered if" in page
