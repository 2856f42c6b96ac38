"""The study of architectures: what is shared, and how, in place of how it is trained.

All are trained on the sum of the losses. What is said of them together is in
arch_report.py, and the rule in verdicts/arch.py.
"""

from typing import Any

import jax
from flax import nnx

from mtl_optax import nn
from mtl_optax.study import arch_cost, arch_dense, arch_report
from mtl_optax.study.arch_networks import ARCHITECTURES, Architecture, Losses
from mtl_optax.study.arch_scores import FIXED, problems
from mtl_optax.study.compare import Judgement, Results, Study
from mtl_optax.study.data import TASKS, Split, multi_digits
from mtl_optax.study.figures.losses import losses
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.model import classification, cross_entropy
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.problem import Clock, Problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.verdicts import arch as verdicts
from mtl_optax.study.verdicts import transfer

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


def digits(name: str, architecture: Architecture) -> Problem:
    """Multi-digits with four tasks."""
    build = architecture.build
    plain = classification(
        f"Multi-digits, T={len(TASKS)}, {name}",
        TASKS,
        multi_digits(len(TASKS)),
        build,
        ABOUT,
    )
    structure = nnx.split(nnx.eval_shape(lambda: build(TASKS, rngs=nnx.Rngs(0))))[0]

    def losses(
        params: Any, batch: Split, clock: Clock | None = None
    ) -> tuple[jax.Array, ...]:
        labels = dict(zip(TASKS, batch.labels.T, strict=True))

        def losses_of(outputs: dict[str, jax.Array]) -> Losses:
            return {task: cross_entropy(outputs[task], labels[task]) for task in TASKS}

        net = nnx.merge(structure, params, copy=True)
        found = architecture.losses(net, batch.images, losses_of, clock)
        return tuple(found[task] for task in TASKS)

    return plain._replace(
        losses=losses, owner=nn.owner(tuple(TASKS)), clocked=architecture.clocked
    )


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """What the part says alone: only that of hard sharing has something beside it."""
    if SINGLE_TASK in outcomes:
        return transfer.judge(outcomes, tasks)
    words = dict.fromkeys(outcomes, "see above")
    means = {name: outcome.score[0].mean() for name, outcome in outcomes.items()}
    sentences = {x: f"{x}: {mean:.2f} % over tasks." for x, mean in means.items()}
    return Judgement(words, sentences, "For all together see the page above.")


_RATES = (FIXED, 1e-2, 3e-2)


def part(name: str, architecture: Architecture) -> Study:
    """The study of one architecture on digits."""
    single = (SINGLE_TASK,) if name == "hard_sharing" else ()
    methods = (BASELINE, *single)
    return Study(
        name=name,
        title=f"Architectures: {name}",
        question=QUESTION,
        problem=lambda: digits(name, architecture),
        settings=Settings(methods, learning_rates=_RATES, points=100),
        quick=Settings(methods, 2, steps=200, learning_rates=_RATES[:2], quick=True),
        figures=(losses,),
        rules=(verdicts.RULE, verdicts.CONTROL),
        judge=judge,
        baseline=SINGLE_TASK,
        has_single_task=bool(single),
    )


def measure(results: dict[str, Results]) -> dict[str, arch_cost.Cost]:
    """The cost of every part, against the first one of its problem."""
    found: dict[str, arch_cost.Cost] = {}
    for group in problems(results):
        found |= arch_cost.measure(group)
    return found


_DIGITS = {name: part(name, own) for name, own in ARCHITECTURES.items()}
SUITE = Suite(
    name="arch",
    title="Architectures",
    question=QUESTION,
    parts=(*_DIGITS.values(), *arch_dense.PARTS),
    quick=tuple(
        _DIGITS[x] for x in ("hard_sharing", "hard_sharing_x4", "cross_stitch", "mmoe")
    ),
    write=arch_report.write,
    show=arch_report.show,
    has_fixed_methods=True,
    measure=measure,
)
