"""What priors made of other tasks are worth, against networks that learn alone."""

from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import RULE as PAIRED
from mtl_optax.study.report.paired import change, changes, word

SINGLE, CONTROL = "single", "shared_encoder"
RULE = (
    f"Test accuracy, mean over domains, minus that of {SINGLE} at the same seed. "
    f"{PAIRED} {CONTROL} shares all that VMTL shares, except that its priors are "
    f"standard normal: what VMTL has beyond it is what its priors are worth."
)
ALONE = "{arm}: {mean:.2f} %, mean over domains."
AGAINST_SINGLE = (
    "{arm}, {word}: {change} points from {other}, mean over domains ({each})."
)
BEYOND = "{arm} against {other}, {word}: {change}."
NO_CONTROL = f"No statement is possible without {CONTROL} and an arm of VMTL."


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Each arm against single networks, and VMTL against its control."""
    mean = {arm: result.score[0].mean(axis=1) for arm, result in results.items()}
    words, sentences, statements = {}, {}, []
    for arm, result in results.items():
        if arm == SINGLE or SINGLE not in results:
            words[arm] = "baseline"
            sentences[arm] = ALONE.format(arm=arm, mean=mean[arm].mean())
            continue
        difference = mean[arm] - mean[SINGLE]
        words[arm] = word(difference)
        sentences[arm] = AGAINST_SINGLE.format(
            **{"arm": arm, "other": SINGLE, "word": words[arm]},
            change=change(difference),
            each=changes((result.score - results[SINGLE].score)[0], tasks),
        )
        if arm.startswith("vmtl") and CONTROL in results:
            beyond = mean[arm] - mean[CONTROL]
            told = {"word": word(beyond), "change": change(beyond)}
            statements.append(BEYOND.format(arm=arm, other=CONTROL, **told))
    return Judgement(words, sentences, " ".join(statements) or NO_CONTROL)
