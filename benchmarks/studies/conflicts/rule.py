"""What a part says in words."""

from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import INTERVALS

RULE = (
    "Gradients of the shared parameters. Between tasks: of one sample, two tasks. "
    "Between samples: of one task, two samples. Means, standard deviations and shares "
    "are of an epoch and of one pair of tasks, or of one task, and then averaged over "
    "epochs and pairs or tasks; pairs with a gradient that is zero do not count. "
    "joint trains the sum of all losses, only_x the task x alone; runs of a seed start "
    "alike and see the same batches. Random: pairs of Gaussian vectors with as many "
    f"coordinates. {INTERVALS}"
)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Its losses; what is measured stands on the page of all parts."""
    sentences = {}
    for method, own in results.items():
        means = own.score[0].mean(axis=0)
        each = ", ".join(f"{t} {x:.3f}" for t, x in zip(tasks, means, strict=True))
        sentences[method] = f"{method}: test loss {each}."
    words = dict.fromkeys(results, "")
    return Judgement(words, sentences, "What was measured: see the page of the study.")
