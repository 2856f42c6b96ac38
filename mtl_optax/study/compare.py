"""Methods compared on one problem: what a study is, and how it is run.

A study is a value: a problem, loss scales, settings, and a judge that turns scores into
words. Learning rates, scales and seeds are lanes of one program a method.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mtl_optax.study import runner
from mtl_optax.study.checkpoints import Checkpoints
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.outcome import Outcome, outcome_of
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Lanes
from mtl_optax.study.settings import Candidate, Settings


class Judgement(NamedTuple):
    """What a study says in words."""

    verdicts: dict[str, str]  # method -> one word or two, for the table
    sentences: dict[str, str]  # method -> the verdict with its numbers
    statement: str  # on all methods together


class Shown(NamedTuple):
    """A table that a study shows beside the scores."""

    title: str
    note: str
    head: list[str]
    rows: list[tuple[str, list[str]]]


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
    extra: tuple[str, ...] = ()  # methods that only its problem can be trained with
    tables: tuple[Callable[["Results"], Shown | None], ...] = ()  # after the scores
    # Trains the methods, for a study with a loop of its own
    train: Callable[..., dict[str, runner.Run]] = runner.train_all
    # Trains what depends on the runs of the methods: their outcomes -> more outcomes
    then: Callable[[Problem, Settings, dict[str, Outcome]], dict[str, Outcome]] = (
        lambda problem, settings, outcomes: {}
    )


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

    def chosen(self, method: str) -> list[Candidate]:
        """The one of each scale."""
        candidates = self.settings.candidates(method)
        return [candidates[index] for index in self.outcomes[method].chosen]


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
    runs = study.train(problem, work, settings.recipe(), tick, store)
    outcomes = {
        name: outcome_of(problem, study.scales, settings, name, run)
        for name, run in runs.items()
    }
    outcomes |= study.then(problem, settings, outcomes)
    judgement = study.judge(outcomes, problem.tasks)
    for name, outcome in outcomes.items():
        judgement.sentences[name] += divergence(outcome)
    return Results(study, problem, settings, outcomes, judgement)


def lanes(
    num_tasks: int, scales: tuple[int, ...], settings: Settings, method: str
) -> Lanes:
    """Candidates x scales x seeds; for single-task runs once a task, in front."""
    owners = range(num_tasks) if method == SINGLE_TASK else range(1)
    grid = [
        (owner, candidate, scale, seed)
        for owner in owners
        for candidate in settings.candidates(method)
        for scale in scales
        for seed in range(settings.seeds + settings.tuning_seeds)
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


def divergence(outcome: Outcome) -> str:
    """Says how many runs at the chosen rates ended in NaN or infinity; mostly ""."""
    finite = np.isfinite(outcome.losses[-1]).all(axis=-1)  # [scales, seeds]
    if finite.all():
        return ""
    return f" {(~finite).sum()} of its {finite.size} runs diverged."
