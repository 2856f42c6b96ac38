"""A claim of a paper beside what was measured, and what follows.

A study that tests a claim has a file `claim.py`: a `Claim`, and a function that makes
`Measured` values of its result. `files` and `shown` make `claim.csv` and a table of
them, and `benchmarks/claims.py` joins the files of all studies on one page.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_optax.study.report.document import Table
from mtl_optax.study.report.paired import interval

FILE = "claim.csv"
HOLDS, NOT_HERE, OPEN = "holds", "does not hold here", "cannot tell"
RULE = (
    f"What is measured has a bound that the claim sets. {HOLDS}: the whole interval "
    f"lies on the claimed side of it. {NOT_HERE}: the whole interval lies on the other "
    f"side. {OPEN}: the interval contains the bound, or there is no interval. Where "
    f"nothing is random the interval is the number itself. A claim holds if all of its "
    f"measurements say so, and does not hold here if one says that it does not."
)


class Claim(NamedTuple):
    """What somebody has published."""

    number: int  # its place on the page of all claims
    title: str
    source: str  # authors, year, arXiv number, section or figure
    wording: str  # the source's, as far as it was read
    read: str  # what was read: "abstract", "code", "specification", "second-hand"
    study: str  # `mtl-optax study` of this name measures it


class Measured(NamedTuple):
    """One number that bears on a claim."""

    what: str
    estimate: float
    low: float  # of the 95 % interval; the estimate where nothing is random
    high: float
    # What the claim says of it: "above" or "below" the bound; "not above" or "not
    # below" it, which is that the interval shows no such difference; or "within" plus
    # and minus the bound.
    claimed: str
    bound: float
    unit: str = ""
    runs: int = 1  # seeds, starts or pairs behind the estimate

    @property
    def verdict(self) -> str:
        """The word of RULE."""
        low, high, bound = self.low, self.high, self.bound
        if not all(map(math.isfinite, (low, high))):
            return OPEN
        if self.claimed == "within":
            return _word(-bound <= low and high <= bound, low > bound or high < -bound)
        exact = low == high
        above, below = low > bound, high < bound
        if self.claimed == "above":
            return _word(above, below or (exact and not above))
        if self.claimed == "below":
            return _word(below, above or (exact and not below))
        if self.claimed in ("not above", "not below"):
            return NOT_HERE if (above, below)[self.claimed == "not below"] else HOLDS
        raise ValueError(
            f"{self.what}: claimed must be 'above', 'below', 'not above', 'not below' "
            f"or 'within'; got {self.claimed!r}."
        )


def of_runs(
    what: str, values: ArrayLike, claimed: str, bound: float = 0.0, unit: str = ""
) -> Measured:
    """The mean of values, one a seed, with the interval of `paired.py`.

    One value has no interval, nor has a mean in which a run diverged.
    """
    array = np.asarray(values, float)
    low = high = math.nan
    if len(array) > 1:
        low, high = (float(x) for x in interval(array)[1:3])
    mean = float(array.mean())
    return Measured(what, mean, low, high, claimed, float(bound), unit, len(array))


def exactly(
    what: str, value: float, claimed: str, bound: float, unit: str = "", runs: int = 1
) -> Measured:
    """A number in which nothing is random, such as a count of starts."""
    value = float(value)
    return Measured(what, value, value, value, claimed, float(bound), unit, runs)


def _word(holds: bool, not_here: bool) -> str:
    return HOLDS if holds else NOT_HERE if not_here else OPEN


def verdict(measured: Sequence[Measured]) -> str:
    """Of a claim, by RULE."""
    words = {own.verdict for own in measured}
    if NOT_HERE in words:
        return NOT_HERE
    return HOLDS if words == {HOLDS} else OPEN


def files(claim: Claim, measured: Sequence[Measured]) -> dict[str, pd.DataFrame]:
    """claim.csv: a row a measurement."""
    return files_of([(claim, measured)])


def files_of(
    found: Iterable[tuple[Claim, Sequence[Measured]]],
) -> dict[str, pd.DataFrame]:
    """The same of several claims that one study tests."""
    rows = [
        {**claim._asdict(), **own._asdict(), "verdict": own.verdict}
        for claim, measured in found
        for own in measured
    ]
    # As text: rounded as other tables are, a small number would be 0.
    texts = [
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]
    return {FILE: pd.DataFrame(texts)}


def shown(claim: Claim, measured: Sequence[Measured]) -> Table:
    """The claim and its verdict, on the page of the study."""
    note = f"{claim.source} ({claim.read}): {claim.wording} {RULE}"
    rows = [
        [own.what, number(own), says(own), str(own.runs), own.verdict]
        for own in measured
    ]
    head = ["measured", "found", "claimed", "runs", "verdict"]
    return Table(f"{claim.title}: {verdict(measured)}", note, head, rows)


def number(own: Measured) -> str:
    """The estimate and its interval."""
    text = _short(own.estimate)
    if own.low != own.high:
        text += f" [{_short(own.low)}, {_short(own.high)}]"
    elif own.estimate.is_integer():  # a count
        text = f"{own.estimate:.0f}"
    return f"{text} {own.unit}".rstrip()


def says(own: Measured) -> str:
    """What the claim says of it."""
    sign = "±" if own.claimed == "within" else ""
    return f"{own.claimed} {sign}{own.bound:g} {own.unit}".rstrip()


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if 0.1 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
