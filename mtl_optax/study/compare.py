"""Methods compared on one problem: what a study is, and how it is run.

A study is a value: a problem, loss scales, methods, and a judge that turns accuracies
into words. Learning rates, scales and seeds are lanes of one program a method. The rate
is chosen on validation data, for each method and scale; test data choose nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study import runner
from mtl_optax.study.checkpoints import Checkpoints
from mtl_optax.study.methods import OPTIMIZERS, SINGLE_TASK
from mtl_optax.study.model import digits_problem
from mtl_optax.study.programs import Lanes, Recipe
from mtl_optax.study.verdicts import shares


class Settings(NamedTuple):
    """What a run of a study is made of."""

    methods: tuple[str, ...]
    seeds: int = 5
    steps: int = 1000
    learning_rates: tuple[float, ...] = (OPTIMIZERS["adam"].learning_rate,)
    optimizer: str = "adam"
    quick: bool = False


class Outcome(NamedTuple):
    """What one method did; axes (rate, scale, seed, task), time first where it is.

    Where there is no axis for the rate, it is the chosen one of each scale.
    """

    every_accuracy: dict[str, NDArray]  # split -> [rates, scales, seeds, T], percent
    chosen: NDArray[np.int64]  # [scales], index of the rate
    accuracy: dict[str, NDArray]  # split -> [scales, seeds, T], percent
    losses: NDArray  # [steps, scales, seeds, T], before scaling
    shares: NDArray  # [steps, scales, seeds, T] of the update, NaN if unknown
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
    num_tasks: int
    scales: tuple[int, ...]  # factors on the loss of the first task; the first is 1
    methods: tuple[str, ...]
    quick_methods: tuple[str, ...]
    figures: tuple[str, ...]  # names of functions in plots.py
    rules: tuple[str, ...]
    judge: Callable[[dict[str, Outcome], tuple[str, ...]], Judgement]

    def settings(self, quick: bool = False) -> Settings:
        """The study as it stands, or its smoke run."""
        if quick:
            return Settings(self.quick_methods, seeds=2, steps=300, quick=True)
        return Settings(self.methods)


class Results(NamedTuple):
    """Everything that a report shows."""

    study: Study
    settings: Settings
    tasks: tuple[str, ...]
    outcomes: dict[str, Outcome]
    judgement: Judgement


def run(
    study: Study,
    settings: Settings,
    tick: runner.Tick = lambda method, stage, done: None,
    store: Checkpoints | None = None,
) -> Results:
    """Trains all methods and judges them; `tick` and `store` as in `runner.train`."""
    problem = digits_problem(study.num_tasks)
    work = {name: lanes(study, settings, name) for name in settings.methods}
    recipe = Recipe(settings.steps, settings.optimizer)
    runs = runner.train_all(problem, work, recipe, tick, store)
    outcomes = {name: _outcome(study, settings, name, runs[name]) for name in runs}
    judgement = study.judge(outcomes, problem.tasks)
    for name, outcome in outcomes.items():
        judgement.sentences[name] += _divergence(outcome)
    return Results(study, settings, problem.tasks, outcomes, judgement)


def lanes(study: Study, settings: Settings, method: str) -> Lanes:
    """Rates x scales x seeds; for single-task runs once for each task, in front."""
    num_tasks = study.num_tasks
    owners = range(num_tasks) if method == SINGLE_TASK else range(1)
    grid = [
        (owner, rate, scale, seed)
        for owner in owners
        for rate in settings.learning_rates
        for scale in study.scales
        for seed in range(settings.seeds)
    ]
    owner, rate, scale, seed = map(np.asarray, zip(*grid, strict=True))
    loss_scales = np.ones((len(grid), num_tasks), np.float32)
    loss_scales[:, 0] = scale
    return Lanes(
        seed=seed.astype(np.int32),
        learning_rate=rate.astype(np.float32),
        loss_scales=loss_scales,
        own_task=np.eye(num_tasks, dtype=np.float32)[owner],
    )


def choose(validation: NDArray) -> NDArray[np.int64]:
    """Index of the best rate `[scales]`, from accuracies `[rates, scales, seeds, T]`.

    Best is the mean over seeds and tasks. A tie goes to the rate that stands first.
    """
    return validation.mean(axis=(2, 3)).argmax(axis=0)


def _divergence(outcome: Outcome) -> str:
    """Says how many runs at the chosen rates ended in NaN or infinity; mostly ""."""
    finite = np.isfinite(outcome.losses[-1]).all(axis=-1)  # [scales, seeds]
    if finite.all():
        return ""
    return f" {(~finite).sum()} of its {finite.size} runs diverged."


def _outcome(study: Study, settings: Settings, method: str, run: runner.Run) -> Outcome:
    num_tasks, num_scales = study.num_tasks, len(study.scales)
    shape = len(settings.learning_rates), num_scales, settings.seeds, num_tasks

    def arrange(values: NDArray) -> NDArray:
        """`[..., L, T]` as `[..., rates, scales, seeds, T]`."""
        lead = values.shape[:-2]
        if method != SINGLE_TASK:
            return values.reshape(*lead, *shape)
        # Task t from the run that trained task t.
        values = values.reshape(*lead, num_tasks, *shape)
        own = [values[..., t, :, :, :, t] for t in range(num_tasks)]
        return np.stack(own, axis=-1)

    every = {split: arrange(values) for split, values in run.accuracy.items()}
    chosen = choose(every["val"])

    def at_chosen(values: NDArray) -> NDArray:
        """`[..., rates, scales, seeds, T]` without the rates."""
        picked = [values[..., rate, s, :, :] for s, rate in enumerate(chosen)]
        return np.stack(picked, axis=-3)

    losses = at_chosen(arrange(run.losses))
    if method == SINGLE_TASK:
        parts = np.full_like(losses, np.nan)
    else:
        factors = np.ones(shape[1:], np.float32)
        factors[..., 0] = np.asarray(study.scales)[:, None]
        parts = shares(at_chosen(arrange(run.task_weights)), factors)
    return Outcome(
        every_accuracy=every,
        chosen=chosen,
        accuracy={split: at_chosen(values) for split, values in every.items()},
        losses=losses,
        shares=parts,
        compile_seconds=run.compile_seconds,
        run_seconds=run.run_seconds,
    )
