"""masked_mean, and every loss and metric over many lanes at once."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import mtl_optax as mtl
from benchmarks.studies.towers.problem import problem as towers_problem
from mtl_optax.analysis import metrics
from mtl_optax.analysis.calibration import calibration_bins, expected_calibration_error
from mtl_optax.analysis.normals import angle_counts, normal_angles
from mtl_optax.nn import depth_loss, normal_loss, segmentation_loss
from mtl_optax.study.data.damaged import Labelled
from mtl_optax.study.engine.problem import Now

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_only_known_values_count(dtype):
    values = jnp.array([1.0, jnp.nan, 3.0, jnp.inf], dtype)
    known = jnp.array([True, False, True, False])
    mean, slope = jax.value_and_grad(mtl.masked_mean)(values, known)
    assert mean.dtype == dtype
    assert mean == 2
    np.testing.assert_array_equal(slope.astype(float), [0.5, 0, 0.5, 0])


def test_nothing_known_is_zero_without_a_slope():
    values = jnp.array([[jnp.nan, 1.0]])
    value, slope = jax.value_and_grad(mtl.masked_mean)(values, jnp.zeros((1, 2), bool))
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    assert mtl.masked_mean(jnp.zeros(0), jnp.zeros(0, bool)) == 0


def test_all_known_is_the_mean_also_of_integers_and_long_halves():
    assert mtl.masked_mean(jnp.array([1, 2, 4, 5]), jnp.ones(4, bool)) == 3
    long = jnp.ones(70_000, jnp.float16)  # more than float16 can count
    assert mtl.masked_mean(long, jnp.ones(long.shape, bool)) == 1
    values = jnp.array([1.0, 2.0, 6.0])
    got = jax.grad(mtl.masked_mean)(values, jnp.ones(3, bool))
    np.testing.assert_allclose(got, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            jnp.ones(2, bool),
            r"shape of the values, \(2, 3\); got \(2,\).*known\[:, None",
        ),
        (jnp.ones((2, 1), bool), r"the shape of the values, \(2, 3\); got \(2, 1\)"),
        (jnp.ones((2, 3)), "must be bool.*dtype float32.*known > 0"),
    ],
)
def test_a_mask_is_never_broadcast(known, message):
    with pytest.raises(ValueError, match=message):
        mtl.masked_mean(jnp.ones((2, 3)), known)


# Labels of the second task are known to some devices only, and to no two alike.
X = jnp.asarray(RANDOM.standard_normal((8, 3)), jnp.float32)
KNOWN = jnp.array([[1, 1], [1, 1], [1, 0], [1, 0], [0, 0], [1, 1], [0, 0], [1, 0]]) > 0


def of_batch(params, x, known, axis_name=None):
    each = (x @ params["w"]) ** 2, jnp.abs(x @ params["w"] - 1)
    return [
        mtl.masked_mean(jnp.where(k, loss, jnp.nan), k, axis_name)
        for loss, k in zip(each, known.T, strict=True)
    ]


@pytest.mark.parametrize("check_vma", [True, False])
def test_over_devices_with_unevenly_known_labels(check_vma):
    """Value and gradients of the whole batch, which means of the parts are not."""
    params = {"w": jnp.array([1.0, -2.0, 0.5])}
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def over_devices(axis_name):
        @jax.jit
        @functools.partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(P(), P("data"), P("data")),
            out_specs=P(),
            check_vma=check_vma,
        )
        def parallel(params, x, known):
            losses_fn = functools.partial(of_batch, axis_name=axis_name)
            return mtl.task_grads(losses_fn, axis_name="data")(params, x, known)

        return parallel(params, X, KNOWN)

    losses, grads = mtl.task_grads(of_batch)(params, X, KNOWN)
    got, slopes = over_devices("data")
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    chex.assert_trees_all_close(slopes, grads, rtol=1e-5)
    assert np.all(np.abs(over_devices(None)[0] - losses) > 0.01)


def test_over_a_vmapped_axis_the_value_is_that_of_all_on_each_device():
    params = {"w": jnp.array([1.0, -2.0, 0.5])}
    whole, grads = mtl.task_grads(of_batch)(params, X, KNOWN)
    parts = X.reshape(4, 2, 3), KNOWN.reshape(4, 2, 2)

    def both(x, known):
        own = of_batch(params, x, known, "data")
        losses_fn = functools.partial(of_batch, axis_name="data")
        return own, mtl.task_grads(losses_fn, axis_name="data")(params, x, known)

    own, (losses, slopes) = jax.vmap(both, axis_name="data")(*parts)
    for got in (jnp.stack(own, axis=1), losses):
        np.testing.assert_allclose(got, jnp.tile(whole, (4, 1)), rtol=1e-5)
    for device in range(4):
        part = jax.tree.map(lambda x, i=device: x[i], slopes)
        chex.assert_trees_all_close(part, grads, rtol=1e-5)


# --- Many lanes -----------------------------------------------------------------------


LANES, EXAMPLES, CLASSES = 40, 1_000, 3
W = jnp.asarray(RANDOM.standard_normal((LANES, 20, CLASSES)), jnp.float32)
INPUTS = jnp.asarray(RANDOM.standard_normal((EXAMPLES, 20)), jnp.float32)
LABELS = jnp.asarray(RANDOM.integers(0, CLASSES, EXAMPLES))
LABELLED = jnp.asarray(RANDOM.random(EXAMPLES) < 0.3)
TRUE = jnp.asarray(RANDOM.standard_normal((EXAMPLES, CLASSES)), jnp.float32)
NORMALS = TRUE / jnp.linalg.norm(TRUE, axis=1, keepdims=True) * LABELLED[:, None]


def one_hot_losses(logits):
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(LABELS, CLASSES))


def of_classes(logits):
    counts = metrics.confusion_matrix(
        jnp.argmax(logits, axis=-1), LABELS, num_classes=CLASSES, mask=LABELLED
    )
    of_counts = metrics.pixel_accuracy, metrics.mean_iou, metrics.f1_score
    return [measure(counts) for measure in of_counts]


def of_odds(logits):
    sure = jnp.max(jax.nn.softmax(logits), axis=-1)
    right = jnp.argmax(logits, axis=-1) == LABELS
    bins = calibration_bins(sure, right, mask=LABELLED)
    hits = metrics.accuracy(jnp.argmax(logits, axis=-1), LABELS, LABELLED)
    return expected_calibration_error(bins), hits.mean


OF_LOGITS = {
    "masked_mean": lambda z: mtl.masked_mean(one_hot_losses(z), LABELLED),
    "average": lambda z: metrics.average_of(one_hot_losses(z), LABELLED),
    "segmentation_loss": lambda z: segmentation_loss(
        z, jnp.where(LABELLED, LABELS, -1)
    ),
    "depth_loss": lambda z: depth_loss(z[:, 0], jnp.where(LABELLED, TRUE[:, 0], 0)),
    "normal_loss": lambda z: normal_loss(z, NORMALS),
    "angles": lambda z: normal_angles(angle_counts(z, NORMALS)),
    "absolute_error": lambda z: metrics.absolute_error(z[:, 0], TRUE[:, 0], LABELLED),
    "relative_error": lambda z: metrics.relative_error(z[:, 0], TRUE[:, 0], LABELLED),
    "of_classes": of_classes,
    "of_odds": of_odds,
}


def assert_lanes_are_right(measure, lanes):
    """All at once against one by one, in one program each."""
    at_once = jax.jit(jax.vmap(measure))(lanes)
    one_by_one = jax.jit(lambda lanes: jax.lax.map(measure, lanes))(lanes)
    chex.assert_trees_all_close(at_once, one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.optimized
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("masked_mean", "average")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in OF_LOGITS
    ],
)
def test_forty_lanes_of_a_thousand_examples(name):
    """Which jaxlib 0.10.2 would get wrong for masked sums of one-hot losses."""
    assert_lanes_are_right(lambda w: OF_LOGITS[name](INPUTS @ w), W)


@pytest.mark.optimized
@pytest.mark.slow
def test_a_study_measures_forty_networks_at_once():
    """Its evaluation, and its losses, which are one-hot and masked."""
    whole, now = towers_problem("few", 16), Now(0.0, jax.random.key(0))
    batch = Labelled(
        jnp.asarray(RANDOM.random((EXAMPLES, 144)), jnp.float32),
        jnp.stack([LABELS, LABELS[::-1]], axis=1),
        jnp.stack([LABELLED, ~LABELLED], axis=1),
    )
    lanes = jax.tree.map(
        lambda p: p[None] + 0.3 * RANDOM.standard_normal((LANES, *p.shape), np.float32),
        whole.init(0)[0],
    )
    assert_lanes_are_right(
        lambda params: (
            whole.evaluate(params, (), batch, now.key),
            whole.losses(params, (), batch, now)[0],
        ),
        lanes,
    )
