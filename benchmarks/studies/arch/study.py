"""The study of architectures: what is shared, and how, in place of how it is trained.

All are trained on the sum of the losses. What is said of them together is in
document.py, and the rule in rule.py.
"""

from functools import partial
from typing import Any

import jax
from flax import nnx

from benchmarks.studies.arch import cost, rule
from benchmarks.studies.arch.compared import FIXED
from benchmarks.studies.arch.dense.study import DENSE
from benchmarks.studies.arch.document import document
from benchmarks.studies.arch.networks import (
    ARCHITECTURES,
    Architecture,
    Losses,
    with_terms,
)
from mtl_optax import nn
from mtl_optax.study.data.classification import (
    CROSS_ENTROPY,
    classification,
    cross_entropy,
)
from mtl_optax.study.data.digits import TASKS, Split, multi_digits
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.problem import Metric, Now, Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.rules import judge_transfer

QUESTION = (
    "Four questions about two overlapping digits cost one another accuracy in one "
    "trunk. Does an architecture that shares less, or by choice, give it back, at what "
    "size and time, and does it do more than a wider trunk?"
)
ABOUT = (
    "All networks are made of the trunk 144-128-64 with ReLU, or of copies of it, and "
    "linear heads; soft_modular has layers and initial values of its own. Sum of the "
    "losses; the terms that dselect_k and self_auxiliary add belong to their task's "
    "loss. single_task trains each task in a network of its own."
)
WITH_TERMS = Metric("training loss", "nat", higher_is_better=False)


def digits(name: str, architecture: Architecture) -> Problem:
    """Multi-digits with four tasks."""
    build, tasks = architecture.build, tuple(TASKS)
    plain = classification(
        f"Multi-digits, T={len(TASKS)}, {name}",
        *(TASKS, multi_digits(len(TASKS)), build, ABOUT),
    )
    structure = nnx.split(nnx.eval_shape(lambda: build(TASKS, rngs=nnx.Rngs(0))))[0]

    def losses(
        params: Any, state: Any, batch: Split, now: Now
    ) -> tuple[tuple[jax.Array, ...], Any]:
        labels = dict(zip(tasks, batch.labels.T, strict=True))

        def losses_of(outputs: dict[str, jax.Array]) -> Losses:
            return {task: cross_entropy(outputs[task], labels[task]) for task in tasks}

        net = nnx.merge(structure, params, copy=True)
        found = architecture.losses(net, batch.images, losses_of, now)
        return tuple(found[task] for task in tasks), state

    return plain._replace(
        losses=losses,
        owner=nn.owner(tasks),
        loss=(WITH_TERMS if architecture.losses is with_terms else CROSS_ENTROPY,),
    )


def part(name: str, architecture: Architecture) -> Part:
    """One architecture on digits; that of hard sharing has the single tasks as well."""
    single = (SINGLE_TASK,) if name == "hard_sharing" else ()
    rates = FIXED, 1e-2, 3e-2
    settings = Settings((BASELINE, *single), learning_rates=rates, points=100)
    return Part(
        name=name,
        title=f"Architectures: {name}",
        question=QUESTION,
        problem=partial(digits, name, architecture),
        settings=settings,
        quick=Settings(
            *(settings.methods, 2), steps=200, learning_rates=rates[:2], quick=True
        ),
        figures=(losses,),
        rules=(rule.RULE, rule.CONTROL),
        judge=judge_transfer if single else rule.alone,
        baseline=SINGLE_TASK,
        has_single_task=bool(single),
    )


_DIGITS = {name: part(name, own) for name, own in ARCHITECTURES.items()}
STUDY = Study(
    name="arch",
    title="Architectures",
    question=QUESTION,
    parts=(*_DIGITS.values(), *DENSE),
    quick=tuple(
        _DIGITS[x] for x in ("hard_sharing", "hard_sharing_x4", "cross_stitch", "mmoe")
    ),
    document=document,
    has_fixed_methods=True,
    measure=cost.measure,
)
