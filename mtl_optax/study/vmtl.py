"""The study of VMTL on four domains of digits: what are the other posteriors worth?

A part is a share of the labels. The weights of both divergences are chosen on
validation data, for each arm.
"""

from functools import partial
from typing import Any

from mtl_optax.study import data, vmtl_report
from mtl_optax.study.compare import Study
from mtl_optax.study.domains import DOMAINS, four_domains, whole
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.differences import differences
from mtl_optax.study.figures.prior_weights import prior_weights
from mtl_optax.study.problem import Metric, Problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.verdicts import vmtl as verdict
from mtl_optax.study.vmtl_arms import ARMS
from mtl_optax.study.vmtl_training import train_all

QUESTION = (
    "The same digits in four domains: as they are, rotated, inverted, blurred. Few "
    "scans of each have labels. VMTL makes the prior of each domain of what the others "
    "have learned, with weights that it learns. Is that better than to learn alone, "
    "from all domains at once, or with an encoder in common and nothing else?"
)
SHARES = (0.05, 0.1, 0.2)


def problem(share: float) -> Problem:
    """Four domains; `vmtl_training` draws what they train on."""
    scans = four_domains()
    examples = {name: whole(scans, name) for name in ("val", "test")}
    return Problem(
        name="four_domains",
        tasks=DOMAINS,
        splits=examples,
        init=_elsewhere,
        losses=_elsewhere,
        metrics=(Metric("accuracy", "%"), Metric("nll", "nats", False)),
        evaluate=_elsewhere,
        owner=_elsewhere,
        about=f"Four domains of 8 x 8 scans of digits, {100 * share:g} % of the 1,097 "
        "training scans with labels in each, others in each domain and at each seed; "
        "300 scans to choose by, 400 to test on, in all domains. One layer of 64 "
        "random units, the same for all; then a Gaussian representation of size 32 and "
        "a Gaussian classifier. Batches have 2 scans of each digit for each domain. "
        "beta grows from 0. Predictions are means over 20 draws.",
        facts={"share_of_labels": share},
        credits=data.CREDITS.replace("composed in pairs", "seen in four ways"),
    )


def _elsewhere(*_: Any) -> Any:
    raise NotImplementedError("vmtl_training trains this problem.")


_GRID: dict[str, tuple[float, ...]] = {"beta": (1e-4, 1e-3, 1e-2), "eta": (1e-7, 1e-2)}
_SETTINGS = Settings(
    tuple(ARMS),
    steps=400,
    learning_rates=(3e-3,),
    points=20,
    grids=dict.fromkeys(ARMS, _GRID),
)
_ONE: dict[str, tuple[float, ...]] = {"beta": (1e-3,), "eta": (1e-7,)}
_FEW = ("single", "pooled", "vmtl_sum")
_QUICK = _SETTINGS._replace(
    methods=_FEW,
    seeds=2,
    steps=150,
    grids=dict.fromkeys(_FEW, _ONE),
    quick=True,
)


def part(share: float) -> Study:
    """The study at a share of labels."""
    return Study(
        name=f"labels_{100 * share:g}",
        title=f"VMTL with {100 * share:g} % of the labels",
        question=QUESTION,
        problem=partial(problem, share),
        settings=_SETTINGS,
        quick=_QUICK,
        figures=(accuracy, differences, prior_weights),
        rules=(verdict.RULE,),
        judge=verdict.judge,
        baseline=verdict.SINGLE,
        has_single_task=False,
        extra=tuple(ARMS),
        train=partial(train_all, share),
    )


SUITE = Suite(
    name="vmtl",
    title="VMTL on four domains of digits",
    question=QUESTION,
    parts=tuple(map(part, SHARES)),
    quick=(part(SHARES[0]),),
    write=vmtl_report.write,
    show=vmtl_report.show,
    has_fixed_methods=True,
)
