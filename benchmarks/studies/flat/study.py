"""The study of flat minima: F- methods under wrong and missing labels of one task.

Six conditions, each a part of its own with the same program; what is said of them
together is in report.py.
"""

from functools import partial

from benchmarks.studies.flat.report import document
from benchmarks.studies.flat.rule import PLAIN, PLAINS, RULE, SAMO, judge
from mtl_optax.study.data.damaged import damaged_digits
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.paired import INTERVALS

RADII = (0.01, 0.03, 0.1, 0.2)
# Of each perturbed method; SAMO's share of a task's own part is chosen, too.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    method: {"rho_shared": RADII} | ({"beta": (0.1, 0.5)} if method in SAMO else {})
    for method in PLAIN
}
# Folder -> fractions of wrong labels and of known ones, both of left in training
CONDITIONS = {
    "clean": (0.0, 1.0),
    "noise_20": (0.2, 1.0),
    "noise_40": (0.4, 1.0),
    "labels_20": (0.0, 0.2),
    "labels_10": (0.0, 0.1),
    "labels_5": (0.0, 0.05),
}
QUESTION = (
    "Two digits overlap in each image; one network names the left and the right one. "
    "Of the left one some training labels are wrong, or most are missing."
)


def _part(name: str) -> Part:
    noise, fraction = CONDITIONS[name]
    what = f"{noise:.0%} of its labels are wrong" if noise else "its labels are right"
    if fraction < 1:
        what = f"{fraction:.0%} of its labels are known"
    return Part(
        name=name,
        title=f"Flat minima, {name}",
        question=f"{QUESTION} Here {what}. Do F- and S- methods end in flatter "
        "minima, with better accuracy and calibration?",
        problem=partial(damaged_digits, noise, fraction),
        settings=Settings(
            (*PLAINS, *PLAIN),
            tuning_seeds=5,
            points=100,
            grids=GRIDS,
        ),
        quick=Settings(
            ("mean", "cagrad", "f_mean", "f_cagrad", "sam"),
            seeds=2,
            steps=100,
            quick=True,
        ),
        figures=(accuracy, losses),
        rules=(RULE, INTERVALS),
        judge=judge,
        baseline="mean",
    )


STUDY = Study(
    name="flat",
    title="Flat minima",
    question=f"{QUESTION} The paper on F-MTL (Phan et al.) says that a perturbation "
    "for each task leads to flatter minima, to no less accuracy than that of the plain "
    "method, and to better calibration. Does it (F-), or does SAMO (S-), which knows "
    "less of each task? Does either add anything to joint SAM?",
    parts=tuple(_part(name) for name in CONDITIONS),
    quick=(_part("noise_40"), _part("labels_10")),
    document=document,
)
