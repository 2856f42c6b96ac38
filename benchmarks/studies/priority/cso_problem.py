"""Digits with shared convolutions that are each normalised for each task apart.

The running statistics are those of the last batch, with whose variances CSO computes
its strengths; the network is evaluated with those of STATISTICS training images
("precise" statistics).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn import TaskBatchNorm
from mtl_optax.study.data.classification import (
    accuracies,
    by_name,
    cross_entropy_of_tasks,
    digits_problem,
)
from mtl_optax.study.data.digits import CANVAS, TASKS, Split
from mtl_optax.study.data.networks import CHANNELS, Conv, linear, pool
from mtl_optax.study.engine.problem import Now, Problem

LAYERS = ("first", "second")
STATISTICS, WATCHED = 1000, 256  # training images: for accuracy, for strengths
ABOUT = (
    f"All methods share start, batches and network: two shared 3 x 3 convolutions of "
    f"{CHANNELS} channels, each followed by a batch normalisation a task, ReLU and 2 x "
    f"2 pooling; a linear head a task. Strengths take the variances of the step's "
    f"batch; accuracy is measured with the statistics of {STATISTICS} training images."
)


class ChannelCNN(nnx.Module):
    """Two shared convolutions, each normalised and pooled a task, and a head a task."""

    def __init__(self, classes: dict[str, int], *, rngs: nnx.Rngs):
        self.tasks = tuple(classes)  # in this order, which nnx.Dict does not keep
        # Without momentum the running statistics are those of the last batch.
        norm = partial(TaskBatchNorm, len(classes), CHANNELS, momentum=0.0, rngs=rngs)
        size = (CANVAS // 4) ** 2 * CHANNELS
        self.first, self.first_norm = Conv(1, CHANNELS, rngs=rngs), norm()
        self.second, self.second_norm = Conv(CHANNELS, CHANNELS, rngs=rngs), norm()
        self.heads = nnx.Dict(
            {task: linear(size, count, rngs=rngs) for task, count in classes.items()}
        )

    def __call__(self, images: Any, running: bool = False) -> list[jax.Array]:
        """Logits of each task for images `[B, 144]`."""
        shared = self.first(images.reshape(-1, CANVAS, CANVAS, 1))
        options, answers = {"use_running_average": running}, []
        for t, task in enumerate(self.tasks):
            own = pool(nnx.relu(self.first_norm(shared, task=t, **options)))
            own = self.second(own)
            own = pool(nnx.relu(self.second_norm(own, task=t, **options)))
            answers.append(self.heads[task](own.reshape(len(images), -1)))
        return answers

    def strengths(self) -> list[jax.Array]:
        """Connection strengths `[T, C]` of LAYERS, with the last batch's variances."""
        return [
            getattr(self, f"{layer}_norm").connection_strength(
                getattr(self, layer).linear.kernel[...]
            )
            for layer in LAYERS
        ]


def owner(tasks: tuple[str, ...], params: Any) -> Any:
    """The task of each head and each normalisation, None in the convolutions."""
    places = {f"['heads']['{task}']": t for t, task in enumerate(tasks)}
    for layer in LAYERS:
        places |= {f"['{layer}_norm']['norms'][{t}]": t for t in range(len(tasks))}
    return by_name(places, params)


def problem(num_tasks: int = 4) -> Problem:
    """Multi-digits with the network above."""
    plain = digits_problem(num_tasks)
    classes = {task: TASKS[task] for task in plain.tasks}
    some = plain.splits["train"].images[:STATISTICS]

    def divided(seed: int) -> Any:
        net = ChannelCNN(classes, rngs=nnx.Rngs(seed))
        return nnx.split(net, nnx.Param, ...)

    structure = divided(0)[0]

    def network(params: Any, state: Any) -> ChannelCNN:
        # The statistics anew: a call writes them, which a trace may do to its own only.
        return nnx.merge(structure, params, jax.tree.map(jnp.asarray, state))

    def after(params: Any, state: Any, images: Any) -> ChannelCNN:
        """The network with the statistics of these images."""
        made = network(params, state)
        made(images)
        return made

    def losses(params: Any, state: Any, batch: Split, now: Now) -> tuple[Any, Any]:
        del now
        made = network(params, state)
        found = cross_entropy_of_tasks(made(batch.images), batch.labels)
        return found, nnx.state(made, nnx.BatchStat)

    def strength_fn(params: Any, state: Any) -> Any:
        found = zip(LAYERS, network(params, state).strengths(), strict=True)
        places = {f"['{layer}']['linear']['kernel']": s for layer, s in found}
        return by_name(places, params)

    def evaluate(
        params: Any, state: Any, split: Split, key: Any
    ) -> dict[str, jax.Array]:
        del key
        logits = after(params, state, some)(split.images, running=True)
        return {"accuracy": accuracies(logits, split.labels)}

    return plain._replace(
        name=f"{plain.name}, normalised a task",
        init=lambda seed: divided(seed)[1:],
        losses=losses,
        evaluate=evaluate,
        owner=partial(owner, plain.tasks),
        watch=lambda params, state: jnp.stack(
            after(params, state, some[:WATCHED]).strengths()
        ),
        strength_fn=strength_fn,
        about=ABOUT,
    )
