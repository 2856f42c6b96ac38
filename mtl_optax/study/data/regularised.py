"""Multi-digits with dropout, and with the loss on training data as a metric.

Dropout is a setting of a run: one program has all of its rates. Nothing is dropped in
evaluation, neither of the split "fit", which is of training images.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_optax.study.data.classification import (
    ABOUT,
    CROSS_ENTROPY,
    accuracies,
    classification,
    cross_entropy_of_tasks,
)
from mtl_optax.study.data.digits import TASKS, Split, multi_digits
from mtl_optax.study.data.networks import linear, trunk
from mtl_optax.study.engine.problem import Now, Problem

FIT = 1000  # training images on which the training loss is measured
LOSS = CROSS_ENTROPY._replace(name="loss")
ABOUT_FIT = (
    f"Losses are cross-entropies without dropout; the training loss is that of {FIT} "
    "training images (split fit)."
)


class GroupedMLP(nnx.Module):
    """A trunk for each group of tasks; one group of all is `MultiTaskMLP`."""

    def __init__(
        self,
        classes: dict[str, int],
        groups: tuple[tuple[str, ...], ...] = (),
        width: int = 64,
        *,
        rngs: nnx.Rngs,
    ):
        """No groups: one of all tasks."""
        self.groups = groups or (tuple(classes),)
        self.trunks = nnx.List([trunk(width, rngs=rngs) for _ in self.groups])
        self.heads = nnx.Dict(
            {task: linear(width, count, rngs=rngs) for task, count in classes.items()}
        )

    def __call__(
        self,
        images: jax.Array,
        drop: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> dict[str, jax.Array]:
        """Logits of each task; `drop` takes a hidden layer's number and its units."""
        found: dict[str, jax.Array] = {}
        for g, (own, tasks) in enumerate(zip(self.trunks, self.groups, strict=True)):
            hidden = images
            for depth, layer in enumerate(pairs(own)):
                hidden = nnx.relu(layer(hidden))
                hidden = hidden if drop is None else drop(2 * g + depth, hidden)
            found |= {task: self.heads[task](hidden) for task in tasks}
        return found


def pairs(own: nnx.Sequential) -> Iterator[Any]:
    """The linear layers of a trunk."""
    return iter(own.layers[::2])


def dropped(key: jax.Array, rate: Any, layer: int, units: jax.Array) -> jax.Array:
    """A share of them 0, the others larger: the mean stays. The rate may be traced."""
    kept = jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, units.shape)
    return jnp.where(kept, units / (1 - rate), 0)


def regularised_digits(
    num_tasks: int,
    train_scans: int | None = None,
    groups: tuple[tuple[str, ...], ...] = (),
    width: int = 64,
) -> Problem:
    """Multi-digits; `losses` takes the setting `dropout`, None for none.

    Args:
      num_tasks: the first of TASKS.
      train_scans: as for `multi_digits`.
      groups: of tasks that share a trunk; none: all share one.
      width: of the trunk's last layer; 64 is that of the other studies.
    """
    classes = dict(list(TASKS.items())[:num_tasks])
    splits = multi_digits(num_tasks, train_scans=train_scans)
    splits["fit"] = Split(splits["train"].images[:FIT], splits["train"].labels[:FIT])
    build = partial(GroupedMLP, groups=groups, width=width)
    plain = classification(
        f"Multi-digits, T={num_tasks}", classes, splits, build, f"{ABOUT} {ABOUT_FIT}"
    )
    structure = nnx.split(nnx.eval_shape(lambda: build(classes, rngs=nnx.Rngs(0))))[0]

    def logits(params: Any, images: Any, drop: Any = None) -> list[jax.Array]:
        answers = nnx.merge(structure, params)(images, drop)
        return [answers[task] for task in classes]

    def losses(
        params: Any, state: Any, batch: Split, now: Now, dropout: Any = None
    ) -> tuple[tuple[jax.Array, ...], Any]:
        drop = None if dropout is None else partial(dropped, now.key, dropout)
        answers = logits(params, batch.images, drop)
        return cross_entropy_of_tasks(answers, batch.labels), state

    def evaluate(
        params: Any, state: Any, split: Split, key: jax.Array
    ) -> dict[str, jax.Array]:
        del state, key
        answers = logits(params, split.images)
        # Not by one-hot labels: see benchmarks/studies/towers/problem.py.
        of_each = optax.softmax_cross_entropy_with_integer_labels
        pairs = zip(answers, split.labels.T, strict=True)
        loss = jnp.stack([jnp.mean(of_each(z, y)) for z, y in pairs])
        return {"accuracy": accuracies(answers, split.labels), "loss": loss}

    return plain._replace(
        losses=losses,
        evaluate=evaluate,
        metrics=(*plain.metrics, LOSS),
        loss_settings=("dropout",),
    )
