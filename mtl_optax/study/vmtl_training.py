"""How the study of VMTL trains: what each seed sees, and the lanes of an arm."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mtl_optax.nn import same_class_inputs
from mtl_optax.study import domains
from mtl_optax.study.domains import Examples
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Lanes, Recipe, Record
from mtl_optax.study.runner import Run, Tick
from mtl_optax.study.vmtl_arms import ARMS, run

OF_EACH = 2  # examples of each digit in a batch, for each domain


class Data(NamedTuple):
    """What the seeds train on."""

    train: Examples  # [seeds, 4, N, ...]
    surrogates: Array  # [seeds, 4, 3, N, 64]
    batches: Array  # [seeds, steps, 4, B]


def train_all(
    share: float,
    problem: Problem,
    work: dict[str, Lanes],
    recipe: Recipe,
    tick: Tick,
    store: Any = None,
) -> dict[str, Run]:
    """In place of `runner.train_all`: with keys, and a state beside the parameters.

    Nothing is stored: an arm is trained in one go.
    """
    del store
    seeds = max(int(lanes.seed.max()) for lanes in work.values()) + 1
    data = draw(share, seeds, recipe.steps)
    runs = {}
    for arm, lanes in work.items():
        tick(arm, "compiling", 0)
        start = time.perf_counter()
        every = jax.vmap(partial(run, ARMS[arm], recipe), in_axes=(0, None, None))
        splits = {name: problem.splits[name] for name in ("val", "test")}
        arguments = jax.tree.map(jnp.asarray, (lanes, data, splits))
        compiled = jax.jit(every).lower(*arguments).compile()
        middle = time.perf_counter()
        tick(arm, "training", 0)
        losses, readings, metrics = jax.tree.map(np.asarray, compiled(*arguments))
        losses = losses.swapaxes(0, 1)[recipe.record_every - 1 :: recipe.record_every]
        record = Record(
            losses=losses,
            task_weights=np.full_like(losses, np.nan),
            watched=(),
            readings={name: x[None] for name, x in readings.items()},
        )
        end = time.perf_counter()
        runs[arm] = Run(record, metrics, middle - start, end - middle)
        tick(arm, "training", recipe.steps)
    return runs


def draw(share: float, seeds: int, steps: int) -> Data:
    """Of each seed its labelled scans, and its batches."""
    scans = domains.four_domains()
    found = [domains.labelled(scans, share, seed) for seed in range(seeds)]
    train = jax.tree.map(lambda *x: jnp.stack(x), *[own for own, _ in found])
    return Data(
        train,
        jax.lax.map(surrogates, train),
        jnp.stack(
            [
                domains.batches(counts, steps, OF_EACH, seed)
                for seed, (_, counts) in enumerate(found)
            ]
        ),
    )


def surrogates(train: Examples) -> Array:
    """`[4, 3, N, 64]`."""
    pairs = list(zip(train.features, train.digits, strict=True))
    return jnp.stack(
        [
            same_class_inputs(*pair, [*pairs[:d], *pairs[d + 1 :]]).inputs
            for d, pair in enumerate(pairs)
        ]
    )
