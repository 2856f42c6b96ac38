"""Elich et al.: are conflicts of gradients special to tasks?

Every few steps gradients of single samples are compared: of two tasks on one sample,
and of two samples in one task; in joint training, and where a task trains alone.
"""

from functools import partial

from benchmarks.studies.conflicts.document import document
from benchmarks.studies.conflicts.pairs import JOINT, ONLY
from benchmarks.studies.conflicts.problem import EVERY, KINDS, only, problem
from benchmarks.studies.conflicts.rule import RULE, judge
from mtl_optax.study.engine.methods import BASELINE, METHODS
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.losses import losses

QUESTION = (
    "Gradients of two tasks conflict when their cosine is negative. Elich et al. find "
    "that gradients of two samples of one task do so as much; only magnitudes differ "
    "more between tasks. Is it so here?"
)
STEPS, QUICK = 1000, 20
SCALES = (10, 1000)


def part(kind: str, steps: int, scales: tuple[int, ...] = (1,)) -> Part:
    """Tasks of KINDS; each also trained alone where scales are equal."""
    scaled = scales != (1,)
    tasks = KINDS[kind]
    methods = {JOINT: METHODS[BASELINE]}
    if not scaled:
        methods |= {f"{ONLY}{x}": partial(only, t) for t, x in enumerate(tasks)}
    settings = Settings(
        tuple(methods),
        seeds=2 if steps == QUICK else 10,
        steps=steps,
        points=steps // EVERY,
    )
    times = " and ".join(f"times {scale}" for scale in scales)
    return Part(
        name=f"{kind}_scaled" if scaled else kind,
        title=f"{', '.join(tasks)}{f': first loss {times}' if scaled else ''}",
        question=QUESTION,
        problem=partial(problem, kind, steps),
        settings=settings,
        quick=settings._replace(quick=True),
        figures=(losses,),
        rules=(RULE,),
        judge=judge,
        scales=scales,
        baseline=JOINT,
        has_single_task=False,
        methods=methods,
    )


STUDY = Study(
    name="conflicts",
    title="Are conflicts special?",
    question=QUESTION,
    parts=(*(part(x, STEPS) for x in KINDS), part("two", STEPS, SCALES)),
    quick=(part("two", QUICK), part("two", QUICK, SCALES)),
    document=document,
    has_fixed_methods=True,
)
