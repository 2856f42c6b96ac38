"""The dense half of the study of architectures: three networks on two photographs.

Learning rate, steps and sizes were chosen on validation crops with hard sharing and
seed 0. Three parts, the first of which has the single tasks beside it.
"""

from functools import partial
from typing import Any

from mtl_optax.study import dense, dense_networks
from mtl_optax.study.compare import Judgement, Results, Shown, Study
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.losses import losses
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.screen import cells
from mtl_optax.study.settings import Settings
from mtl_optax.study.verdicts import paired

QUESTION = (
    "Three dense tasks on two photographs: segmentation, depth and normals, made from "
    "the pictures themselves. What does it cost to share a backbone, and does it come "
    "back in a network that attends for each task (mtan), or in one whose tasks "
    "exchange affinities between positions (ctal)?"
)
ABOUT = (
    "One backbone, residual blocks at 1/4 and 1/8 of the image, and one decoder a task "
    "up to 1/4, enlarged to the image. mtan adds masks and blocks to the backbone; "
    "ctal adds affinities to the decoders, and initial predictions, which are trained "
    "too."
)
RULE = (
    "No verdict on a network alone: the differences from networks of their own, and "
    "Δm, are on the page of the whole study. "
    f"{paired.INTERVALS}"
)


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Skill of each; and against single tasks where they are."""
    single = outcomes.get(SINGLE_TASK)
    words = dict.fromkeys(outcomes, "see above")
    sentences = {}
    for name, outcome in outcomes.items():
        skill = outcome.score[0]
        named = zip(tasks, skill.mean(axis=0), strict=True)
        text = ", ".join(f"{task} {x:.1f}" for task, x in named)
        sentences[name] = f"{name}: skill in % {text}."
        if single is not None and outcome is not single:
            difference = paired.changes(skill - single.score[0], tasks)
            sentences[name] += f" In points from single tasks: {difference}."
    return Judgement(words, sentences, "For all together see the page above.")


def measure_table(results: Results) -> Shown:
    """The metric of each task in its own unit."""
    head = ["method"]
    for task, measure in zip(dense.TASKS, dense.MEASURES, strict=True):
        head.append(f"{task}: {measure.name} {measure.unit}".rstrip())
    rows = []
    for method, outcome in results.outcomes.items():
        found = outcome.metrics[results.problem.reported_on]["measure"]
        # In thousandths, where the unit is that of the luminance.
        rows.append((method, cells(found[outcome.chosen[0]] * _FACTORS)))
    note = "On test crops, mean ± sd over seeds; the absolute error times 1000."
    return Shown("Measures", note, head, rows)


_FACTORS = [1, 1000, 1]


def part(name: str, **options: Any) -> Study:
    """The study of one of `dense_networks`."""
    single = (SINGLE_TASK,) if name == "hard_sharing" else ()
    settings = Settings(
        (BASELINE, *single),
        seeds=3,
        steps=300,
        learning_rates=(1e-2,),
        batch_size=dense.BATCH,
        points=30,
    )
    build = getattr(dense_networks, name)
    return Study(
        name=f"dense_{name}",
        title=f"Dense architectures: {name}",
        question=QUESTION,
        problem=partial(dense.problem, name, build, ABOUT, **options),
        settings=settings,
        quick=settings._replace(seeds=2, steps=10, points=2, quick=True),
        figures=(accuracy, losses),
        rules=(RULE,),
        judge=judge,
        baseline=SINGLE_TASK,
        has_single_task=bool(single),
        tables=(measure_table,),
    )


PARTS = (
    part("hard_sharing"),
    part("mtan"),
    part("ctal", predictions=dense_networks.initial_and_final),
)
