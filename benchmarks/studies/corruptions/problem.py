"""Multi-digits on 32 x 32 pixels: a network learns clean images, its heads others.

In the first half of the steps everything learns on clean images. Then the trunk stands
still, and the heads learn on corrupted ones, whose corruption and severity are drawn
for each. What everything was in the middle is kept as the state of the problem; so the
trunk stands still whatever a method or its optimiser does to it.
"""

from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.classification import (
    CROSS_ENTROPY,
    accuracies,
    cross_entropy_of_tasks,
    owners_by_name,
)
from mtl_optax.study.data.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    SIDE,
    corrupt,
    corrupt_each,
    enlarge,
)
from mtl_optax.study.data.digits import CANVAS, CREDITS, TASKS, multi_digits
from mtl_optax.study.engine.problem import Metric, Now, Problem

MIDDLE = 0.5  # of all steps: here the trunk stops
VERSIONS = 3  # corrupted ones of each training image
NUM_TEST = 500  # images of each corruption and severity
SIZES = (SIDE**2, 128, 64)  # of the trunk


ABOUT = (
    f"Two digits overlap; 12 x 12 pixels are enlarged to {SIDE} x {SIDE}. Trunk "
    f"{'-'.join(map(str, SIZES))} with ReLU, a linear head for each task; single_task "
    "has a network for each. In the first half of the steps all learns on clean "
    "images, in the second the heads on corrupted ones, with the trunk as it is. "
    f"{len(CORRUPTIONS)} corruptions at severities 1 to 5: one of each is drawn for "
    f"each of {VERSIONS} versions of a training image, and a version at each step. The "
    "rate falls to 0 on a cosine in each half. accuracy is with the heads after the "
    "first half, by which rates are chosen on clean images; retuned with those after "
    "the second."
)


class Examples(NamedTuple):
    """Images as bytes, and their answers."""

    images: NDArray[np.uint8]  # [N, SIDE**2]
    labels: NDArray[np.int32]  # [N, T]


class Training(NamedTuple):
    """Each image as it is, and corrupted."""

    clean: NDArray[np.uint8]  # [N, SIDE**2]
    corrupted: NDArray[np.uint8]  # [N, VERSIONS, SIDE**2]
    labels: NDArray[np.int32]  # [N, T]


class State(NamedTuple):
    """What is known beside the parameters."""

    kept: Any  # the parameters after the first half; in it those of now
    rate: jax.Array  # of this step, over the learning rate


def at(name: str, severity: int) -> str:
    """The split with this corruption."""
    return f"{name}_{severity}"


@cache
def splits(num_test: int, num_train: int | None) -> dict[str, Any]:
    """Clean ones, and the test images under every corruption at every severity."""
    digits = multi_digits(len(TASKS))
    whole = {
        name: enlarge(split.images.reshape(-1, CANVAS, CANVAS))
        for name, split in digits.items()
    }
    train, test = whole["train"][:num_train], whole["test"][:num_test]
    versions = [corrupt_each(train, seed) for seed in range(1, VERSIONS + 1)]
    answers = digits["test"].labels[:num_test]
    return {
        "train": Training(
            clean=flat(train),
            corrupted=np.stack([flat(x) for x in versions], axis=1),
            labels=digits["train"].labels[:num_train],
        ),
        "val": Examples(flat(whole["val"]), digits["val"].labels),
        "test": Examples(flat(test), answers),
        **{
            at(name, severity): Examples(
                flat(corrupt(test, name, severity, 0)), answers
            )
            for name in CORRUPTIONS
            for severity in SEVERITIES
        },
    }


def flat(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[N, SIDE, SIDE]` as `[N, SIDE**2]`."""
    return images.reshape(len(images), -1)


def init(seed: int) -> tuple[Any, State]:
    """He's variance in the weights, zero in the biases."""
    rng = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int) -> dict[str, jax.Array]:
        weights = rng.normal(size=(inputs, outputs)) * np.sqrt(2 / inputs)
        return {"w": jnp.asarray(weights, jnp.float32), "b": jnp.zeros(outputs)}

    trunk = [layer(*pair) for pair in pairwise(SIZES)]
    heads = {task: layer(SIZES[-1], classes) for task, classes in TASKS.items()}
    start = {"trunk": trunk, "heads": heads}
    return start, State(start, jnp.ones(()))


def features(trunk: Any, images: Any) -> jax.Array:
    """Of images in bytes `[B, SIDE**2]`, `[B, 64]`."""
    x = images.astype(jnp.float32) / 255
    for layer in trunk:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    return x


def logits(heads: Any, x: jax.Array) -> list[jax.Array]:
    """Of each task, from features."""
    return [x @ heads[task]["w"] + heads[task]["b"][None] for task in TASKS]


def losses(params: Any, state: State, batch: Training, now: Now) -> tuple[Any, State]:
    """On clean images, then on corrupted ones; each half has a cosine of its own."""
    second = now.progress >= MIDDLE
    drawn = jax.random.randint(now.key, (len(batch.clean),), 0, VERSIONS)
    version = jnp.take_along_axis(batch.corrupted, drawn[:, None, None], axis=1)[:, 0]
    images = jnp.where(second, version, batch.clean)
    # The parameters in the middle are what the first half has left.
    kept = jax.tree.map(
        lambda new, old: jnp.where(now.progress <= MIDDLE, new, old),
        *(params, state.kept),
    )
    found = logits(params["heads"], features(kept["trunk"], images))
    done = (now.progress - MIDDLE * second) / jnp.where(second, 1 - MIDDLE, MIDDLE)
    after = State(jax.lax.stop_gradient(kept), 0.5 * (1 + jnp.cos(jnp.pi * done)))
    return cross_entropy_of_tasks(found, batch.labels), after


def evaluate(
    params: Any, state: State, split: Examples, key: Any
) -> dict[str, jax.Array]:
    """With the heads of clean images, and with those that were trained again."""
    del key
    x = features(state.kept["trunk"], split.images)
    both = {"accuracy": state.kept["heads"], "retuned": params["heads"]}
    return {
        name: accuracies(logits(heads, x), split.labels) for name, heads in both.items()
    }


def problem(num_test: int = NUM_TEST, num_train: int | None = None) -> Problem:
    """With so many test images of each corruption, and training images."""
    tasks = tuple(TASKS)
    return Problem(
        name="corrupted Multi-digits",
        tasks=tasks,
        splits=splits(num_test, num_train),
        init=init,
        losses=losses,
        metrics=(Metric("accuracy", "%"), Metric("retuned", "%")),
        loss=(CROSS_ENTROPY,),
        evaluate=evaluate,
        owner=partial(owners_by_name, tasks),
        about=ABOUT,
        facts={
            "test_images": num_test,
            "versions": VERSIONS,
            "strengths": {name: x.strengths for name, x in CORRUPTIONS.items()},
        },
        credits=CREDITS,
    )
