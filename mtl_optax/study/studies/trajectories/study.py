"""Plain gradient steps on quadratics: who arrives at the Pareto set, and how?"""

from functools import partial

from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.studies.trajectories import report, rule
from mtl_optax.study.studies.trajectories.methods import TIMES, methods
from mtl_optax.study.studies.trajectories.quadratics import PROBLEMS, QUADRATICS

QUESTION = (
    "Two quadratics of a point, plain gradient steps. Which method arrives at the "
    "Pareto set, and which never raises an objective on the way?"
)


def part(name: str) -> Part:
    """The study on one pair of quadratics."""
    own = QUADRATICS[name]
    settings = Settings(
        methods=tuple(TIMES),
        seeds=len(own.starts),
        steps=own.steps,
        learning_rates=(own.rate,),
        optimizer="gd",
        schedule="constant",
    )
    return Part(
        name=name,
        title=f"{name}: {own.title}",
        question=QUESTION,
        problem=PROBLEMS[name],
        settings=settings,
        quick=settings._replace(methods=("mean", "upgrad", "pcgrad"), quick=True),
        judge=partial(rule.judge, name=name),
        rules=(rule.RULE,),
        figures=(report.trajectories,),
        tables=(report.distances,),
        files=report.files,
        baseline="mean",
        has_single_task=False,
        methods=methods(name),
    )


STUDY = Study(
    name="trajectories",
    title="Trajectories on three quadratics",
    question=QUESTION,
    parts=tuple(map(part, QUADRATICS)),
    quick=(part("EWQ"), part("CQF")),
    document=report.document,
    has_fixed_methods=True,
)
