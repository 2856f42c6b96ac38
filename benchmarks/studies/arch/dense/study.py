"""The dense half of the study of architectures: three networks on two photographs.

Learning rate, steps and sizes were chosen on validation crops with hard sharing and
seed 0. Three parts, the first of which has the single tasks beside it.
"""

from functools import partial
from typing import Any

from benchmarks.studies.arch import rule
from benchmarks.studies.arch.dense import networks
from benchmarks.studies.arch.dense.problem import BATCH, problem
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, PartResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.paired import INTERVALS, mean_sd
from mtl_optax.study.report.styles import styles

QUESTION = (
    "Three dense tasks on two photographs: segmentation, depth and normals, made from "
    "the pictures themselves. What does it cost to share a backbone, and does it come "
    "back in a network that attends for each task (mtan), or in one whose tasks "
    "exchange affinities between positions (ctal)?"
)
RULE = (
    "No verdict on a network alone: the differences from networks of their own, and "
    f"Δm, are on the page of the whole study. {INTERVALS}"
)
_FACTORS = 1, 1000, 1  # the absolute error in thousandths


def measures(result: PartResult) -> Table:
    """The metric of each task in its own unit."""
    problem = result.problem
    rows = []
    for method, own in result.methods.items():
        found = own.metrics[problem.reported_on]["measure"][own.chosen[0], 0]
        rows.append([method, *map(mean_sd, (found * _FACTORS).T)])
    pairs = zip(problem.tasks, problem.measures, strict=True)
    return Table(
        "Measures",
        "On test crops, mean ± sd over seeds; the absolute error times 1000.",
        ["method", *(f"{task}: {measure}" for task, measure in pairs)],
        rows,
        styles(result.methods),
    )


def part(name: str, build: Any, **options: Any) -> Part:
    """The part of one network; options as for `problem`."""
    single = (SINGLE_TASK,) if name == "hard_sharing" else ()
    settings = Settings(
        (BASELINE, *single),
        seeds=3,
        steps=300,
        learning_rates=(1e-2,),
        batch_size=BATCH,
        points=30,
    )
    return Part(
        name=f"dense_{name}",
        title=f"Dense architectures: {name}",
        question=QUESTION,
        problem=partial(problem, name, build, networks.ABOUT, **options),
        settings=settings,
        quick=settings._replace(seeds=2, steps=10, points=2, quick=True),
        figures=(accuracy, losses),
        rules=(RULE,),
        judge=rule.alone,
        baseline=SINGLE_TASK,
        has_single_task=bool(single),
        tables=(measures,),
    )


DENSE = (
    part("hard_sharing", networks.hard_sharing),
    part("mtan", networks.mtan),
    part("ctal", networks.ctal, predictions=networks.initial_and_final),
)
