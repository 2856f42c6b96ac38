"""Networks of their own for groups of tasks, each task served by its best one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.groups.blocks import Groups, truth
from benchmarks.studies.groups.rule import JOINT, tag_groups
from mtl_optax.analysis.task_groups import served_by
from mtl_optax.study.engine.methods import METHODS, SINGLE_TASK
from mtl_optax.study.engine.outcome import method_result
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Lanes
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.engine.train import LanesResult, Work, train_all

Network = tuple[int, tuple[int, ...]]  # its seed and its tasks


def then(
    problem: Problem, settings: Settings, results: dict[str, MethodResult]
) -> dict[str, MethodResult]:
    """Networks for the groups of TAG, and for the true blocks, at the rate of joint."""
    num_tasks = len(problem.tasks)
    if JOINT not in results or num_tasks == 2:
        return {}  # the groups of two tasks are both, or single ones: trained already
    joint = results[JOINT]
    affinity = joint.readings["affinity"][-1, 0]
    rate = joint.candidates[joint.chosen[0]].learning_rate
    settings = settings._replace(learning_rates=(rate,), tuning_seeds=0, grids={})
    chosen = {
        "grouped": tag_groups(affinity),
        "blocks": [truth(num_tasks)] * settings.seeds,
    }
    served = {name: serving(affinity, groups) for name, groups in chosen.items()}
    every = (x for of_seeds in served.values() for row in of_seeds for x in row)
    networks = list(dict.fromkeys(every))
    run = _train(problem, settings, networks)
    return {
        name: method_result(
            *(problem, (1,), settings, name),
            _as_method(
                run, np.array([[networks.index(x) for x in row] for row in rows])
            ),
        )
        for name, rows in served.items()
    }


def serving(affinity: NDArray, groups: list[Groups]) -> list[list[Network]]:
    """The network of each task `[seeds][T]`, by the affinity `[seeds, T, T]`."""
    pairs = enumerate(zip(affinity, groups, strict=True))
    return [[(seed, own[g]) for g in served_by(x, own)] for seed, (x, own) in pairs]


def _train(
    problem: Problem, settings: Settings, networks: list[Network]
) -> LanesResult:
    """All are lanes of one program."""
    number, tasks = len(networks), np.arange(len(problem.tasks))
    (rate,) = settings.learning_rates
    lanes = Lanes(
        seed=np.array([seed for seed, _ in networks], np.int32),
        learning_rate=np.full(number, rate),
        loss_scales=np.ones((number, len(tasks))),
        trained=np.array([np.isin(tasks, group) for _, group in networks], float),
        settings={},
    )
    work = {"networks": Work(problem, METHODS[SINGLE_TASK], lanes)}
    return train_all(work, settings.recipe())["networks"]


def _as_method(run: LanesResult, at: NDArray[np.int64]) -> LanesResult:
    """A lane a seed, each task from the network `at` `[seeds, T]` that serves it."""

    def served(values: Any) -> Any:
        return values[..., at, np.arange(at.shape[1])]

    metrics = {
        split: {name: served(values) for name, values in named.items()}
        for split, named in run.metrics.items()
    }
    losses = served(run.log.losses)
    unknown = np.full_like(losses, np.nan)
    log = run.log._replace(losses=losses, task_weights=unknown, readings={})
    return run._replace(log=log, metrics=metrics)
