"""The two photographs: bands, masks, angles; metrics; convolutions as products."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from benchmarks.studies.arch.dense import measures as dense_measures
from benchmarks.studies.arch.dense import networks, photographs
from benchmarks.studies.arch.dense import problem as dense
from benchmarks.studies.arch.dense.as_products import as_products, product
from benchmarks.studies.arch.dense.photographs import (
    BANDS,
    BLUR,
    CROP,
    IGNORED,
    NUM_CLASSES,
    Scenes,
)
from benchmarks.studies.arch.dense.study import DENSE
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.engine.study import Judgement, PartResult
from mtl_optax.study.report.figures.losses import losses


@pytest.fixture(scope="module")
def splits():
    return photographs.photographs()


def test_bands_are_a_crop_apart_and_test_is_in_the_right_third():
    (low, train), (val, end), (test, last) = BANDS.values()
    assert low == 0
    assert val - train == test - end == CROP
    assert end == round(640 * 2 / 3) < test
    assert last == 640


@pytest.mark.slow
def test_no_pixel_of_another_band_reaches_a_split(splits, monkeypatch):
    """Black where a split is not: the split stays as it is."""
    import sklearn.datasets

    pictures = np.stack(sklearn.datasets.load_sample_images().images)
    low, high = BANDS["test"]
    for kept in ("train", "test"):
        changed = np.zeros_like(pictures)
        # Test answers use colours and slopes of training, so that band stays.
        for name in {kept, "train"}:
            low, high = BANDS[name]
            changed[:, :, low:high] = pictures[:, :, low:high]
        monkeypatch.setattr(
            sklearn.datasets,
            "load_sample_images",
            lambda changed=changed: SimpleNamespace(images=list(changed)),
        )
        again = photographs.photographs()[kept]
        jax.tree.map(np.testing.assert_array_equal, splits[kept], again)


def test_test_crops_do_not_overlap(splits):
    for name, number in (("val", 2 * 6), ("test", 2 * 2 * 6)):
        crops = splits[name].images
        assert crops.shape == (number, CROP, CROP, 3)
        assert len({crop.tobytes() for crop in crops}) == number
    assert photographs.STRIDES["val"] == photographs.STRIDES["test"] == CROP


def test_a_pixel_is_valid_for_all_tasks_or_none(splits):
    for scenes in splits.values():
        known = scenes.images.max(axis=-1) < 1
        assert 0.5 < known.mean() < 1
        np.testing.assert_array_equal(scenes.segmentation != IGNORED, known)
        np.testing.assert_array_equal(scenes.depth[..., 0] != 0, known)
        np.testing.assert_array_equal(np.any(scenes.normals != 0, axis=-1), known)
        assert scenes.depth.min() == 0
        assert scenes.depth[known].min() > 0
        assert scenes.depth.max() <= 1
        lengths = np.linalg.norm(scenes.normals[known], axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_classes_of_training_occur_in_every_split_but_for_one(splits):
    for name, scenes in splits.items():
        known = scenes.segmentation[scenes.segmentation != IGNORED]
        counts = np.bincount(known, minlength=NUM_CLASSES)
        assert len(counts) == NUM_CLASSES
        assert sum(counts == 0) <= (name == "test")  # the flower's orange


def test_angles_spread_over_0_to_60_degrees(splits):
    normals = splits["train"].normals
    up = normals[..., 2][splits["train"].depth[..., 0] > 0]
    angles = np.degrees(np.arccos(np.clip(up, -1, 1)))
    assert angles.max() == pytest.approx(60, abs=1e-3)
    shares = np.histogram(angles, bins=[0, 10, 20, 30, 40, 50, 61])[0] / angles.size
    assert shares.min() > 0.05


def test_a_slope_to_the_right_leans_to_the_left():
    ramp = np.tile(np.linspace(0.2, 0.8, 40), (2, 30, 1))
    pictures = np.stack([ramp] * 3, axis=-1)
    centres = np.linspace(0, 1, NUM_CLASSES)[:, None] * np.ones(3)
    scale = 1 / (0.6 / 39)  # a slope of one
    found = photographs.answers(pictures, ramp, centres, scale)
    expected = np.array([-1, 0, 1]) / np.sqrt(2)
    np.testing.assert_allclose(found.normals[1, 7, 9], expected, atol=1e-5)
    np.testing.assert_allclose(found.depth[..., 0], ramp, rtol=1e-6)
    np.testing.assert_array_equal(found.segmentation, np.round(6 * ramp))


def test_blur_is_a_gaussian():
    point = np.zeros((1, 101, 101))
    point[0, 50, 50] = 1
    seen = photographs.blur(point)[0]
    assert seen.sum() == pytest.approx(1)
    assert seen[50, 56] / seen[50, 50] == pytest.approx(np.exp(-((6 / BLUR) ** 2) / 2))
    np.testing.assert_allclose(photographs.blur(np.full((1, 60, 70), 0.3)), 0.3)


@pytest.mark.slow
def test_measures_by_hand():
    normals = jnp.array([[[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]])
    scenes = Scenes(
        jnp.zeros((1, 1, 2, 3)),
        jnp.array([[[2, IGNORED]]]),
        jnp.array([[[[0.5], [0.0]]]]),
        normals,
    )
    outputs = {
        "segmentation": jax.nn.one_hot(jnp.array([[[2, 1]]]), NUM_CLASSES),
        "depth": jnp.array([[[[0.75], [9.0]]]]),
        "normals": jnp.array([[[[2.0, 0.0, 2.0], [1.0, 0.0, 0.0]]]]),
    }
    found = dense_measures.measures(outputs, scenes)
    np.testing.assert_allclose(found, [100, 0.25, 45], rtol=1e-5)
    np.testing.assert_allclose(dense_measures.errors(found), [0, 0.25, 45], atol=1e-5)
    # Class 1 is in the answers alone, and counts as what it is not.
    both = scenes._replace(segmentation=jnp.array([[[2, 2]]]))
    assert dense_measures.measures(outputs, both)[0] == 50


@pytest.mark.slow
def test_the_constant_guess_is_the_best_one(splits):
    scenes = jax.tree.map(lambda x: x[::16], splits["train"])
    guess = dense_measures.constant_guess(scenes)

    def measured(change):
        shape = scenes.depth.shape[:-1]
        values = {**guess, **change}
        outputs = {k: jnp.broadcast_to(v, (*shape, len(v))) for k, v in values.items()}
        return dense_measures.errors(dense_measures.measures(outputs, scenes))

    best = measured({})
    for label in range(NUM_CLASSES):
        other = {"segmentation": np.eye(NUM_CLASSES, dtype=np.float32)[label]}
        assert measured(other)[0] >= best[0]
    for change in (-0.05, 0.05):
        assert measured({"depth": guess["depth"] + change})[1] > best[1]


class Tiny(nnx.Module):
    """Predicts depth as a normalised channel, and says the rest without looking."""

    def __init__(self, rest, *, rngs):
        self.rest = tuple((task, tuple(x.tolist())) for task, x in rest.items())
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, images):
        shape = images.shape[:-1]
        found = {
            task: jnp.broadcast_to(jnp.array(x), (*shape, len(x)))
            for task, x in self.rest
        }
        return {**found, "depth": self.norm(images)[..., :1]}


@pytest.fixture
def few_scenes(splits, monkeypatch):
    """Pixels of the first crops, few of them, and training images drawn at random."""
    few = jax.tree.map(lambda x: x[:2, 30:34, 30:34], splits)
    many = jax.tree.map(lambda x: np.repeat(x, 200, axis=0), few["train"])
    drawn = np.random.default_rng(0).normal(2, 3, size=many.images.shape)
    few["train"] = many._replace(images=drawn.astype(np.float32))
    monkeypatch.setattr(dense, "photographs", lambda: few)
    return few


@pytest.mark.slow
def test_a_network_is_evaluated_with_the_statistics_of_training(few_scenes):
    guess = dense_measures.constant_guess(few_scenes["train"])
    problem = dense.problem("tiny", lambda rngs: Tiny(guess, rngs=rngs), "")
    params, state = problem.init(0)
    assert jax.tree.map(jnp.shape, jax.tree.leaves(params)) == [(3,), (3,)]
    val = few_scenes["val"]
    key = jax.random.key(0)
    found = problem.evaluate(params, state, val, key)
    known = val.depth[..., 0] > 0
    expected = (val.images[..., 0] - 2) / 3 - val.depth[..., 0]
    assert found["measure"][1] == pytest.approx(np.abs(expected[known]).mean(), rel=0.1)
    # What is the constant guess has none of the skill.
    np.testing.assert_allclose(found["skill"][jnp.array([0, 2])], 0, atol=1e-4)
    assert found["skill"][1] < -10
    # In training the statistics are those of the batch.
    batch = jax.tree.map(lambda x: x[:8], few_scenes["train"])
    seen = batch.images[..., 0]
    own = np.abs((seen - seen.mean()) / seen.std() - batch.depth[..., 0])
    loss = problem.losses(params, state, batch, Now(0.0, key))[0][1]
    assert loss == pytest.approx(own[batch.depth[..., 0] > 0].mean(), rel=1e-3)


@pytest.mark.slow
def test_all_predictions_are_trained_and_the_last_is_the_answer(few_scenes):
    class Two(Tiny):
        def both(self, images):
            answer = self(images)
            return {**answer, "depth": answer["depth"] + 100}, answer

    guess = dense_measures.constant_guess(few_scenes["train"])

    def build(rngs):
        return Two(guess, rngs=rngs)

    one = dense.problem("one", build, "")
    two = dense.problem("two", build, "", lambda net, x: net.both(x))
    start, batch = one.init(0), jax.tree.map(lambda x: x[:8], few_scenes["train"])
    key = jax.random.key(0)
    once, twice = (x.losses(*start, batch, Now(0.0, key))[0] for x in (one, two))
    np.testing.assert_allclose(twice[0], 2 * once[0], rtol=1e-6)
    assert twice[1] > 90 + once[1]
    val = few_scenes["val"]
    found = [x.evaluate(*start, val, key)["measure"] for x in (one, two)]
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((8, 9), (3, 3, 4, 5), (1, 1), "SAME"),
        ((8, 9), (3, 3, 4, 5), (2, 2), "SAME"),
        ((8, 8), (1, 1, 4, 6), (1, 1), "SAME"),
        ((7, 8), (3, 2, 4, 6), (2, 1), "VALID"),
    ],
)
@pytest.mark.slow
def test_product_is_the_convolution(size, kernel, strides, padding):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *size, 4)).astype(np.float32)
    weights = rng.normal(size=kernel).astype(np.float32)
    arguments = images, weights, strides, padding
    expected = lax.conv_general_dilated(
        *arguments, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = product(*arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_convolution_of_a_network_becomes_a_product():
    def build(rngs):
        first = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        return nnx.Sequential(first, nnx.Dict(inner=nnx.Conv(3, 4, (1, 1), rngs=rngs)))

    net = as_products(build(nnx.Rngs(0)))
    assert net.layers[0].conv_general_dilated is product
    assert net.layers[1]["inner"].conv_general_dilated is product


def test_the_three_parts_have_one_backbone_and_the_first_has_single_tasks():
    assert [part.name for part in DENSE] == [
        *("dense_hard_sharing", "dense_mtan", "dense_ctal")
    ]
    assert [part.has_single_task for part in DENSE] == [True, False, False]
    assert all(part.settings.seeds == 3 for part in DENSE)


def test_the_figure_of_losses_says_what_they_are(few_scenes):
    guess = dense_measures.constant_guess(few_scenes["train"])
    problem = dense.problem("tiny", lambda rngs: Tiny(guess, rngs=rngs), "")
    settings = DENSE[1].quick._replace(steps=2)
    own = SimpleNamespace(losses=np.ones((2, 1, 2, 1)) * np.array([1.0, 10, 100]))
    result = PartResult(
        "arch", DENSE[1], problem, settings, {"unitary": own}, Judgement({}, {}, "")
    )
    axes = losses(result).figure.axes[:3]
    assert len({ax.get_ylim() for ax in axes}) == 3  # other units, other axes
    assert [(ax.get_title(), ax.get_ylabel()) for ax in axes] == [
        ("segmentation", "cross-entropy / nat"),
        ("depth", "absolute error"),
        ("normals", "1 − cosine"),
    ]


@pytest.mark.parametrize(
    ("name", "total"), [("hard_sharing", 53_835), ("mtan", 58_515), ("ctal", 60_790)]
)
@pytest.mark.slow
def test_networks_answer_at_the_size_of_the_image(name, total):
    build = getattr(networks, name)
    images = jnp.zeros((2, CROP, CROP, 3))
    answers = nnx.eval_shape(lambda x: build(nnx.Rngs(0))(x), images)
    shapes = {task: answer.shape for task, answer in answers.items()}
    assert shapes == {
        task: (2, CROP, CROP, channels)
        for task, channels in dense_measures.CHANNELS.items()
    }
    params = nnx.eval_shape(lambda: nnx.state(build(nnx.Rngs(0)), nnx.Param))
    assert sum(x.size for x in jax.tree.leaves(params)) == total
