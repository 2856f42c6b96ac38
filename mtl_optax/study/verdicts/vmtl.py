"""What priors made of other tasks are worth, against networks that learn alone."""

from numpy.typing import NDArray

from mtl_optax.study.compare import Judgement
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts import paired

SINGLE, CONTROL = "single", "shared_encoder"
RULE = (
    f"Test accuracy, mean over domains, minus that of {SINGLE} at the same seed: "
    f"better or worse if the interval excludes 0. {CONTROL} shares all that VMTL "
    f"shares, except that its priors are standard normal: what VMTL has beyond it is "
    f"what its priors are worth. {paired.INTERVALS}"
)


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Each arm against single networks, and VMTL against its control."""
    mean = {name: outcome.score[0].mean(axis=1) for name, outcome in outcomes.items()}
    words, sentences, statements = {}, {}, []
    for name, outcome in outcomes.items():
        if name == SINGLE or SINGLE not in outcomes:
            words[name] = "baseline"
            sentences[name] = f"{name}: {mean[name].mean():.2f} %, mean over domains."
            continue
        difference = mean[name] - mean[SINGLE]
        words[name] = word(difference)
        each = paired.changes((outcome.score - outcomes[SINGLE].score)[0], tasks)
        sentences[name] = (
            f"{name}, {words[name]}: {paired.change(difference)} points from {SINGLE}, "
            f"mean over domains ({each})."
        )
        if name.startswith("vmtl") and CONTROL in outcomes:
            beyond = mean[name] - mean[CONTROL]
            statements.append(
                f"{name} is {word(beyond)} than {CONTROL}: {paired.change(beyond)}."
            )
    return Judgement(words, sentences, " ".join(statements))


def word(difference: NDArray) -> str:
    """On paired differences `[seeds]`."""
    if len(difference) < 2:
        return "unknown"
    found = paired.interval(difference)
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "not surely other"
