"""Networks of their own for groups of tasks, each task served by its best one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.task_groups import served_by
from mtl_optax.study.data.blocks import truth
from mtl_optax.study.engine.methods import METHODS, SINGLE_TASK
from mtl_optax.study.engine.outcome import method_result
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Lanes
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.engine.train import LanesResult, Work, train_all
from mtl_optax.study.studies.groups.rule import JOINT, tag_groups

Networks = list[tuple[str, int, tuple[int, ...]]]  # each with its seed and its tasks


def then(
    problem: Problem, settings: Settings, results: dict[str, MethodResult]
) -> dict[str, MethodResult]:
    """Networks for the groups of TAG, and for the true blocks, at the rate of joint."""
    num_tasks = len(problem.tasks)
    if JOINT not in results or num_tasks == 2:
        return {}  # the groups of two tasks are both, or single ones: trained already
    joint = results[JOINT]
    affinity = joint.readings["affinity"][-1, 0]
    chosen = {
        "grouped": tag_groups(affinity),
        "blocks": [truth(num_tasks)] * settings.seeds,
    }
    networks = [
        (name, seed, group)
        for name, of_seeds in chosen.items()
        for seed, groups in enumerate(of_seeds)
        for group in groups
    ]
    best = joint.candidates[joint.chosen[0]]
    one = settings._replace(
        learning_rates=(best.learning_rate,), tuning_seeds=0, grids={}
    )
    run = _train(problem, one, networks)
    at = {
        name: [
            [networks.index((name, seed, groups[g])) for g in served_by(own, groups)]
            for seed, (own, groups) in enumerate(zip(affinity, of_seeds, strict=True))
        ]
        for name, of_seeds in chosen.items()
    }
    return {
        name: method_result(problem, (1,), one, name, serving(run, np.array(own)))
        for name, own in at.items()
    }


def _train(problem: Problem, settings: Settings, networks: Networks) -> LanesResult:
    """All are lanes of one program."""
    number, tasks = len(networks), np.arange(len(problem.tasks))
    lanes = Lanes(
        seed=np.array([seed for _, seed, _ in networks], np.int32),
        learning_rate=np.full(number, *settings.learning_rates),
        loss_scales=np.ones((number, len(tasks))),
        trained=np.array([np.isin(tasks, group) for *_, group in networks], float),
        settings={},
    )
    work = {"networks": Work(problem, METHODS[SINGLE_TASK], lanes)}
    return train_all(work, settings.recipe())["networks"]


def serving(run: LanesResult, at: NDArray[np.int64]) -> LanesResult:
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
