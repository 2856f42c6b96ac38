"""What dense metrics average over, against hand-made cases and published formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtl_optax.analysis.conventions import dense_counts, dense_scores

CONVENTIONS = ("pixels", "batches:2", "images")
KINDS = ("depth", "normals", "segmentation")
CLASSES = 5
EACH = pytest.mark.parametrize("convention", CONVENTIONS)
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@partial(jax.jit, static_argnames=("kind", "convention"))
def count(kind, outputs, targets, convention):
    return dense_counts(kind, outputs, targets, convention=convention)


@partial(jax.jit, static_argnames=("kind", "convention"))
def read(kind, counts, convention):
    return dense_scores(kind, counts, convention=convention)


def scores(kind, outputs, targets, convention):
    found = read(kind, count(kind, outputs, targets, convention), convention)
    return {name: float(score) for name, score in found.items()}


def logits(labels):
    """That say these classes."""
    return np.eye(CLASSES, dtype=np.float32)[np.asarray(labels)]


def rows(*values, channels=True):
    """Pictures of one row of pixels."""
    array = np.array(values, np.float32)[:, None]
    return array[..., None] if channels else array.astype(np.int32)


def batch(kind, size=8, seed=0):
    """Pictures of 3 x 4 pixels with different numbers of valid ones; one has none."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    valid = rng.uniform(size=(size, 3, 4)) < np.linspace(0, 1, size)[:, None, None]
    if kind == "segmentation":
        labels = rng.integers(0, CLASSES - 1, (size, 3, 4))
        outputs = rng.standard_normal((size, 3, 4, CLASSES)) + logits(labels)
        return outputs.astype(np.float32), np.where(valid, labels, -1)
    channels = {"depth": 1, "normals": 3}[kind]
    targets = rng.standard_normal((size, 3, 4, channels))
    outputs = targets + 0.5 * rng.standard_normal(targets.shape)
    if kind == "depth":
        targets = 0.5 + np.abs(targets)
    else:
        targets /= np.linalg.norm(targets, axis=-1, keepdims=True)
    targets = np.where(valid[..., None], targets, 0)
    return outputs.astype(np.float32), targets.astype(np.float32)


def published(kind, outputs, targets):
    """What the code of CAGrad computes of a batch; None where it would give NaN."""
    outputs, targets = np.float64(outputs), np.float64(targets)
    if kind == "segmentation":
        guess, valid = outputs.argmax(-1), targets >= 0
        if not valid.any():
            return None
        shares = []
        for c in range(CLASSES):
            either = ((guess == c) | (targets == c)) & valid
            if either.any():
                shares.append((guess == targets)[either].sum() / either.sum())
        return {
            "mIoU": np.mean(shares),
            "PixAcc": np.mean(guess[valid] == targets[valid]),
        }
    valid = targets.sum(-1) != 0
    if not valid.any():
        return None
    guess, true = outputs[valid], targets[valid]
    if kind == "depth":
        error = np.abs(guess - true)
        return {"AbsErr": error.mean(), "RelErr": (error / true).mean()}
    cosine = (guess * true).sum(-1) / np.linalg.norm(guess, axis=-1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    found = {"mean angle": angle.mean(), "median angle": np.median(angle)}
    return found | {f"<{x:g}": np.mean(angle < x) for x in (11.25, 22.5, 30)}


def close(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        bound = 0.0051 if name == "median angle" else 2e-6 * max(1, abs(value))
        assert abs(found[name] - value) <= bound, name


# --- Against the formulas of the published code ---------------------------------------


@EACH_KIND
def test_pixels_are_the_published_formulas_of_the_whole_split(kind):
    outputs, targets = batch(kind)
    close(scores(kind, outputs, targets, "pixels"), published(kind, outputs, targets))


@EACH_KIND
@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_batches_are_means_of_the_published_numbers_of_batches(kind, number):
    outputs, targets = batch(kind)
    found = scores(kind, outputs, targets, f"batches:{number}")
    if kind == "segmentation":
        close(found, published(kind, outputs, targets))
        return
    parts = [
        published(kind, outputs[i : i + number], targets[i : i + number])
        for i in range(0, 8, number)
    ]
    parts = [part for part in parts if part is not None]
    assert len(parts) == 8 // number - (number == 1)  # one picture has no valid pixel
    close(found, {name: np.mean([x[name] for x in parts]) for name in parts[0]})


@EACH_KIND
def test_images_are_means_of_the_published_numbers_of_pictures(kind):
    outputs, targets = batch(kind)
    parts = [published(kind, outputs[[i]], targets[[i]]) for i in range(1, 8)]
    wanted = {name: np.mean([x[name] for x in parts]) for name in parts[0]}
    close(scores(kind, outputs, targets, "images"), wanted)


def test_libmtl_weighs_the_errors_of_batches_by_their_valid_pixels():
    outputs, targets = batch("depth")
    found, weights = [], []
    for i in range(0, 8, 2):
        found.append(published("depth", outputs[i : i + 2], targets[i : i + 2]))
        weights.append((targets[i : i + 2] != 0).sum())
    wanted = {
        name: np.average([x[name] for x in found], weights=weights) for name in found[0]
    }
    close(scores("depth", outputs, targets, "pixels"), wanted)


# --- By hand --------------------------------------------------------------------------


def test_depth_by_hand():
    targets = rows([1, 2, 4, 0], [2, 0, 0, 0], [0, 0, 0, 0], [4, 4, 0, 0])
    outputs = rows([2, 2, 3, 9], [5, 9, 9, 9], [9, 9, 9, 9], [5, 2, 9, 9])
    # Errors 1, 0, 1 / 3 / none / 1, 2; relative 1, 0, 1/4 / 3/2 / none / 1/4, 1/2
    for convention, absolute, relative in [
        ("pixels", 8 / 6, 3.5 / 6),
        ("batches:1", (2 / 3 + 3 + 3 / 2) / 3, (5 / 12 + 3 / 2 + 3 / 8) / 3),
        ("images", (2 / 3 + 3 + 3 / 2) / 3, (5 / 12 + 3 / 2 + 3 / 8) / 3),
        ("batches:2", (5 / 4 + 3 / 2) / 2, (2.75 / 4 + 3 / 8) / 2),
        ("batches:4", 8 / 6, 3.5 / 6),
    ]:
        found = scores("depth", outputs, targets, convention)
        close(found, {"AbsErr": absolute, "RelErr": relative})


def test_segmentation_by_hand():
    targets = rows([0, 0, 1, -1], [2, 2, 2, 2], [-1, -1, -1, -1], channels=False)
    guess = rows([0, 1, 1, 4], [2, 2, 0, 0], [3, 3, 3, 3], channels=False)
    # Of all: classes 0: 1/4, 1: 1/2, 2: 2/4; of pictures: 1/2, 1/2 / 2/4, 0 (class 0)
    whole = {"mIoU": (1 / 4 + 1 / 2 + 1 / 2) / 3, "PixAcc": 4 / 7}
    for convention in ("pixels", "batches:1", "batches:3"):
        close(scores("segmentation", logits(guess), targets, convention), whole)
    wanted = {"mIoU": (1 / 2 + 1 / 4) / 2, "PixAcc": (2 / 3 + 1 / 2) / 2}
    close(scores("segmentation", logits(guess), targets, "images"), wanted)


def tilted(*degrees):
    """Normals so far from (0, 0, 1), in one row."""
    angle = np.radians(degrees)
    vectors = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], axis=-1)
    return vectors.astype(np.float32)[None]


def test_normals_by_hand():
    up, none = [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]
    targets = np.array([[[up, up, up]], [[up, none, none]]], np.float32)
    outputs = 3 * np.stack([tilted(10, 20, 90), tilted(40, 5, 5)])
    found = scores("normals", outputs, targets, "pixels")
    wanted = {"mean angle": 40, "median angle": 30}
    close(found, {**wanted, "<11.25": 1 / 4, "<22.5": 1 / 2, "<30": 1 / 2})
    found = scores("normals", outputs, targets, "images")
    wanted = {"mean angle": 40, "median angle": 30}  # of 40 and 40; of 20 and 40
    close(found, {**wanted, "<11.25": 1 / 6, "<22.5": 1 / 3, "<30": 1 / 3})


# --- Edges ----------------------------------------------------------------------------


@EACH
@EACH_KIND
def test_no_valid_pixel_is_nan_alone_and_nothing_beside_others(kind, convention):
    outputs, targets = batch(kind, size=4)
    void = np.full_like(targets, -1 if kind == "segmentation" else 0)
    junk = np.full_like(outputs, np.nan)
    alone = scores(kind, junk, void, convention)
    assert all(np.isnan(score) for score in alone.values())
    with_void = scores(
        kind,
        np.concatenate([outputs, junk]),
        np.concatenate([targets, void]),
        convention,
    )
    assert with_void == scores(kind, outputs, targets, convention)
    assert not any(np.isnan(score) for score in with_void.values())


@EACH
def test_absent_classes_are_left_out_and_one_class_is_enough(convention):
    labels = np.full((2, 2, 3), 3)
    found = scores("segmentation", logits(labels), labels, convention)
    assert found == {"mIoU": 1, "PixAcc": 1}
    found = scores("segmentation", logits(0 * labels), labels, convention)
    assert found == {"mIoU": 0, "PixAcc": 0}


def test_tiny_depths_rule_the_relative_error_of_the_published_code_only():
    targets, outputs = rows([1, 1e-12], [1, 0]), rows([1.5, 1], [1.5, 1])
    close(
        scores("depth", outputs, targets, "pixels"),
        {"AbsErr": 2 / 3, "RelErr": 0.5},
    )
    for convention in ("batches:2", "images"):
        assert scores("depth", outputs, targets, convention)["RelErr"] > 1e11


@EACH
def test_vectors_that_are_a_bit_too_long_have_an_angle(convention):
    x = np.float32(1 + 1e-7)
    one = np.array([0, 0, x], np.float32)
    assert one @ one > 1
    targets = np.tile(one, (2, 1, 3, 1))
    found = scores("normals", targets, targets, convention)
    assert found["mean angle"] == 0
    assert found["<11.25"] == 1
    found = scores("normals", -targets, targets, convention)
    assert found["mean angle"] == pytest.approx(180)
    # LibMTL divides by the length: NaN
    assert scores("normals", 0 * targets, targets, convention)["mean angle"] == 90


def test_normals_whose_channels_sum_to_zero_count_in_our_convention_only():
    root = np.float32(np.sqrt(0.5))
    targets = np.array([[[[root, -root, 0], [0, 0, 1]]]], np.float32)
    outputs = np.array([[[[0, 0, 1], [0, 0, 1]]]], np.float32)
    assert scores("normals", outputs, targets, "pixels")["mean angle"] == 45
    for convention in ("batches:1", "images"):
        assert scores("normals", outputs, targets, convention)["mean angle"] == 0


@EACH
def test_a_prediction_of_nan_shows(convention):
    for kind, name in (("depth", "AbsErr"), ("normals", "mean angle")):
        outputs, targets = batch(kind)
        outputs[-1] = np.nan
        assert np.isnan(scores(kind, outputs, targets, convention)[name])


# --- Batches and devices --------------------------------------------------------------


@EACH
@EACH_KIND
def test_batches_add_up_to_the_split(kind, convention):
    outputs, targets = batch(kind)
    parts = [
        count(kind, outputs[i : i + 4], targets[i : i + 4], convention) for i in (0, 4)
    ]
    found = read(kind, jax.tree.map(jnp.add, *parts), convention)
    close(found, scores(kind, outputs, targets, convention))


@pytest.mark.parametrize("convention", ["pixels", "batches:2", "batches:8", "images"])
@EACH_KIND
def test_eight_devices_count_what_one_does(kind, convention):
    outputs, targets = batch(kind)
    place = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data"))
    one = jax.device_get(count(kind, outputs, targets, convention))
    shared = count(kind, *jax.device_put((outputs, targets), place), convention)
    for found, wanted in zip(*map(jax.tree.leaves, (shared, one)), strict=True):
        if np.issubdtype(wanted.dtype, np.integer):
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(one))


# --- Errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "pixel", "batches", "batches:0", "batches:x"])
def test_other_conventions_are_an_error(wrong):
    outputs, targets = batch("depth")
    with pytest.raises(ValueError, match="'pixels', 'images' or 'batches:N'"):
        dense_counts("depth", outputs, targets, convention=wrong)
    with pytest.raises(ValueError, match="'pixels', 'images' or 'batches:N'"):
        dense_scores("depth", {}, convention=wrong)


def test_errors_say_what_to_do():
    outputs, targets = batch("depth")
    with pytest.raises(ValueError, match="8 pictures do not fill batches of 3"):
        dense_counts("depth", outputs, targets, convention="batches:3")
    with pytest.raises(ValueError, match="task_kind"):
        dense_counts("edges", outputs, targets, convention="pixels")
    for kind in KINDS:
        outputs, targets = batch(kind)
        for convention in CONVENTIONS:
            with pytest.raises(ValueError, match="shape"):
                dense_counts(kind, outputs, targets[:, :2], convention=convention)
