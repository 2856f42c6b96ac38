"""What a kind of task asks of a network: its loss, and its metrics in two steps.

Every function takes outputs and targets of one task, with a leading axis of examples.
Labels that are missing (`mtl_optax.data.dataset.KINDS`) count nowhere, so neither do
the rows that fill a batch. Counts are sums: add those of batches and of devices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.analysis import metrics
from mtl_optax.analysis.auc import auc, auc_counts
from mtl_optax.analysis.conventions import dense_counts, dense_scores
from mtl_optax.analysis.metrics import Average
from mtl_optax.core.masked_mean import masked_mean
from mtl_optax.data.dataset import Task, known
from mtl_optax.nn import depth_loss, normal_loss, segmentation_loss

Scores = dict[str, jax.Array]


class Rule(NamedTuple):
    """Of a kind of task."""

    loss: Callable[[Task, Any, Any], jax.Array]
    counts: Callable[[Task, Any, Any, str], Any]
    scores: Callable[[Task, Any, str], Scores]
    higher: Mapping[str, bool]  # of all its metrics, whether more is better


class Counts(NamedTuple):
    """Of a task over some batches."""

    loss: Average  # over labels
    metrics: Any

    def __add__(self, other: Any) -> "Counts":
        """Of both batches."""
        return metrics.added(self, other)


def loss(task: Task, outputs: Any, targets: Any) -> jax.Array:
    """Mean over the labels that are there; 0, and a gradient of 0, without.

    Args:
      task: whose outputs they are.
      outputs: `[B, H, W, C]` of pixels; `[B, size]` of class, `[B, size - 1]` of
        ordinal, `[B, 1]` of binary and regression; logits, but of regression, depth
        and normals.
      targets: as :data:`mtl_optax.data.dataset.KINDS` says, with a leading axis B.

    Returns:
      A scalar, float32.

    Raises:
      ValueError: if the shapes do not fit.

    When not to use it: on a part of a batch, to average later: parts know different
    numbers of labels.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.data.dataset import Task
      >>> from mtl_optax.training import kinds
      >>> price = Task("price", "regression")
      >>> kinds.loss(price, jnp.array([[1.0], [9.0]]), jnp.array([3.0, jnp.nan]))
      Array(4., dtype=float32)
    """
    return RULES[task.kind].loss(task, outputs, targets)


def counts(task: Task, outputs: Any, targets: Any, convention: str) -> Counts:
    """What `scores` reads after the counts of all batches are added with `+`.

    Arguments are those of `loss`, and the convention of dense metrics, see
    :mod:`mtl_optax.analysis.conventions`.
    """
    number = jnp.sum(known(task, targets), dtype=jnp.int32)
    total = loss(task, outputs, targets) * number
    return Counts(
        Average(total, number),
        RULES[task.kind].counts(task, outputs, targets, convention),
    )


def scores(task: Task, found: Counts, convention: str) -> Scores:
    """Metrics by name, "loss" first: scalars, NaN where nothing was counted.

    Errors of regression are in the unit of y, see `Task.sd`.
    """
    own = RULES[task.kind].scores(task, found.metrics, convention)
    return {"loss": found.loss.mean, **own}


def higher_is_better(task: Task) -> dict[str, bool]:
    """Of each metric but the loss."""
    every = RULES[task.kind].higher
    return {k: x for k, x in every.items() if k != "auc" or task.metric == "auc"}


def in_delta_m(task: Task) -> tuple[str, ...]:
    """The metrics that stand for the task where runs are compared."""
    if task.kind == "binary":
        return (task.metric or "accuracy",)
    if task.kind == "regression":
        return ("MAE",)
    return tuple(higher_is_better(task))


def active(tasks: Sequence[Task], targets: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Which tasks have a label in the batch."""
    return {t.name: jnp.any(known(t, targets[t.name])) for t in tasks}


def entire_space(
    tasks: Sequence[Task], outputs: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    r"""Logits of a task that is `given` another: of the product of both probabilities.

    .. math:: p(\text{conversion}) = p(\text{click}) \, p(\text{conversion} \mid
      \text{click})

    Ma et al., Entire Space Multi-Task Model, SIGIR 2018: the loss is then one over all
    rows, not over clicked ones.
    """
    found = dict(outputs)
    for task in tasks:
        if task.given is not None:
            both = log_product(outputs[task.name], outputs[task.given])
            # log(p / (1 - p)); p is below 1 by rounding too.
            found[task.name] = both - jnp.log(-jnp.expm1(jnp.minimum(both, -1e-6)))
    return found


def log_product(one: jax.Array, other: jax.Array) -> jax.Array:
    """Logarithm of the product of two probabilities, from their logits."""
    one, other = metrics.widen(one), metrics.widen(other)
    return jax.nn.log_sigmoid(one) + jax.nn.log_sigmoid(other)


def _cross_entropy(task: Task, outputs: Any, targets: Any) -> jax.Array:
    return segmentation_loss(outputs, targets)


def _binary_loss(task: Task, outputs: Any, targets: Any) -> jax.Array:
    logits = metrics.widen(_single(task, outputs, targets))
    values = optax.sigmoid_binary_cross_entropy(logits, jnp.clip(targets, 0, 1))
    return masked_mean(values, known(task, targets))


def _ordinal_loss(task: Task, outputs: Any, targets: Any) -> jax.Array:
    """Mean over the K - 1 questions "is it above level k?"."""
    _check(task, outputs, targets, task.size - 1)
    above = targets[..., None] > jnp.arange(task.size - 1)[None]
    values = optax.sigmoid_binary_cross_entropy(metrics.widen(outputs), above)
    return masked_mean(jnp.mean(values, axis=-1), known(task, targets))


def _regression_loss(task: Task, outputs: Any, targets: Any) -> jax.Array:
    there = known(task, targets)
    guessed = metrics.widen(_single(task, outputs, targets))
    error = guessed - jnp.where(there, targets, 0)
    values = error**2 if task.loss == "squared" else jnp.abs(error)
    return masked_mean(values, there)


def _dense_counts(task: Task, outputs: Any, targets: Any, convention: str) -> Any:
    return dense_counts(task.kind, outputs, targets, convention=convention)


def _dense_scores(task: Task, found: Any, convention: str) -> Scores:
    return dense_scores(task.kind, found, convention=convention)


def _class_counts(task: Task, outputs: Any, targets: Any, convention: str) -> Any:
    guessed = jnp.argmax(outputs, axis=-1)
    return metrics.accuracy(guessed, targets, mask=known(task, targets))


def _class_scores(task: Task, found: Any, convention: str) -> Scores:
    return {"accuracy": found.mean}


def _binary_counts(task: Task, outputs: Any, targets: Any, convention: str) -> Any:
    logits, there = _single(task, outputs, targets), known(task, targets)
    guessed = (logits > 0).astype(jnp.int32)
    found: dict[str, Any] = {
        "confusion": metrics.confusion_matrix(guessed, targets, 2, mask=there)
    }
    if task.metric == "auc":
        found["auc"] = auc_counts(logits, targets, mask=there)
    return found


def _binary_scores(task: Task, found: Any, convention: str) -> Scores:
    confusion = found["confusion"]
    every = {
        "f1": lambda: metrics.f1_score(confusion, average="binary"),
        "accuracy": lambda: metrics.pixel_accuracy(confusion),
    }
    if "auc" in found:
        every = {"auc": lambda: auc(found["auc"]), **every}
    return {name: read() for name, read in every.items()}


def _ordinal_counts(task: Task, outputs: Any, targets: Any, convention: str) -> Any:
    level = jnp.sum(outputs > 0, axis=-1, dtype=jnp.int32)
    there = known(task, targets)
    return {
        "accuracy": metrics.accuracy(level, targets, mask=there),
        "MAE": metrics.absolute_error(level, targets, mask=there),
    }


def _ordinal_scores(task: Task, found: Any, convention: str) -> Scores:
    return {name: x.mean for name, x in found.items()}


def _regression_counts(task: Task, outputs: Any, targets: Any, convention: str) -> Any:
    there = known(task, targets)
    error = metrics.widen(_single(task, outputs, targets)) - jnp.where(
        there, targets, 0
    )
    return {
        "MAE": metrics.average_of(jnp.abs(error), there),
        "RMSE": metrics.average_of(error**2, there),
    }


def _regression_scores(task: Task, found: Any, convention: str) -> Scores:
    """In the unit of y."""
    return {
        "MAE": task.sd * found["MAE"].mean,
        "RMSE": task.sd * jnp.sqrt(found["RMSE"].mean),
    }


def _single(task: Task, outputs: Any, targets: Any) -> jax.Array:
    """Outputs `[B, 1]` as `[B]`."""
    _check(task, outputs, targets, 1)
    return outputs[..., 0]


def _check(task: Task, outputs: Any, targets: Any, size: int) -> None:
    if outputs.shape != (*targets.shape, size):
        raise ValueError(
            f"{task.name}: outputs must have shape {(*targets.shape, size)}; got "
            f"{outputs.shape}."
        )


RULES: Mapping[str, Rule] = {
    "segmentation": Rule(
        *(_cross_entropy, _dense_counts, _dense_scores),
        {"mIoU": True, "PixAcc": True},
    ),
    "depth": Rule(
        *(lambda task, y, z: depth_loss(y, z), _dense_counts, _dense_scores),
        {"AbsErr": False, "RelErr": False},
    ),
    "normals": Rule(
        *(lambda task, y, z: normal_loss(y, z), _dense_counts, _dense_scores),
        {
            **{"mean angle": False, "median angle": False},
            **{"<11.25": True, "<22.5": True, "<30": True},
        },
    ),
    "class": Rule(_cross_entropy, _class_counts, _class_scores, {"accuracy": True}),
    "binary": Rule(
        *(_binary_loss, _binary_counts, _binary_scores),
        {"auc": True, "f1": True, "accuracy": True},
    ),
    "ordinal": Rule(
        *(_ordinal_loss, _ordinal_counts, _ordinal_scores),
        {"accuracy": True, "MAE": False},
    ),
    "regression": Rule(
        *(_regression_loss, _regression_counts, _regression_scores),
        {"MAE": False, "RMSE": False},
    ),
}
