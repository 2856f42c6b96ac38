"""Methods compared on one problem: what a study is, and how it is run.

A study is a value: a problem, loss scales, settings, and a judge that turns scores into
words. Learning rates, scales and seeds are lanes of one program a method. The rate is
chosen on validation data, for each method and scale, with the seeds that are reported
or with others (`tuning_seeds`); test data choose nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study import runner
from mtl_optax.study.checkpoints import Checkpoints
from mtl_optax.study.methods import BASELINE, NO_SHARES, OPTIMIZERS, SINGLE_TASK
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Lanes, Recipe
from mtl_optax.study.shares import shares


class Settings(NamedTuple):
    """What a run of a study is made of."""

    methods: tuple[str, ...]
    seeds: int = 5
    tuning_seeds: int = 0  # further seeds, on which the rate is chosen; 0: on the same
    steps: int = 1000
    learning_rates: tuple[float, ...] = (OPTIMIZERS["adam"].learning_rate,)
    optimizer: str = "adam"
    schedule: str = "cosine"
    batch_size: int = 64
    points: int | None = None  # records to keep, about; None keeps every step
    quick: bool = False

    def recipe(self) -> Recipe:
        """For the runner."""
        most = 1 if self.points is None else max(1, self.steps // self.points)
        every = max(n for n in range(1, most + 1) if self.steps % n == 0)
        return Recipe(self.steps, self.optimizer, self.schedule, self.batch_size, every)


class Outcome(NamedTuple):
    """What one method did; axes (rate, scale, seed, task), time first where it is.

    Where there is no axis for the rate, it is the chosen one of each scale.
    """

    metrics: dict[str, dict[str, NDArray]]  # split -> name -> [rates, scales, seeds, T]
    chosen: NDArray[np.int64]  # [scales], index of the rate
    score: NDArray  # [scales, seeds, T], the first metric on the reported split
    losses: NDArray  # [records, scales, seeds, T], before scaling
    shares: NDArray  # [records, scales, seeds, T] of the update, NaN if unknown
    path: NDArray | None  # [records, scales, seeds, ...], what the problem watches
    compile_seconds: float
    run_seconds: float


class Judgement(NamedTuple):
    """What a study says in words."""

    verdicts: dict[str, str]  # method -> one word or two, for the table
    sentences: dict[str, str]  # method -> the verdict with its numbers
    statement: str  # on all methods together


class Study(NamedTuple):
    """All that tells one study from another."""

    name: str
    title: str
    question: str
    problem: Callable[[], Problem]
    settings: Settings
    quick: Settings  # the smoke run
    figures: tuple[Callable[["Results"], Any], ...]  # see figures/
    rules: tuple[str, ...]
    judge: Callable[[dict[str, Outcome], tuple[str, ...]], Judgement]
    scales: tuple[int, ...] = (1,)  # factors on the loss of the first task
    baseline: str = BASELINE  # whose runs the others are paired with
    has_single_task: bool = True  # whether single_task can be among the methods


class Results(NamedTuple):
    """Everything that a report shows."""

    study: Study
    problem: Problem
    settings: Settings
    outcomes: dict[str, Outcome]
    judgement: Judgement

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names."""
        return self.problem.tasks


def run(
    study: Study,
    settings: Settings,
    tick: runner.Tick = lambda method, stage, done: None,
    store: Checkpoints | None = None,
) -> Results:
    """Trains all methods and judges them; `tick` and `store` as in `runner.train`."""
    problem = study.problem()
    work = {
        name: lanes(len(problem.tasks), study.scales, settings, name)
        for name in settings.methods
    }
    runs = runner.train_all(problem, work, settings.recipe(), tick, store)
    outcomes = {
        name: _outcome(study, problem, settings, name, run)
        for name, run in runs.items()
    }
    judgement = study.judge(outcomes, problem.tasks)
    for name, outcome in outcomes.items():
        judgement.sentences[name] += _divergence(outcome)
    return Results(study, problem, settings, outcomes, judgement)


def lanes(
    num_tasks: int, scales: tuple[int, ...], settings: Settings, method: str
) -> Lanes:
    """Rates x scales x seeds; for single-task runs once for each task, in front."""
    owners = range(num_tasks) if method == SINGLE_TASK else range(1)
    grid = [
        (owner, rate, scale, seed)
        for owner in owners
        for rate in settings.learning_rates
        for scale in scales
        for seed in range(settings.seeds + settings.tuning_seeds)
    ]
    owner, rate, scale, seed = map(np.asarray, zip(*grid, strict=True))
    loss_scales = np.ones((len(grid), num_tasks))
    loss_scales[:, 0] = scale
    return Lanes(seed.astype(np.int32), rate, loss_scales, np.eye(num_tasks)[owner])


def choose(scores: NDArray, higher_is_better: bool = True) -> NDArray[np.int64]:
    """Index of the best rate `[scales]`, from scores `[rates, scales, seeds, T]`.

    Best is the mean over seeds and tasks. A tie goes to the rate that stands first.
    """
    mean = scores.mean(axis=(2, 3))
    mean = mean if higher_is_better else -mean
    return np.where(np.isnan(mean), -np.inf, mean).argmax(axis=0)


def _divergence(outcome: Outcome) -> str:
    """Says how many runs at the chosen rates ended in NaN or infinity; mostly ""."""
    finite = np.isfinite(outcome.losses[-1]).all(axis=-1)  # [scales, seeds]
    if finite.all():
        return ""
    return f" {(~finite).sum()} of its {finite.size} runs diverged."


def _outcome(
    study: Study, problem: Problem, settings: Settings, method: str, run: runner.Run
) -> Outcome:
    num_tasks, seeds = len(problem.tasks), settings.seeds
    every_seed = seeds + settings.tuning_seeds
    lanes_shape = len(settings.learning_rates), len(study.scales), every_seed

    def arrange(values: NDArray) -> NDArray:
        """`[..., L, T]` as `[..., rates, scales, seeds, T]`."""
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
    chosen = choose(tuned, main.higher_is_better)
    metrics = {
        split: {name: values[:, :, :seeds] for name, values in named.items()}
        for split, named in metrics.items()
    }

    def at_chosen(values: NDArray, rates_axis: int) -> NDArray:
        """The seeds reported, without the axis of rates, which that of scales follows.

        That of seeds stands behind both.
        """
        values = np.moveaxis(values, (rates_axis, rates_axis + 1), (0, 1))
        picked = np.stack([values[rate, s] for s, rate in enumerate(chosen)])
        picked = np.moveaxis(picked, 0, rates_axis)
        return np.take(picked, range(seeds), axis=rates_axis + 1)

    record = run.record
    losses = at_chosen(arrange(record.losses), 1)
    if method in (SINGLE_TASK, *NO_SHARES):
        parts = np.full_like(losses, np.nan)
    else:
        factors = np.ones((len(study.scales), 1, num_tasks), np.float32)
        factors[:, 0, 0] = study.scales
        parts = shares(at_chosen(arrange(record.task_weights), 1), factors)
    path = None
    if not isinstance(record.watched, tuple) and method != SINGLE_TASK:
        steps, _, *rest = record.watched.shape
        path = at_chosen(record.watched.reshape(steps, *lanes_shape, *rest), 1)
    return Outcome(
        metrics=metrics,
        chosen=chosen,
        score=at_chosen(metrics[problem.reported_on][main.name], 0),
        losses=losses,
        shares=parts,
        path=path,
        compile_seconds=run.compile_seconds,
        run_seconds=run.run_seconds,
    )
