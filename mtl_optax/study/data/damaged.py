"""Multi-digits, two tasks, with the training labels of the left digit damaged.

Some of them are wrong, or most of them are missing: the two conditions for which the
paper on F-MTL promises most. Validation and test labels are all there and all right, so
what is chosen on validation data is chosen by clean ones.

What is damaged is data, not program: all conditions run the same compiled code.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis import metrics
from mtl_optax.analysis.calibration import calibration_bins, expected_calibration_error
from mtl_optax.analysis.sharpness import sharpness
from mtl_optax.core.masked_mean import masked_mean
from mtl_optax.study.data.classification import (
    ABOUT,
    CROSS_ENTROPY,
    cross_entropies,
    functions,
    owners_by_name,
)
from mtl_optax.study.data.digits import (
    CREDITS,
    NUM_IMAGES,
    NUM_SCANS,
    TASKS,
    Split,
    multi_digits,
)
from mtl_optax.study.data.networks import MultiTaskMLP
from mtl_optax.study.engine.problem import Metric, Problem, stateless

FIT = 512  # training images, as trained, on which sharpness is reported
RADIUS = 0.1  # of the ball, over the trunk and the head of a task together
ASCENT = 8  # steps to the worst point in it

MEASURED = (
    f"Sharpness is the largest rise of a task's loss within a ball of radius "
    f"{RADIUS:g} around its trunk and head, found by {ASCENT} steps of gradient "
    f"ascent, in thousandths of a nat, on {FIT} images: of the training images, with "
    f"the labels that were trained on (split fit, those labelled for left first), and "
    f"of each other split (in metrics.csv). The calibration error (ece) has 15 bins of "
    f"confidence, on test data. Validation and test labels are clean and complete."
)


class Labelled(NamedTuple):
    """Images, answers, and which of the answers are known."""

    images: NDArray[np.float32]  # [N, 144]
    labels: NDArray[np.int32]  # [N, T]
    known: NDArray[np.bool_]  # [N, T]


def damage(split: Split, noise: float, fraction: float, seed: int = 0) -> Labelled:
    """The first task with a share of other labels than the true ones, or of none.

    Shares are exact. What is wrong at little noise is as wrong at more, and what is
    known of few labels is known of more.
    """
    rng = np.random.default_rng(seed)
    number, num_tasks = split.labels.shape
    first = next(iter(TASKS))
    rank = rng.permutation(number)  # of each image
    shifts = rng.integers(1, TASKS[first], size=(number, 1))
    wrong, known = rank < round(noise * number), rank < round(fraction * number)
    labels = split.labels.copy()
    labels[wrong, 0] = (labels + shifts)[wrong, 0] % TASKS[first]
    everything = np.ones((number, num_tasks), bool)
    everything[:, 0] = known
    return Labelled(split.images, labels, everything)


def splits(
    noise: float, fraction: float, fit: int = FIT, train_scans: int | None = None
) -> dict[str, Labelled]:
    """Training data damaged, and so many of them to measure the fit on; others clean.

    Args:
      noise: share of wrong labels of the first task.
      fraction: share of its labels that are known.
      fit: number of training images of the split "fit", the labelled ones first.
      train_scans: as for `multi_digits`.
    """
    whole = multi_digits(2, train_scans=train_scans)
    train = damage(whole.pop("train"), noise, fraction)
    few: NDArray[np.int64] = np.argsort(~train.known[:, 0], kind="stable")[:fit]
    seen = Labelled(train.images[few], train.labels[few], train.known[few])
    clean = {name: damage(split, 0, 1) for name, split in whole.items()}
    return {"train": train, "fit": seen, **clean}


def damaged_digits(noise: float = 0, fraction: float = 1) -> Problem:
    """Two digits; a share of wrong or of known training labels of the left one."""
    tasks = tuple(TASKS)[:2]
    init, logits = functions(MultiTaskMLP, {task: TASKS[task] for task in tasks})

    def losses(params: Any, batch: Labelled) -> tuple[jax.Array, ...]:
        """Means over what is known; 0 where nothing is, and then not active."""
        return tuple(
            masked_mean(cross_entropies(z, y), known)
            for z, y, known in zip(
                logits(params, batch.images),
                *(batch.labels.T, batch.known.T),
                strict=True,
            )
        )

    def evaluate(params: Any, split: Labelled) -> dict[str, jax.Array]:
        scores: dict[str, list[jax.Array]] = {"accuracy": [], "ece": []}
        for z, y, known in zip(
            logits(params, split.images), split.labels.T, split.known.T, strict=True
        ):
            answer, sure = jnp.argmax(z, axis=-1), jnp.max(jax.nn.softmax(z), axis=-1)
            right = metrics.accuracy(answer, y, known).mean
            bins = calibration_bins(sure, answer == y, mask=known)
            scores["accuracy"].append(100 * right)
            scores["ece"].append(100 * expected_calibration_error(bins))
        few = jax.tree.map(lambda x: x[:FIT], split)

        def rise(chosen: jax.Array) -> jax.Array:
            def loss(params: Any) -> jax.Array:
                return jnp.stack(losses(params, few)) @ chosen

            return sharpness(loss, params, RADIUS, num_steps=ASCENT)

        found = {name: jnp.stack(values) for name, values in scores.items()}
        return {**found, "sharpness": 1000 * jax.vmap(rise)(jnp.eye(len(tasks)))}

    return stateless(
        name="Multi-digits, T=2, left damaged",
        tasks=tasks,
        splits=splits(noise, fraction),
        init=init,
        losses=losses,
        metrics=(
            Metric("accuracy", "%"),
            Metric("ece", "%", higher_is_better=False),
            Metric("sharpness", "mnat", higher_is_better=False),
        ),
        loss=(CROSS_ENTROPY,),
        evaluate=evaluate,
        owner=partial(owners_by_name, tasks),
        active=lambda batch: jnp.any(batch.known, axis=0),
        about=f"{ABOUT} {MEASURED}",
        facts={
            "scans": NUM_SCANS,
            "images": NUM_IMAGES,
            "wrong_labels_of_left": noise,
            "known_labels_of_left": fraction,
            "sharpness_radius": RADIUS,
            "sharpness_steps": ASCENT,
            "sharpness_images": FIT,
        },
        credits=CREDITS,
    )
