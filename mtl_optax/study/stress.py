"""Loss-scale stress: what becomes of a method when one loss is 1000 times larger.

Two tasks, one network. Every method is trained twice from the same start on the same
batches, with the loss of the first task as it is and multiplied by 1000. Units of
losses are arbitrary, so a method should not care; most do.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study import runner, verdicts
from mtl_optax.study.methods import SINGLE_TASK
from mtl_optax.study.model import Problem, digits_problem

SCALES = (1, 1000)
NUM_TASKS = 2
METHODS = ("unitary", "pcgrad", "cagrad", "mgda", "imtl_g", "upgrad", SINGLE_TASK)
QUICK_METHODS = ("unitary", "cagrad", "mgda", "imtl_g")


class Settings(NamedTuple):
    """What a run of the study is made of."""

    methods: tuple[str, ...] = METHODS
    seeds: int = 5
    steps: int = 1000
    learning_rate: float = 3e-3
    quick: bool = False


QUICK = Settings(QUICK_METHODS, seeds=2, steps=300, quick=True)


class Outcome(NamedTuple):
    """What one method did; axes (scale, seed, task), time first where there is time."""

    accuracy: dict[str, NDArray]  # split -> [scales, seeds, T], percent
    losses: NDArray  # [steps, scales, seeds, T], before scaling
    shares: NDArray  # [steps, scales, seeds, T] of the update, NaN if unknown
    verdict: str  # "reference" for single-task runs
    sentence: str
    compile_seconds: float
    run_seconds: float


class Results(NamedTuple):
    """Everything that a report shows."""

    settings: Settings
    tasks: tuple[str, ...]
    outcomes: dict[str, Outcome]
    null: str


def run(
    settings: Settings,
    tick: Callable[[str, str, int], None] = lambda method, stage, done: None,
) -> Results:
    """Trains all methods and judges them; `tick` as in `runner.train`."""
    problem = digits_problem(NUM_TASKS)
    work = {method: _lanes(method, settings) for method in settings.methods}
    runs = runner.train_all(problem, work, settings.steps, tick)
    outcomes = {
        method: _judge(method, run, problem, settings) for method, run in runs.items()
    }
    compared = {
        method: outcome.accuracy["test"][0]
        for method, outcome in outcomes.items()
        if method != SINGLE_TASK
    }
    null = verdicts.null_statement(compared, problem.tasks)
    return Results(settings, problem.tasks, outcomes, null)


def _lanes(method: str, settings: Settings) -> runner.Lanes:
    """Scales x seeds; for single-task runs once for each task, in front."""
    owners = range(NUM_TASKS) if method == SINGLE_TASK else range(1)
    grid = [
        (owner, scale, seed)
        for owner in owners
        for scale in SCALES
        for seed in range(settings.seeds)
    ]
    owner, scale, seed = map(np.asarray, zip(*grid, strict=True))
    loss_scales = np.ones((len(grid), NUM_TASKS), np.float32)
    loss_scales[:, 0] = scale
    return runner.Lanes(
        seed=seed.astype(np.int32),
        learning_rate=np.full(len(grid), settings.learning_rate, np.float32),
        loss_scales=loss_scales,
        own_task=np.eye(NUM_TASKS, dtype=np.float32)[owner],
    )


def _judge(
    method: str, run: runner.Run, problem: Problem, settings: Settings
) -> Outcome:
    shape = len(SCALES), settings.seeds, NUM_TASKS

    def arrange(values: NDArray) -> NDArray:
        """`[..., L, T]` as `[..., scales, seeds, T]`."""
        lead = values.shape[:-2]
        if method != SINGLE_TASK:
            return values.reshape(*lead, *shape)
        # Task t from the run that trained task t.
        values = values.reshape(*lead, NUM_TASKS, *shape)
        return np.stack([values[..., t, :, :, t] for t in range(NUM_TASKS)], axis=-1)

    accuracy = {split: arrange(values) for split, values in run.accuracy.items()}
    losses = arrange(run.losses)
    times = run.compile_seconds, run.run_seconds
    if method == SINGLE_TASK:
        unknown = np.full_like(losses, np.nan)
        text = f"{method} is the reference: no task can disturb another."
        return Outcome(accuracy, losses, unknown, "reference", text, *times)
    loss_scales = np.ones(shape, np.float32)
    loss_scales[..., 0] = np.asarray(SCALES)[:, None]
    shares = verdicts.shares(arrange(run.task_weights), loss_scales)
    word = verdicts.verdict(accuracy["test"], shares[0])
    text = verdicts.sentence(method, word, accuracy["test"], problem.tasks, SCALES[1])
    return Outcome(accuracy, losses, shares, word, text, *times)
