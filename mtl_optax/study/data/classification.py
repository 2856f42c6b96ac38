"""Questions about images as a problem, for any network that has `heads`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_optax.analysis import metrics
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

ABOUT = (
    "All methods share start, batches and network: trunk 144-128-64, ReLU, a linear "
    "head for each task. Methods act on the trunk; each head gets its own gradient. "
    "Scans are split into training, validation and test before any are composed. "
    "single_task trains each task in a network of its own."
)
CROSS_ENTROPY = Metric("cross-entropy", "nat", higher_is_better=False)


class Functions(NamedTuple):
    """A network as functions of its parameters."""

    init: Callable[[int], Any]  # seed -> params
    logits: Callable[[Any, Any], list[jax.Array]]  # (params, images) -> [B, classes]


def functions(network: Callable[..., nnx.Module], classes: dict[str, int]) -> Functions:
    """Of `network(classes, rngs=rngs)(images)`, which gives the logits of each task."""
    # The structure without numbers: the same for every seed.
    structure, _ = nnx.split(nnx.eval_shape(lambda: network(classes, rngs=nnx.Rngs(0))))

    def init(seed: int) -> Any:
        return nnx.split(network(classes, rngs=nnx.Rngs(seed)))[1]

    def logits(params: Any, images: Any) -> list[jax.Array]:
        answers = nnx.merge(structure, params)(images)
        return [answers[task] for task in classes]

    return Functions(init, logits)


def cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    """The mean of a batch, `[B, classes]` and `[B]`."""
    return jnp.mean(cross_entropies(logits, labels))


def cross_entropies(logits: jax.Array, labels: Any) -> jax.Array:
    """Of each example, `[B]`; the gradient scatters nothing."""
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, targets)


def cross_entropy_of_tasks(
    logits: Sequence[jax.Array], labels: Any
) -> tuple[jax.Array, ...]:
    """The losses, of logits `[B, classes]` each, and of labels `[B, T]`."""
    pairs = zip(logits, labels.T, strict=True)
    return tuple(cross_entropy(z, y) for z, y in pairs)


def accuracies(logits: Sequence[jax.Array], labels: Any) -> jax.Array:
    """In percent `[T]`, of the same."""
    pairs = zip(logits, labels.T, strict=True)
    hits = [metrics.accuracy(jnp.argmax(z, axis=-1), y).mean for z, y in pairs]
    return 100 * jnp.stack(hits)


def digits_problem(num_tasks: int) -> Problem:
    """Multi-digits with the MLP."""
    classes = dict(list(TASKS.items())[:num_tasks])
    splits = multi_digits(num_tasks)
    name = f"Multi-digits, T={num_tasks}"
    return classification(name, classes, splits, MultiTaskMLP, ABOUT)


def classification(
    name: str,
    classes: dict[str, int],
    splits: dict[str, Split],
    network: Callable[..., nnx.Module],
    about: str,
) -> Problem:
    """A network whose `heads` answer so many questions about images.

    Args:
      name: of the problem.
      classes: task -> number of classes, in the order of the labels.
      splits: images `[N, 144]` and labels `[N, T]`.
      network: see `functions`.
      about: for the report.
    """
    tasks = tuple(classes)
    init, logits = functions(network, classes)

    def losses(params: Any, batch: Split) -> tuple[jax.Array, ...]:
        return cross_entropy_of_tasks(logits(params, batch.images), batch.labels)

    def evaluate(params: Any, split: Split) -> dict[str, jax.Array]:
        return {"accuracy": accuracies(logits(params, split.images), split.labels)}

    return stateless(
        name=name,
        tasks=tasks,
        splits=splits,
        init=init,
        losses=losses,
        metrics=(Metric("accuracy", "%"),),
        loss=(CROSS_ENTROPY,),
        evaluate=evaluate,
        owner=partial(owners_by_name, tasks),
        about=about,
        facts={"scans": NUM_SCANS, "images": NUM_IMAGES},
        credits=CREDITS,
    )


def owners_by_name(tasks: Sequence[str], params: Any) -> Any:
    """The task whose head holds a leaf, as its key path says; None in the trunk."""
    return by_name({f"['heads']['{x}']": t for t, x in enumerate(tasks)}, params)


def by_name(places: dict[str, Any], params: Any) -> Any:
    """For each leaf what stands at the start of its key path, None where nothing is."""

    def at(path: Any, _: Any) -> Any:
        name = jax.tree_util.keystr(path)
        return next((x for start, x in places.items() if name.startswith(start)), None)

    return jax.tree_util.tree_map_with_path(at, params)
