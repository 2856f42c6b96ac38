"""From the lanes of a method to axes with names, and the choice among candidates."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import NO_SHARES, SINGLE_TASK
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.engine.train import LanesResult


def method_result(
    problem: Problem,
    scales: tuple[float, ...],
    settings: Settings,
    method: str,
    run: LanesResult,
) -> MethodResult:
    """Gives the lanes of a run their axes, and chooses among the candidates."""
    num_tasks, seeds = len(problem.tasks), settings.seeds
    lanes_shape = len(settings.candidates(method)), len(scales), settings.every_seed

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

    losses = at_chosen(arrange(run.log.losses), 1)
    if method in NO_SHARES:
        own = np.full_like(losses, np.nan)
    else:
        factors = np.ones((len(scales), 1, num_tasks), np.float32)
        factors[:, 0, 0] = scales
        own = shares(at_chosen(arrange(run.log.task_weights), 1), factors)
    readings = {name: recorded(values) for name, values in run.log.readings.items()}
    return MethodResult(
        candidates=tuple(settings.candidates(method)),
        metrics=metrics,
        chosen=chosen,
        score=at_chosen(metrics[problem.reported_on][main.name], 0),
        losses=losses,
        shares=own,
        path=recorded(run.log.watched),
        readings={name: x for name, x in readings.items() if x is not None},
        compile_seconds=run.compile_seconds,
        run_seconds=run.run_seconds,
        metric=main,
    )


def choose(scores: NDArray, higher_is_better: bool = True) -> NDArray[np.int64]:
    """Index of the best `[scales]`, from scores `[candidates, scales, seeds, T]`.

    Best is the mean over seeds and tasks. A tie goes to the one that stands first.
    """
    mean = scores.mean(axis=(2, 3))
    mean = mean if higher_is_better else -mean
    return np.where(np.isnan(mean), -np.inf, mean).argmax(axis=0)


def shares(task_weights: NDArray, loss_scales: NDArray) -> NDArray:
    """Share of each unscaled task gradient in the update, summing to 1."""
    effective = task_weights * loss_scales
    with np.errstate(divide="ignore", invalid="ignore"):  # no update, no shares
        return effective / effective.sum(axis=-1, keepdims=True)
