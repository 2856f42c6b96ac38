"""Losses and metrics of each kind of task, by hand; missing labels count nowhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtl_optax.data.dataset import KINDS, Task
from mtl_optax.training import kinds

NAN = float("nan")
# A task, outputs, targets, the loss by hand, and metrics by hand
LOG2 = np.log(2)
CASES = {
    "class": (
        Task("t", "class", 3),
        [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [1.0, 2.0, 3.0]],
        np.int32([1, 0, -1]),
        (np.log(3) + np.log(1 + 2 * np.exp(-9))) / 2,
        {"accuracy": 0.5},
    ),
    "binary": (
        Task("t", "binary", 2, metric="auc"),
        [[0.0], [np.log(3.0)], [-np.log(3.0)], [5.0]],
        np.int32([1, 1, 0, -1]),
        (LOG2 + 2 * np.log(4 / 3)) / 3,
        {"auc": 1.0, "f1": 2 / 3, "accuracy": 2 / 3},
    ),
    "ordinal": (
        Task("t", "ordinal", 3),
        [[1.0, -1.0], [5.0, 5.0], [0.0, 0.0]],
        np.int32([1, 0, -1]),
        (np.log(1 + np.exp(-1)) + np.log(1 + np.exp(5))) / 2,
        {"accuracy": 0.5, "MAE": 1.0},
    ),
    "squared": (
        Task("t", "regression", mean=7.0, sd=10.0),
        [[1.0], [3.0], [0.0]],
        np.float32([0.0, 1.0, NAN]),
        2.5,
        {"MAE": 15.0, "RMSE": 10 * np.sqrt(2.5)},
    ),
    "absolute": (
        Task("t", "regression", loss="absolute"),
        [[1.0], [3.0], [0.0]],
        np.float32([0.0, 1.0, NAN]),
        1.5,
        {"MAE": 1.5, "RMSE": np.sqrt(2.5)},
    ),
    "depth": (
        Task("t", "depth"),
        np.float32([[[[1.0], [5.0]]]]),
        np.float32([[[[2.0], [0.0]]]]),
        1.0,
        {"AbsErr": 1.0, "RelErr": 0.5},
    ),
    "normals": (
        Task("t", "normals", 3),
        np.float32([[[[0, 0, 2], [1, 0, 0]]]]),
        np.float32([[[[0, 1, 0], [0, 0, 0]]]]),
        1.0,
        {"mean angle": 90.0, "<30": 0.0},
    ),
    "segmentation": (
        Task("t", "segmentation", 2),
        np.float32([[[[0, 0], [9, 0]]]]),
        np.int32([[[0, -1]]]),
        LOG2,
        {"mIoU": 1.0, "PixAcc": 1.0},
    ),
}
EACH = pytest.mark.parametrize("name", CASES)


def case(name):
    task, outputs, targets, loss, metrics = CASES[name]
    return task, jnp.asarray(outputs, jnp.float32), jnp.asarray(targets), loss, metrics


def blank(targets, task):
    return jnp.full_like(targets, KINDS[task.kind].missing)


@EACH
def test_loss_and_metrics_by_hand(name):
    task, outputs, targets, loss, metrics = case(name)
    assert float(kinds.loss(task, outputs, targets)) == pytest.approx(loss, abs=2e-3)
    found = kinds.scores(task, kinds.counts(task, outputs, targets, "pixels"), "pixels")
    assert float(found["loss"]) == pytest.approx(loss, abs=2e-3)
    for metric, value in metrics.items():
        assert float(found[metric]) == pytest.approx(value, abs=1e-2), metric
    assert set(found) == {"loss", *kinds.higher_is_better(task)}
    assert set(kinds.in_delta_m(task)) <= set(found)


@EACH
def test_without_a_label_the_loss_is_0_and_so_is_its_gradient(name):
    task, outputs, targets, _, _ = case(name)
    none = blank(targets, task)
    value, slope = jax.value_and_grad(lambda y: kinds.loss(task, y, none))(outputs)
    assert float(value) == 0
    np.testing.assert_array_equal(slope, 0)
    found = kinds.scores(task, kinds.counts(task, outputs, none, "pixels"), "pixels")
    assert all(np.isnan(float(x)) for x in found.values())


@EACH
def test_batches_add_up_and_blank_rows_do_not_count(name):
    task, outputs, targets, _, _ = case(name)
    whole = kinds.counts(task, outputs, targets, "pixels")
    parts = [
        kinds.counts(task, outputs[i : i + 1], targets[i : i + 1], "pixels")
        for i in range(len(targets))
    ]
    parts.append(kinds.counts(task, outputs, blank(targets, task), "pixels"))
    added = jax.tree.map(lambda *x: sum(x), *parts)
    for one, other in zip(*map(jax.tree.leaves, (added, whole)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@EACH
def test_eight_devices_count_as_one(name):
    task, outputs, targets, _, _ = case(name)
    outputs, targets = (jnp.concatenate([x] * 8) for x in (outputs, targets))
    rows = NamedSharding(
        Mesh(np.asarray(jax.devices()), ("rows",)), PartitionSpec("rows")
    )
    count = jax.jit(lambda y, z: kinds.counts(task, y, z, "pixels"))
    shared = count(*(jax.device_put(x, rows) for x in (outputs, targets)))
    for one, other in zip(
        *map(jax.tree.leaves, (shared, count(outputs, targets))), strict=True
    ):
        if jnp.issubdtype(other.dtype, jnp.integer):
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_outputs_of_another_shape_are_refused():
    task = Task("price", "regression")
    with pytest.raises(ValueError, match=r"price: outputs must have shape \(3, 1\)"):
        kinds.loss(task, jnp.zeros((3, 2)), jnp.zeros(3))


SPACE = (Task("click", "binary", 2), Task("buy", "binary", 2, given="click"))


def test_the_entire_space_is_the_product_of_probabilities():
    click, buy = (jnp.linspace(-30.0, 30.0, 9)[:, None] * s for s in (1.0, -0.3))
    found = kinds.entire_space(SPACE, {"click": click, "buy": buy})
    wanted = jax.nn.sigmoid(np.float64(click)) * jax.nn.sigmoid(np.float64(buy))
    np.testing.assert_allclose(jax.nn.sigmoid(found["buy"]), wanted, rtol=1e-3)
    np.testing.assert_array_equal(found["click"], click)


@pytest.mark.parametrize("size", [0.0, 20.0, 80.0])
def test_its_gradient_is_finite_where_probabilities_are_0_or_1(size):
    def loss(logits):
        found = kinds.entire_space(SPACE, {"click": logits, "buy": logits})
        return kinds.loss(SPACE[1], found["buy"], jnp.int32([0, 1]))

    slope = jax.grad(loss)(jnp.array([[size], [-size]]))
    assert np.isfinite(slope).all()
    assert np.abs(slope).sum() > 0


def test_both_learn_from_a_conversion():
    """The loss of the product moves the click's logit, too."""

    def loss(click):
        found = kinds.entire_space(SPACE, {"click": click, "buy": jnp.zeros((1, 1))})
        return kinds.loss(SPACE[1], found["buy"], jnp.int32([1]))

    # log p = log s(a) + log s(b), whose slope in a is 1 - s(a).
    assert float(jax.grad(loss)(jnp.zeros((1, 1)))[0, 0]) == pytest.approx(-0.5)
