"""Connection strength on digits: which channels belong to whom, and what that is worth.

A small convolutional network whose shared layers are each followed by a normalisation
of each task's own. Running statistics would be a state beside the parameters. Here
strengths take the variances of the step's own batch in their place, and the network is
evaluated with those of STATISTICS training images ("precise" statistics).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.analysis import metrics
from mtl_optax.study.blocks import CHANNELS
from mtl_optax.study.channel_cnn import LAYERS, ChannelCNN, owners_by_name
from mtl_optax.study.compare import Study
from mtl_optax.study.data import (
    CREDITS,
    NUM_IMAGES,
    NUM_SCANS,
    TASKS,
    Split,
    multi_digits,
)
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.channels import channels
from mtl_optax.study.figures.differences import differences
from mtl_optax.study.model import cross_entropy
from mtl_optax.study.problem import Metric, Problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.verdicts.channels import EPOCHS, RULE, judge

STATISTICS = 1000  # training images


def problem(num_tasks: int = 4) -> Problem:
    """Multi-digits with the network above."""
    classes = dict(list(TASKS.items())[:num_tasks])
    splits = multi_digits(num_tasks)
    some = splits["train"].images[:STATISTICS]
    whole: Any = nnx.split(ChannelCNN(classes, rngs=nnx.Rngs(0)), nnx.Param, ...)
    structure, _, fresh = whole

    def network(params: Any) -> ChannelCNN:
        # The statistics anew: a call writes them, which a trace may do to its own only.
        return nnx.merge(structure, params, jax.tree.map(jnp.asarray, fresh))

    def after(params: Any, images: Any) -> ChannelCNN:
        """The network with the statistics of these images."""
        made = network(params)
        made(images)
        return made

    def strength_fn(params: Any, batch: Split) -> Any:
        found = after(params, batch.images).strengths()
        places = {
            f"['{layer}']['linear']['kernel']": s
            for layer, s in zip(LAYERS, found, strict=True)
        }

        def at(path: Any, _: Any) -> jax.Array | None:
            name = jax.tree_util.keystr(path)
            return next((s for at, s in places.items() if name.startswith(at)), None)

        return jax.tree_util.tree_map_with_path(at, params)

    def losses(params: Any, batch: Split) -> tuple[jax.Array, ...]:
        logits = network(params)(batch.images)
        return tuple(
            cross_entropy(z, y) for z, y in zip(logits, batch.labels.T, strict=True)
        )

    def evaluate(params: Any, split: Split) -> dict[str, jax.Array]:
        logits = after(params, some)(split.images, running=True)
        hits = [
            metrics.accuracy(jnp.argmax(z, axis=-1), y).mean
            for z, y in zip(logits, split.labels.T, strict=True)
        ]
        return {"accuracy": 100 * jnp.stack(hits)}

    return Problem(
        name=f"Multi-digits, T={num_tasks}, normalised a task",
        tasks=tuple(classes),
        splits=splits,
        init=lambda seed: nnx.state(
            ChannelCNN(classes, rngs=nnx.Rngs(seed)), nnx.Param
        ),
        losses=losses,
        metrics=(Metric("accuracy", "%"),),
        evaluate=evaluate,
        owner=partial(owners_by_name, tuple(classes)),
        watch=lambda params: jnp.stack(after(params, some[:256]).strengths()),
        strength_fn=strength_fn,
        about=f"All methods share start, batches and network: two shared 3 x 3 "
        f"convolutions of {CHANNELS} channels, each followed by a batch normalisation "
        f"a task, ReLU and 2 x 2 pooling; a linear head a task. Strengths take the "
        f"variances of the step's batch; accuracy is measured with the statistics of "
        f"{STATISTICS} training images.",
        facts={"scans": NUM_SCANS, "images": NUM_IMAGES},
        credits=CREDITS,
    )


_SETTINGS = Settings(
    ("unitary", "pcgrad", "cso_phase_1", "cso_phase_2", "cso"),
    steps=400,
    learning_rates=(3e-3,),
    # On shared parameters phase 1 counts a step a task: a schedule would end early.
    schedule="constant",
    points=40,
    grids={"cso": {"total_epochs": (EPOCHS,)}},
)

STUDY = Study(
    name="cso",
    title="Channels and their tasks",
    question="Two digits overlap in each image; four tasks share two convolutions. "
    "First each task steps in turn, later each channel keeps what the task learned "
    "that depends on it most. What is each phase worth, and who owns which channels?",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(
        methods=("unitary", "cso"),
        seeds=2,
        steps=40,
        points=4,
        grids={"cso": {"total_epochs": (1.0,)}},
        quick=True,
    ),
    figures=(accuracy, differences, channels),
    rules=(RULE,),
    judge=judge,
    has_single_task=False,
    extra=("cso_phase_1", "cso_phase_2", "cso"),
)
