"""Multi-digits with a tower a task, of any width, and a small auxiliary one beside it.

One network, three conditions of data: few scans to learn from, few labels of the left
digit, or all. `gamma`, the weight of the auxiliary towers, is a setting of the run.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_optax.analysis import metrics
from mtl_optax.core.masked_mean import masked_mean
from mtl_optax.nn import HardSharing, SelfAuxiliary, owner, strip_auxiliaries
from mtl_optax.study.data.classification import CROSS_ENTROPY, cross_entropies
from mtl_optax.study.data.damaged import Labelled, splits
from mtl_optax.study.data.digits import CANVAS, CREDITS, NUM_IMAGES, TASKS
from mtl_optax.study.data.networks import linear
from mtl_optax.study.engine.problem import Metric, Problem, stateless

CLASSES = dict(list(TASKS.items())[:2])
HIDDEN, FEATURES = 64, 32  # of the trunk
FIT = 1000  # training images on which the gap is measured
# Condition -> scans to learn from, None for all; fraction of known labels of left
CONDITIONS: dict[str, tuple[int | None, float]] = {
    "few": (100, 1.0),
    "scarce": (None, 0.05),
    "all": (None, 1.0),
}
ABOUT = (
    f"All runs share start, batches and trunk, 144-{HIDDEN}-{FEATURES} with ReLU; a "
    "task's tower has one hidden layer of the width that the part is named after (0: "
    "none, it is linear), its auxiliary tower is linear. Evaluation runs the base "
    f"alone. Training loss and accuracy are those of {FIT} training images."
)


def network(width: int, rngs: nnx.Rngs) -> SelfAuxiliary:
    """The trunk with towers of this width and linear auxiliary ones."""
    layer = partial(linear, rngs=rngs)

    def tower(count: int) -> Any:
        if width == 0:
            return layer(FEATURES, count)
        return nnx.Sequential(layer(FEATURES, width), nnx.relu, layer(width, count))

    trunk = nnx.Sequential(
        *(layer(CANVAS**2, HIDDEN), nnx.relu, layer(HIDDEN, FEATURES), nnx.relu)
    )
    base = HardSharing(trunk, {task: tower(n) for task, n in CLASSES.items()})
    # Beside a linear tower the auxiliary one is as large, and should do nothing.
    return SelfAuxiliary(
        base, lambda task: layer(FEATURES, CLASSES[task]), allow_big=width == 0
    )


def problem(condition: str, width: int) -> Problem:
    """One condition and one width."""
    scans, known = CONDITIONS[condition]
    shapes = nnx.eval_shape(lambda: network(width, nnx.Rngs(0)))
    structure, base = nnx.graphdef(shapes), nnx.graphdef(shapes.base)

    def losses(
        params: Any, batch: Labelled, gamma: Any = None
    ) -> tuple[jax.Array, ...]:
        """Of the towers; with `gamma`, plus so many times those of the small ones."""
        means_of = partial(_means, batch, cross_entropy=cross_entropies)
        if gamma is None:
            of_base = nnx.merge(base, strip_auxiliaries(params))(batch.images)
            return tuple(means_of(of_base).values())
        net = nnx.merge(structure, params)
        net.gamma = gamma
        outputs, terms = net.with_auxiliary(batch.images, means_of)
        return tuple(loss + terms[t] for t, loss in means_of(outputs).items())

    def evaluate(params: Any, split: Labelled) -> dict[str, jax.Array]:
        outputs = nnx.merge(base, strip_auxiliaries(params))(split.images)
        hits = [
            metrics.accuracy(jnp.argmax(outputs[task], axis=-1), y, known).mean
            for task, y, known in _answers(split)
        ]
        # Not by one-hot labels: under vmap, with lanes times examples above 32,000, the
        # CPU compiler of jaxlib 0.10.2 gives some lanes the masked sums of others.
        losses = _means(split, outputs, optax.softmax_cross_entropy_with_integer_labels)
        loss = jnp.stack(list(losses.values()))
        return {"accuracy": 100 * jnp.stack(hits), "loss": loss}

    return stateless(
        name=f"Multi-digits, T=2, {condition}, towers of width {width}",
        tasks=tuple(CLASSES),
        splits=splits(0, known, FIT, scans),
        init=lambda seed: nnx.split(network(width, nnx.Rngs(seed)))[1],
        losses=losses,
        loss_settings=("gamma",),
        loss=(CROSS_ENTROPY,),
        metrics=(Metric("accuracy", "%"), CROSS_ENTROPY._replace(name="loss")),
        evaluate=evaluate,
        owner=owner(tuple(CLASSES)),
        active=lambda batch: jnp.any(batch.known, axis=0),
        about=ABOUT,
        facts={
            "condition": condition,
            "train_scans": scans,
            "known_labels_of_left": known,
            "images": NUM_IMAGES,
            "tower_width": width,
        },
        credits=CREDITS,
    )


def _answers(split: Labelled) -> Iterator[tuple[str, Any, Any]]:
    """Task, labels, and which of them are known."""
    return zip(CLASSES, split.labels.T, split.known.T, strict=True)


def _means(
    batch: Labelled, logits: dict[str, jax.Array], cross_entropy: Callable[..., Any]
) -> dict[str, jax.Array]:
    """Losses over known labels; 0 where there are none, and then inactive."""
    return {
        task: masked_mean(cross_entropy(logits[task], y), known)
        for task, y, known in _answers(batch)
    }
