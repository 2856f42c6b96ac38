"""The study of flat minima: F- methods under wrong and missing labels of one task.

Six conditions, each a study of its own with the same program; what is said of them
together is in flat_report.py.
"""

from functools import partial

from mtl_optax.study import flat_report, pairs
from mtl_optax.study.compare import Judgement, Study
from mtl_optax.study.damaged import damaged_digits
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.losses import losses
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.verdicts import flat as verdicts
from mtl_optax.study.verdicts import paired

RADII = (0.01, 0.03, 0.1, 0.2)
# Folder -> shares of wrong labels and of known ones, both of left in training
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


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """How many of the paper's claims one condition meets, a method."""
    words, sentences = {}, {}
    for method in outcomes:
        other = pairs.PLAIN.get(method)
        if other not in outcomes:
            words[method] = "plain" if other is None else "unpaired"
            sentences[method] = f"{method} has nothing beside it to be compared with."
            if other is None:
                sentences[method] = f"{method} is what others are compared with."
            continue
        parts, met = [], 0
        for metric, claim in verdicts.CLAIMS.items():
            found = pairs.difference(outcomes, method, other, metric)
            met += verdicts.tally(found[None], claim.sign).word == "met"
            changes = paired.changes(found, tasks)
            parts.append(f"{claim.title} {changes} {claim.unit}")
        words[method] = f"{met} of {len(verdicts.CLAIMS)} met"
        sentences[method] = f"{method} minus {other}: {'; '.join(parts)}."
    return Judgement(
        words, sentences, "For all conditions together see the page above."
    )


def _part(name: str) -> Study:
    noise, fraction = CONDITIONS[name]
    what = f"{noise:.0%} of its labels are wrong" if noise else "its labels are right"
    if fraction < 1:
        what = f"{fraction:.0%} of its labels are known"
    return Study(
        name=name,
        title=f"Flat minima, {name}",
        question=f"{QUESTION} Here {what}. Do F- methods end in flatter minima, with "
        "better accuracy and calibration?",
        problem=partial(damaged_digits, noise, fraction),
        settings=Settings(
            (*pairs.PLAINS, *pairs.PLAIN),
            tuning_seeds=5,
            points=100,
            grids={method: {"rho_shared": RADII} for method in pairs.PLAIN},
        ),
        quick=Settings(
            ("mean", "cagrad", "f_mean", "f_cagrad", "sam"),
            seeds=2,
            steps=100,
            quick=True,
        ),
        figures=(accuracy, losses),
        rules=(verdicts.RULE, paired.INTERVALS),
        judge=judge,
        baseline="mean",
    )


SUITE = Suite(
    name="flat",
    title="Flat minima",
    question=f"{QUESTION} The paper on F-MTL (Phan et al.) says that a perturbation "
    "for each task leads to flatter minima, to no less accuracy than that of the plain "
    "method, and to better calibration. Does it? Does it add anything to joint SAM?",
    parts=tuple(_part(name) for name in CONDITIONS),
    quick=(_part("noise_40"), _part("labels_10")),
    write=flat_report.write,
    show=flat_report.show,
)
