"""One part, trained and judged: learning rates, scales and seeds are lanes."""

import numpy as np

from mtl_optax.study.engine import checks, part_checks
from mtl_optax.study.engine.blocks import blocks, in_order, lanes
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.outcome import method_result
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import MethodResult, Part, PartResult
from mtl_optax.study.engine.train import LanesResult, Tick, Work, quiet, train_all


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
    problem, work = prepared(part, settings)
    runs = train_all(work, settings.recipe(part.readings), tick, store)
    return concluded(part, settings, problem, work, runs, study)


def prepared(
    part: Part, settings: Settings, methods: tuple[str, ...] | None = None
) -> tuple[Problem, dict[str, Work]]:
    """What is to be trained, checked; of all methods, or of some."""
    problem = part.problem()
    checks.fields(problem)
    part_checks.names(part, settings)
    chosen = settings.methods if methods is None else methods
    return problem, {name: _work(part, settings, problem, name) for name in chosen}


def concluded(
    part: Part,
    settings: Settings,
    problem: Problem,
    work: dict[str, Work],
    runs: dict[str, LanesResult],
    study: str | None = None,
) -> PartResult:
    """What all methods did, block by block, with names to its axes, and judged."""
    results = {
        name: method_result(
            *(problem, part.scales, settings, name),
            in_order(runs[name], own),
        )
        for name, own in work.items()
    }
    part_checks.read(part, settings, results)
    results |= part.then(problem, settings, results)
    judgement = part.judge(results, problem.tasks)
    part_checks.judged(part, judgement, results)
    for name, result in results.items():
        judgement.sentences[name] += divergence(result)
    return PartResult(study or part.name, part, problem, settings, results, judgement)


def _work(part: Part, settings: Settings, problem: Problem, method: str) -> Work:
    of_all = lanes(len(problem.tasks), part.scales, settings, method)
    rows = blocks(part.scales, settings, method, len(of_all.seed))
    trained = _trained(part, problem, method)
    return Work(trained, part.known[method], of_all, rows)


def _trained(part: Part, problem: Problem, method: str) -> Problem:
    if method not in part.variants:
        return problem
    variant = part.variants[method]()
    part_checks.alike(part, problem, method, variant)
    return variant


def divergence(result: MethodResult) -> str:
    """Says how many runs at the chosen rates ended in NaN or infinity; mostly ""."""
    finite = np.isfinite(result.losses[-1]).all(axis=-1)  # [scales, seeds]
    if finite.all():
        return ""
    return f" {(~finite).sum()} of its {finite.size} runs diverged."
