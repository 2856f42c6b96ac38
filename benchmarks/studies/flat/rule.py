"""Whether per-task flatness does what its paper says: counts, means and words."""

from typing import NamedTuple

from numpy.typing import NDArray

from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import CONFIDENCE, change, changes, minus, signs

SAM = "sam"
PLAINS = ("mean", "mgda", "pcgrad", "cagrad", "imtl_g")
# Method -> the one without perturbation: F-MTL (f_) and SAMO (s_) around it. Joint SAM
# follows the sum, which is the mean to Adam.
SAMO = {"s_mean": "mean", "s_cagrad": "cagrad"}
PLAIN = {f"f_{plain}": plain for plain in PLAINS} | SAMO | {SAM: "mean"}
ALIKE = ("f_mean", "s_mean")  # which aggregate as joint SAM does
MET, OPPOSITE, OPEN = "met", "opposite", "open"
_ROUNDING = 1e-4  # metrics are float32: a smaller difference is none


class Claim(NamedTuple):
    """What the paper on F-MTL says of perturbed minus plain, in one metric."""

    split: str  # on which it is measured
    sign: int  # +1: not lower, -1: lower
    paper: str  # the direction in words
    title: str
    unit: str  # of differences

    @property
    def side(self) -> str:
        """Where differences lie that go along with it."""
        return "higher" if self.sign > 0 else "lower"


CLAIMS = {
    "accuracy": Claim("test", +1, "not lower", "test accuracy", "points"),
    "sharpness": Claim("fit", -1, "lower", "sharpness", "mnat"),
    "ece": Claim("test", -1, "lower", "calibration error", "points"),
}

RULE = (
    f"Differences are F- or S- minus plain, for joint SAM minus mean, paired over "
    f"seeds; what the paper on F-MTL says is asked of all. The verdict on a metric "
    f"rests on the mean over all conditions and both tasks, one number a seed, with a "
    f"{100 * CONFIDENCE:g} % interval by Student's t: {MET} if it lies wholly on the "
    f"side that the paper names (accuracy at least that of plain, sharpness lower, "
    f"calibration error lower), {OPPOSITE} if wholly on the other, else {OPEN}. Beside "
    f"it the single comparisons, one a condition and task: how many lie on the paper's "
    f"side (along), and how many intervals exclude 0 on it and on the other (sure "
    f"+/-); where there is no difference, one in 40 does so on each side."
)
PAIR = "{method} against {other}: {claims}."
COUNTS = (
    "{claim.title} {claim.side} in {found.along} of {found.number} (intervals say so "
    "in {found.sure}, the opposite in {found.against}): {found.word}"
)
ADDS = (
    "Does a perturbation for each task add to joint SAM? {numbers}, means over all "
    "conditions and tasks. "
)
BEYOND = (
    "As far as intervals tell, against joint SAM: {claims}. All but {alike} aggregate "
    "in another way than SAM, which may be the reason."
)


class Tally(NamedTuple):
    """The comparisons of two methods in one metric."""

    along: int  # means on the paper's side
    sure: int  # whose interval excludes 0
    against: int  # intervals that exclude 0 on the other side
    number: int  # of comparisons, one a condition and task
    of_seed: NDArray  # [seeds], means over all of them
    word: str  # of RULE


def tally(difference: NDArray, sign: int) -> Tally:
    """Of differences `[seeds, comparisons]`; sign is that of the claim."""
    apart, of_seed = sign * signs(difference), difference.mean(axis=1)
    return Tally(
        along=int((sign * difference.mean(axis=0) > _ROUNDING).sum()),
        sure=int((apart > 0).sum()),
        against=int((apart < 0).sum()),
        number=len(apart),
        of_seed=of_seed,
        word={1: MET, -1: OPPOSITE, 0: OPEN}[sign * int(signs(of_seed))],
    )


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """How many of the paper's claims one condition meets, a method."""
    words, sentences = {}, {}
    for method in results:
        other = PLAIN.get(method)
        if other is None:
            words[method] = "plain"
            sentences[method] = f"{method} is what others are compared with."
            continue
        if other not in results:
            words[method] = "unpaired"
            sentences[method] = f"{method} has nothing beside it to be compared with."
            continue
        met, numbers = 0, []
        for metric, claim in CLAIMS.items():
            ours, others = (
                own.metrics[claim.split][metric][own.chosen[0], 0]
                for own in (results[method], results[other])
            )
            difference = minus(ours, others)
            met += tally(difference, claim.sign).word == MET
            found = changes(difference, tasks)
            numbers.append(f"{claim.title} {found} {claim.unit}")
        words[method] = f"{met} of {len(CLAIMS)} met"
        sentences[method] = f"{method} minus {other}: {'; '.join(numbers)}."
    statement = "For all conditions together see the page above."
    return Judgement(words, sentences, statement)


def sentence(method: str, other: str, found: dict[str, Tally]) -> str:
    """All metrics of one pair, counted."""
    claims = [COUNTS.format(claim=CLAIMS[x], found=own) for x, own in found.items()]
    return PAIR.format(method=method, other=other, claims="; ".join(claims))


def beyond_sam(found: dict[str, dict[str, Tally]]) -> str:
    """What per-task flatness adds: method -> metric -> tally against joint SAM."""
    if not found:
        return "Joint SAM has no F- or S- method beside it."
    numbers, claims = [], []
    for alike in ALIKE:
        if alike in found:
            each = [
                f"{CLAIMS[metric].title} {change(own.of_seed)} {CLAIMS[metric].unit}"
                for metric, own in found[alike].items()
            ]
            text = f"{alike}, which aggregates alike, minus joint SAM: "
            numbers.append(text + ", ".join(each))
    for metric, claim in CLAIMS.items():
        better, worse = (
            ", ".join(m for m, own in found.items() if own[metric].word == x) or "none"
            for x in (MET, OPPOSITE)
        )
        claims.append(f"{claim.title} better with {better}, worse with {worse}")
    text = ADDS.format(numbers="; ".join(numbers)) if numbers else ""
    return text + BEYOND.format(alike=" and ".join(ALIKE), claims="; ".join(claims))
