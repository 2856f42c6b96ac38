"""One part, trained and judged: learning rates, scales and seeds are lanes."""

import numpy as np

from mtl_optax.study.engine import checks, part_checks
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.outcome import method_result
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Lanes
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import MethodResult, Part, PartResult
from mtl_optax.study.engine.train import Tick, Work, quiet, train_all


def run(
    part: Part,
    settings: Settings,
    tick: Tick = quiet,
    store: Checkpoints | None = None,
    study: str | None = None,
) -> PartResult:
    """Trains all methods and judges them.

    Args:
      part: what is compared.
      settings: with what; the part's own, or others.
      tick: as in `train`.
      store: likewise.
      study: the name of its study, where that is not its own.
    """
    problem = part.problem()
    checks.fields(problem)
    part_checks.names(part, settings)
    work = {
        name: Work(
            _trained(part, problem, name),
            part.known[name],
            lanes(len(problem.tasks), part.scales, settings, name),
        )
        for name in settings.methods
    }
    runs = train_all(work, settings.recipe(part.readings), tick, store)
    results = {
        name: method_result(problem, part.scales, settings, name, own)
        for name, own in runs.items()
    }
    part_checks.read(part, settings, results)
    results |= part.then(problem, settings, results)
    judgement = part.judge(results, problem.tasks)
    part_checks.judged(part, judgement, results)
    for name, result in results.items():
        judgement.sentences[name] += divergence(result)
    return PartResult(study or part.name, part, problem, settings, results, judgement)


def _trained(part: Part, problem: Problem, method: str) -> Problem:
    if method not in part.variants:
        return problem
    variant = part.variants[method]()
    part_checks.alike(part, problem, method, variant)
    return variant


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


def divergence(result: MethodResult) -> str:
    """Says how many runs at the chosen rates ended in NaN or infinity; mostly ""."""
    finite = np.isfinite(result.losses[-1]).all(axis=-1)  # [scales, seeds]
    if finite.all():
        return ""
    return f" {(~finite).sum()} of its {finite.size} runs diverged."
