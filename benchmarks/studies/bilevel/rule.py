"""What a method is worth to the primary task, in words."""

from benchmarks.studies.bilevel.problem import NOISY, PRIMARY
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import RULE as PAIRED
from mtl_optax.study.report.paired import change, minus, word

WITHOUT = f"without_{NOISY}"  # the sum of the others, told which one is noisy
FIRST = f"{PRIMARY}_first"  # the sum, with one fixed weight for the primary task
REFERENCES = (BASELINE, SINGLE_TASK, WITHOUT, FIRST)
RULE = (
    f"Test accuracy of {PRIMARY}, which alone chooses among candidates, minus that of "
    f"{BASELINE} at the same seed; and minus that of {SINGLE_TASK}, a network of its "
    f"own; of {WITHOUT}, which knows what the methods must find out; and of {FIRST}, "
    f"which has one weight for {PRIMARY} all along, chosen as their rates are. {PAIRED}"
)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """The primary task against the sum, its own network, and the informed sum."""
    primary = tasks.index(PRIMARY)
    score = {method: own.score[0, :, primary] for method, own in results.items()}
    words, sentences = {}, {}
    for method, own in score.items():
        others = [x for x in REFERENCES if x in score and x != method]
        found = {x: minus(own, score[x]) for x in others}
        numbers = [f"{change(apart)} from {x}" for x, apart in found.items()]
        against = found.get(BASELINE)
        words[method] = "baseline" if against is None else word(against)
        text = f"{method}, {words[method]}: {PRIMARY} {own.mean():.2f} %"
        sentences[method] = ", ".join([text, *numbers]) + "."
    return Judgement(words, sentences, _statement(words))


def _statement(words: dict[str, str]) -> str:
    learned = {m: x for m, x in words.items() if m not in REFERENCES}
    if BASELINE not in words or not learned:
        return f"No statement is possible without {BASELINE} and a bilevel method."
    each = ", ".join(f"{method} {found}" for method, found in learned.items())
    return f"Against {BASELINE}, {PRIMARY} is: {each}."
