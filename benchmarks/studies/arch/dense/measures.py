"""The dense tasks: losses, what is measured of predictions, and of a constant guess."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.studies.arch.dense.photographs import NUM_CLASSES, Scenes
from mtl_optax.analysis import metrics
from mtl_optax.analysis.normals import angle_counts
from mtl_optax.nn import depth_loss, normal_loss, segmentation_loss
from mtl_optax.study.engine.problem import Metric

Outputs = dict[str, jax.Array]
CHANNELS = {"segmentation": NUM_CLASSES, "depth": 1, "normals": 3}  # of the outputs
TASKS = tuple(CHANNELS)
LOSSES = (  # of each task
    Metric("cross-entropy", "nat", higher_is_better=False),
    Metric("absolute error", "", higher_is_better=False),
    Metric("1 − cosine", "", higher_is_better=False),
)
MEASURES = (  # likewise
    Metric("mIoU", "%"),
    Metric("absolute error", "", higher_is_better=False),
    Metric("mean angle", "degrees", higher_is_better=False),
)


def losses(outputs: Outputs, scenes: Scenes) -> tuple[jax.Array, ...]:
    """LOSSES of a batch."""
    return (
        segmentation_loss(outputs["segmentation"], scenes.segmentation),
        depth_loss(outputs["depth"], scenes.depth),
        normal_loss(outputs["normals"], scenes.normals),
    )


def measures(outputs: Outputs, scenes: Scenes) -> jax.Array:
    """MEASURES of a whole split."""
    classes = jnp.argmax(outputs["segmentation"], axis=-1)
    confusion = metrics.confusion_matrix(classes, scenes.segmentation, NUM_CLASSES)
    # Over the classes that are in the targets. One that is not, predicted in a single
    # pixel, would cost a seventh of the score.
    true, guessed = jnp.any(confusion > 0, axis=1), jnp.any(confusion > 0, axis=0)
    counted = jnp.sum(true | guessed) / jnp.sum(true)
    depth = outputs["depth"], scenes.depth, scenes.depth > 0
    angles = angle_counts(outputs["normals"], scenes.normals)
    return jnp.stack(
        [
            100 * metrics.mean_iou(confusion) * counted,
            metrics.absolute_error(*depth).mean,
            angles.average.mean,
        ]
    )


def errors(measured: jax.Array) -> jax.Array:
    """What is lower where MEASURES are better; mIoU lacks that to 100 %."""
    return jnp.concatenate([100 - measured[:1], measured[1:]])


def constant_guess(scenes: Scenes) -> dict[str, np.ndarray]:
    """The most frequent class, the median depth and the mean normal."""
    valid = scenes.depth[..., 0] > 0
    counts = np.bincount(scenes.segmentation[valid], minlength=NUM_CLASSES)
    mean = scenes.normals[valid].mean(axis=0, dtype=np.float64).astype(np.float32)
    return {
        "segmentation": np.eye(NUM_CLASSES, dtype=np.float32)[counts.argmax()],
        "depth": np.median(scenes.depth[valid], axis=0),
        "normals": mean,
    }
