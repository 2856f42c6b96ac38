"""Lanes, and the blocks of them that are trained at once.

How XLA rounds depends on the number of lanes that a program has. So all programs of a
method have the same number, whatever else is trained beside them: those of one
candidate and a few seeds. A block then gives the same bits in a run of the whole study
and in a shard of it.
"""

from collections.abc import Callable

import jax
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.program import Lanes
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.train import LanesResult, Work

Metrics = dict[str, dict[str, NDArray]]  # split -> name -> [L, T]
SEEDS = 5  # at most in a block; 30 would be faster by a twentieth, on one core


def lanes(
    num_tasks: int, scales: tuple[float, ...], settings: Settings, method: str
) -> Lanes:
    """Candidates x scales x seeds; for single-task runs once a task, in front."""
    owners = range(num_tasks) if method == SINGLE_TASK else range(1)
    grid = [
        (owner, candidate, scale, seed)
        for owner in owners
        for candidate in settings.candidates(method)
        for scale in scales
        for seed in range(settings.every_seed)
    ]
    owner, candidates, scale, seed = zip(*grid, strict=True)
    loss_scales = np.ones((len(grid), num_tasks))
    loss_scales[:, 0] = scale
    return Lanes(
        seed=np.asarray(seed, np.int32),
        learning_rate=np.array([x.learning_rate for x in candidates]),
        loss_scales=loss_scales,
        trained=np.eye(num_tasks)[list(owner)],
        settings={
            name: np.array([x.settings[name] for x in candidates])
            for name in candidates[0].settings
        },
    )


def seeds_of(settings: Settings) -> NDArray[np.int64]:
    """Those of each block of a candidate; the last one is repeated to fill the last."""
    every = settings.every_seed
    number = -(-every // SEEDS)
    each = -(-every // number)
    return np.minimum(np.arange(number * each), every - 1).reshape(number, each)


def blocks(
    scales: tuple[float, ...], settings: Settings, method: str, num_lanes: int
) -> NDArray[np.int64]:
    """Numbers of lanes `[B, size]`: candidates, and of each its groups of seeds."""
    axes = len(settings.candidates(method)), len(scales), settings.every_seed
    grid = np.arange(num_lanes).reshape(-1, *axes)[..., seeds_of(settings)]
    grid = np.moveaxis(grid, (1, 3), (0, 1))  # [candidates, groups, owners, scales, -]
    return grid.reshape(axes[0] * grid.shape[1], -1)


def in_order(run: LanesResult, work: Work) -> LanesResult:
    """From block by block to lane by lane."""
    blocks = np.asarray(work.blocks)
    place = np.empty(len(work.lanes.seed), np.int64)
    place[blocks.ravel()] = np.arange(blocks.size)
    log = jax.tree.map(lambda x: x[:, place], run.log)
    return run._replace(log=log, metrics=each_metric(lambda x: x[place], run.metrics))


def each_metric(function: Callable[..., NDArray], *every: Metrics) -> Metrics:
    """Like `jax.tree.map`, which would sort splits and names."""
    return {
        split: {name: function(*(x[split][name] for x in every)) for name in named}
        for split, named in every[0].items()
    }
