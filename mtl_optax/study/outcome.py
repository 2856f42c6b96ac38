"""What one method did, with an axis for all that was varied."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.methods import NO_SHARES, SINGLE_TASK
from mtl_optax.study.problem import Problem
from mtl_optax.study.runner import Run
from mtl_optax.study.settings import Settings
from mtl_optax.study.shares import shares


class Outcome(NamedTuple):
    """What one method did; axes (candidate, scale, seed, task), time first where it is.

    Where there is no axis for candidates, it is the chosen one of each scale.
    """

    # split -> name -> [candidates, scales, seeds, T]
    metrics: dict[str, dict[str, NDArray]]
    chosen: NDArray[np.int64]  # [scales], index of the candidate
    score: NDArray  # [scales, seeds, T], the first metric on the reported split
    losses: NDArray  # [records, scales, seeds, T], before scaling
    shares: NDArray  # [records, scales, seeds, T] of the update, NaN if unknown
    path: NDArray | None  # [records, scales, seeds, ...], what the problem watches
    readings: dict[str, NDArray]  # [records, scales, seeds, ...] each, of the state
    compile_seconds: float
    run_seconds: float


def outcome_of(
    problem: Problem,
    scales: tuple[int, ...],
    settings: Settings,
    method: str,
    run: Run,
) -> Outcome:
    """Gives the lanes of a run their axes, and chooses among the candidates."""
    num_tasks, seeds = len(problem.tasks), settings.seeds
    every_seed = seeds + settings.tuning_seeds
    lanes_shape = len(settings.candidates(method)), len(scales), every_seed

    def arrange(values: NDArray) -> NDArray:
        """`[..., L, T]` as `[..., candidates, scales, seeds, T]`."""
        lead = values.shape[:-2]
        if method != SINGLE_TASK:
            return values.reshape(*lead, *lanes_shape, num_tasks)
        # Task t from the run that trained task t.
        values = values.reshape(*lead, num_tasks, *lanes_shape, num_tasks)
        own = [values[..., t, :, :, :, t] for t in range(num_tasks)]
        return np.stack(own, axis=-1)

    metrics = {
        split: {name: arrange(values) for name, values in named.items()}
        for split, named in run.metrics.items()
    }
    main = problem.metrics[0]
    tuned = metrics[problem.chosen_on][main.name]
    if settings.tuning_seeds:
        tuned = tuned[:, :, seeds:]
    if problem.chosen_by is not None:
        tuned = tuned[..., problem.chosen_by]
    chosen = choose(tuned, main.higher_is_better)
    metrics = {
        split: {name: values[:, :, :seeds] for name, values in named.items()}
        for split, named in metrics.items()
    }

    def at_chosen(values: NDArray, axis: int) -> NDArray:
        """The seeds reported, without the axis of candidates.

        It is followed by that of scales, and that by that of seeds.
        """
        values = np.moveaxis(values, (axis, axis + 1), (0, 1))
        picked = np.stack([values[best, s] for s, best in enumerate(chosen)])
        picked = np.moveaxis(picked, 0, axis)
        return np.take(picked, range(seeds), axis=axis + 1)

    def recorded(values: Any) -> NDArray | None:
        """`[records, L, ...]` as `[records, scales, seeds, ...]`, if there are any."""
        if isinstance(values, tuple) or method == SINGLE_TASK:
            return None
        steps, _, *rest = values.shape
        return at_chosen(values.reshape(steps, *lanes_shape, *rest), 1)

    record = run.record
    losses = at_chosen(arrange(record.losses), 1)
    if method in (SINGLE_TASK, *NO_SHARES):
        parts = np.full_like(losses, np.nan)
    else:
        factors = np.ones((len(scales), 1, num_tasks), np.float32)
        factors[:, 0, 0] = scales
        parts = shares(at_chosen(arrange(record.task_weights), 1), factors)
    readings = {name: recorded(values) for name, values in record.readings.items()}
    return Outcome(
        metrics=metrics,
        chosen=chosen,
        score=at_chosen(metrics[problem.reported_on][main.name], 0),
        losses=losses,
        shares=parts,
        path=recorded(record.watched),
        readings={name: x for name, x in readings.items() if x is not None},
        compile_seconds=run.compile_seconds,
        run_seconds=run.run_seconds,
    )


def choose(scores: NDArray, higher_is_better: bool = True) -> NDArray[np.int64]:
    """Index of the best `[scales]`, from scores `[candidates, scales, seeds, T]`.

    Best is the mean over seeds and tasks. A tie goes to the one that stands first.
    """
    mean = scores.mean(axis=(2, 3))
    mean = mean if higher_is_better else -mean
    return np.where(np.isnan(mean), -np.inf, mean).argmax(axis=0)
