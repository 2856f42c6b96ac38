"""The dense tasks of two photographs as a problem, for any network.

Each task has a metric of its own, in a unit and a direction of its own (MEASURES). The
engine compares tasks by one: skill, the share of the error of a constant guess that a
network removes. It is 0 for that guess, and 100 without an error.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks.studies.arch.dense import measures
from benchmarks.studies.arch.dense.as_products import as_products
from benchmarks.studies.arch.dense.measures import Outputs
from benchmarks.studies.arch.dense.photographs import (
    BANDS,
    CREDITS,
    CROP,
    NUM_CLASSES,
    Scenes,
    photographs,
)
from mtl_optax.nn import owner
from mtl_optax.study.engine.problem import Metric, Problem, stateless

BATCH = 8
# The statistics of a normalisation are an average over so many past batches, about.
MEMORY = 10

ABOUT = (
    f"Crops of {CROP} x {CROP} pixels from two photographs: columns up to "
    f"{BANDS['train'][1]} train, {BANDS['val'][0]} to {BANDS['val'][1]} choose, from "
    f"{BANDS['test'][0]} on test. Segmentation into {NUM_CLASSES} clusters of training "
    "pixels' colours; blurred luminance in place of depth, absolute error; its slopes "
    "in place of normals, one minus the cosine. Saturated pixels count nowhere. Skill "
    "is the share of the error of a constant guess from training pixels that is "
    "removed; errors are 100 % minus mIoU over the split and the classes in its "
    "targets, absolute error, and mean angle. Normalisations train with the statistics "
    "of the batch, and are evaluated with running ones, gathered over the training "
    "crops after training."
)


def problem(
    name: str,
    build: Callable[[nnx.Rngs], Any],
    about: str,
    predictions: Callable[[Any, Any], Sequence[Outputs]] = lambda net, x: (net(x),),
) -> Problem:
    """The photographs with a network.

    Args:
      name: of the network.
      build: makes it.
      about: it, for the report.
      predictions: `(network, images)` -> all outputs that are trained, the answer last;
        a task's loss is their sum.
    """
    splits = photographs()
    structure, _, fresh = _divided(_prepared(build(nnx.Rngs(0))))
    guess = measures.constant_guess(splits["train"])
    # In an order drawn once: neighbours in one batch would give it other statistics
    # than those of training.
    images = np.random.default_rng(0).permutation(splits["train"].images)
    batches = images[: len(images) // BATCH * BATCH].reshape(
        -1, BATCH, *images.shape[1:]
    )

    def network(params: Any, rest: Any) -> Any:
        return nnx.merge(structure, params, rest, copy=True)

    def losses(params: Any, batch: Scenes) -> tuple[jax.Array, ...]:
        found = [
            measures.losses(outputs, batch)
            for outputs in predictions(network(params, fresh), batch.images)
        ]
        return tuple(sum(x[1:], x[0]) for x in zip(*found, strict=True))

    def evaluate(params: Any, split: Scenes) -> dict[str, jax.Array]:
        def see(rest: Any, seen: Any) -> tuple[Any, None]:
            net = network(params, rest)
            predictions(net, seen)
            return _divided(net)[2], None

        net = network(params, lax.scan(see, fresh, batches)[0])
        net.eval()
        ours = measures.measures(predictions(net, split.images)[-1], split)
        shape = split.depth.shape[:-1]
        # Behind a barrier: XLA would compute with constants for minutes.
        hidden = lax.optimization_barrier(jax.tree.map(jnp.asarray, guess))
        constant = {k: jnp.broadcast_to(v, (*shape, len(v))) for k, v in hidden.items()}
        theirs = measures.measures(constant, split)
        skill = 1 - measures.errors(ours) / measures.errors(theirs)
        return {"skill": 100 * skill, "measure": ours}

    return stateless(
        name=f"Two photographs, {name}",
        tasks=measures.TASKS,
        splits=splits,
        init=lambda seed: nnx.state(build(nnx.Rngs(seed)), nnx.Param),
        losses=losses,
        metrics=(Metric("skill", "%"),),
        loss=measures.LOSSES,
        measures=measures.MEASURES,
        evaluate=evaluate,
        owner=owner(measures.TASKS),
        about=f"{about} {ABOUT}",
        facts={
            "crops": {k: len(x.images) for k, x in splits.items()},
            "columns": BANDS,
        },
        credits=CREDITS,
    )


def _prepared(net: Any) -> Any:
    """Convolutions that are fast here, and statistics of the last MEMORY batches."""
    for _, module in nnx.iter_graph(as_products(net)):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 1 - 1 / MEMORY
    return net


def _divided(net: Any) -> tuple[Any, Any, Any]:
    """Structure, parameters and the rest."""
    divided: Any = nnx.split(net, nnx.Param, ...)
    return divided
