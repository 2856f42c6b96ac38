"""The study of priority: its networks, its rules, and its command."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.studies.priority import cso, cso_problem, nmt
from benchmarks.studies.priority.cso_problem import LAYERS, ChannelCNN
from mtl_optax.study.command import cli
from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.engine.study import MethodResult

NOTHING = MethodResult(*(None,) * len(MethodResult._fields))


@pytest.fixture(scope="module")
def problem():
    return cso_problem.problem(num_tasks=2)


@pytest.fixture(scope="module")
def start(problem):
    return problem.init(0)


def test_convolutions_are_shared_and_normalisations_are_not(problem, start):
    owner = problem.owner(start[0])
    found = {
        jax.tree_util.keystr(path): task
        for path, task in jax.tree_util.tree_leaves_with_path(
            owner, is_leaf=lambda x: x is None
        )
    }
    assert len(found) == 2 * 2 + 2 * 2 * 2 + 2 * 2
    for name, task in found.items():
        if "norms" in name:
            assert f"['norms'][{task}]" in name
        elif "heads" in name:
            assert problem.tasks[task] in name
        else:
            assert task is None


def test_every_task_is_asked_its_own_question():
    """Heads come back from nnx in the order of their names; labels do not."""
    again = nnx.merge(*nnx.split(ChannelCNN(TASKS, rngs=nnx.Rngs(0))))
    counts = [x.shape[-1] for x in again(jnp.ones((8, 144)))]
    assert counts == list(TASKS.values()) == [10, 10, 2, 2]


@pytest.fixture(scope="module")
def batch(problem):
    return jax.tree.map(lambda x: x[:64], problem.splits["train"])


@pytest.fixture(scope="module")
def after(problem, start, batch):
    """Of parameters: the state as the losses leave it, and the strengths with it."""

    @jax.jit
    def after(params):
        _, state = problem.losses(params, start[1], batch, None)
        return state, problem.strength_fn(params, state)

    return after


def test_kernels_have_the_strengths_and_nothing_else_has(start, after):
    found = jax.tree.leaves(after(start[0])[1])
    assert [x.shape for x in found] == [(2, 16)] * len(LAYERS)
    for strength in found:  # at the start tasks are alike
        np.testing.assert_allclose(strength.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(strength[0], strength[1])

    def more(path, leaf):
        mine = jax.tree_util.keystr(path).startswith("['first_norm']['norms'][1]")
        return leaf.at[0].multiply(2) if mine else leaf

    more_of_the_first_channel = jax.tree_util.tree_map_with_path(more, start[0])
    first, _ = jax.tree.leaves(after(more_of_the_first_channel)[1])
    assert first[1, 0] > 2 * first[0, 0]


def test_losses_leave_the_variances_of_the_batch(start, batch, after):
    params, before = start
    state, _ = after(params)
    assert jax.tree.structure(state) == jax.tree.structure(before)
    canvas = np.pad(batch.images.reshape(-1, 12, 12), ((0, 0), (1, 1), (1, 1)))
    patches = [canvas[:, i : i + 12, j : j + 12] for i in range(3) for j in range(3)]
    layer = params["first"]["linear"]
    kernel, bias = (np.asarray(layer[x].get_value()) for x in ("kernel", "bias"))
    variances = (np.stack(patches, axis=-1) @ kernel + bias).var(axis=(0, 1, 2))

    def running(state, task):
        return state["first_norm"]["norms"][task]["var"].get_value()

    for task in range(2):
        np.testing.assert_allclose(running(state, task), variances, rtol=1e-4)
        # What was handed over is as it was.
        np.testing.assert_array_equal(running(before, task), 1)


def test_a_batch_of_another_kind_does_not_change_what_is_evaluated(problem, start):
    """The statistics are those of training images, not of the split or the state."""
    params, state = start
    test = jax.tree.map(lambda x: x[:200], problem.splits["test"])
    part = jax.tree.map(lambda x: x[:100], test)
    other = jax.tree.map(lambda x: x + 1, state)
    evaluate = jax.jit(problem.evaluate)
    whole = evaluate(params, state, test, None)["accuracy"]
    np.testing.assert_array_equal(
        evaluate(params, other, test, None)["accuracy"], whole
    )
    rest = jax.tree.map(lambda x: x[100:], test)
    halves = [evaluate(params, state, x, None)["accuracy"] for x in (part, rest)]
    np.testing.assert_allclose(whole, np.mean(halves, axis=0), rtol=1e-5)


def test_channels_belong_to_the_largest_strength():
    path = np.zeros((3, 1, 2, 1, 2, 4))  # records, scales, seeds, layers, tasks, C
    path[-1, 0, :, 0, 1, 2] = 1
    path[-1, 0, 1, 0, 0, 3] = 1
    first = cso.first_tasks(NOTHING._replace(path=path))
    np.testing.assert_array_equal(first[:, 0], [[0, 0, 1, 0], [0, 0, 1, 0]])


def result(accuracy, chosen=0, loss=None, targets=None):
    """Of accuracies `[candidates, seeds, T]`."""
    values = {"test": {"accuracy": np.array(accuracy, float)[:, None]}}
    if loss is not None:
        values["all training images"] = {"loss": np.array(loss, float)[None, None]}
    readings = {} if targets is None else {"targets": np.array(targets)[None, None]}
    return NOTHING._replace(
        metrics=values, chosen=np.array([chosen]), readings=readings
    )


def test_the_verdict_compares_the_chosen_ones():
    tasks = ("left", "right", "parity", "greater")
    losses = [[0.3, 0.5, 1, 1], [0.1, 0.5, 1, 1]]
    ours = result(
        [[[90, 92, 60, 70], [94, 92, 60, 70]]],
        loss=losses,
        targets=[[0.1, 0.5, 0, 0], [0.1, 0.4, 0, 0]],
    )
    fixed = result([[[0] * 4] * 2, [[96, 96, 50, 50], [96, 98, 50, 50]]], chosen=1)
    found = nmt.judge({"nmt": ours, "weighted": fixed}, tasks)
    assert "nmt: digits 92.00 %, parity and greater 65.00 %" in found.sentences["nmt"]
    assert "left +10.00" in found.sentences["nmt"]
    assert "right +5.00" in found.sentences["nmt"]
    assert "digits -4.50" in found.statement
    assert "parity and greater +15.00" in found.statement
    assert "INFERRED" in found.statement
    alone = nmt.judge({"nmt": ours}, tasks)
    assert alone.statement == "No statement without nmt and weighted."


def test_digits_choose_the_weight():
    assert nmt.problem().chosen_by == nmt.FIRST
    weights = nmt.PART.settings.candidates("weighted")
    assert [c.settings["later"] for c in weights] == list(nmt.WEIGHTS)
    assert len(weights) == 7


def test_parts_keep_their_methods(capsys):
    assert cli.main(["study", "priority", "--methods", "unitary"]) == 2
    assert "of their own" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run(tmp_path, capsys):
    out = tmp_path / "priority"
    assert cli.main(["study", "priority", "--quick", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for text in ("Both phases together", "Gates learned", "INFERRED"):
        assert text in shown
        assert text in (out / "report.html").read_text()
    for part in ("cso", "gates", "nmt"):
        assert (out / part / "config.json").exists()
    assert (out / "cso" / "channels.png").stat().st_size > 1000
    assert jnp.isfinite(float(shown.split("mean accuracy by ")[1].split()[0]))
