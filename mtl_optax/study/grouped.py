"""Networks of their own for groups of tasks, each task served by its best one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.task_groups import served_by
from mtl_optax.study import runner
from mtl_optax.study.methods import SINGLE_TASK
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Lanes
from mtl_optax.study.settings import Settings
from mtl_optax.study.starts import prepare
from mtl_optax.study.verdicts.groups import Groups


class Division(NamedTuple):
    """Which networks a run trains, and which of them answers for each task."""

    groups: Groups
    serving: tuple[int, ...]  # [T], indices into groups


def division(affinity: NDArray, groups: Groups) -> Division:
    """By the affinity `[T, T]`, where a task is in several groups."""
    return Division(groups, served_by(affinity, groups))


def train(
    problem: Problem,
    settings: Settings,
    learning_rate: float,
    work: dict[str, list[Division]],
) -> dict[str, Outcome]:
    """Name -> what these divisions, one a seed, score. All are lanes of one program."""
    seeds, num_tasks = settings.seeds, len(problem.tasks)
    networks = [
        (name, seed, group)
        for name, divisions in work.items()
        for seed, chosen in enumerate(divisions)
        for group in chosen.groups
    ]
    tasks = range(num_tasks)
    lanes = Lanes(
        seed=np.array([seed for _, seed, _ in networks], np.int32),
        learning_rate=np.full(len(networks), learning_rate),
        loss_scales=np.ones((len(networks), num_tasks)),
        trained=np.array([[float(t in g) for t in tasks] for *_, g in networks]),
        settings={},
    )
    recipe = settings.recipe()
    common = prepare(problem, list(range(seeds)), recipe)
    run = runner.train(
        problem, SINGLE_TASK, lanes, common, recipe, lambda *progress: None
    )

    def outcome(name: str) -> Outcome:
        at = np.array(
            [
                [networks.index((name, seed, chosen.groups[g])) for g in chosen.serving]
                for seed, chosen in enumerate(work[name])
            ]
        )  # [seeds, T], the network that serves

        def served(values: NDArray) -> NDArray:
            """`[..., L, T]` as `[..., 1, seeds, T]`."""
            return values[..., at, np.arange(num_tasks)][..., None, :, :]

        metrics = {
            split: {metric: served(values)[None] for metric, values in named.items()}
            for split, named in run.metrics.items()
        }
        losses = served(run.record.losses)
        return Outcome(
            metrics=metrics,
            chosen=np.zeros(1, np.int64),
            score=metrics[problem.reported_on][problem.metrics[0].name][0],
            losses=losses,
            shares=np.full_like(losses, np.nan),
            path=None,
            readings={},
            compile_seconds=run.compile_seconds,
            run_seconds=run.run_seconds,
        )

    return {name: outcome(name) for name in work}
