"""Who is compared with whom: runs of all conditions, and differences of pairs.

Both are wide tables of the tidy one: a row a seed, a column a number.
"""

import pandas as pd

from mtl_optax.study.engine import tidy
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.studies.flat.rule import CLAIMS, PLAIN, SAM, Tally, tally

Pair = tuple[str, str]
RUNS = ["method", "metric", "part", "task"]  # levels of the columns of `runs`
PAIRS = ["method", "other", "metric", "part", "task"]  # and of `differences`


def against_plain(methods: tuple[str, ...]) -> list[Pair]:
    """The pairs that are both there."""
    return [(m, PLAIN[m]) for m in methods if PLAIN.get(m) in methods]


def against_sam(methods: tuple[str, ...]) -> list[Pair]:
    """Every F- method with joint SAM."""
    return [(m, SAM) for m in methods if m in PLAIN and m != SAM and SAM in methods]


def reported(result: StudyResult) -> pd.DataFrame:
    """Tidy, at the chosen radius, each metric on the split of its claim."""
    table = tidy.of_study(result)
    split = table["metric"].map({name: claim.split for name, claim in CLAIMS.items()})
    return table[table["chosen"] & (table["split"] == split)]


def runs(result: StudyResult) -> pd.DataFrame:
    """What is reported, `[seeds]` for each of RUNS."""
    return reported(result).pivot(index="seed", columns=RUNS, values="value")


def differences(result: StudyResult) -> pd.DataFrame:
    """Of pairs, the method minus the other one, `[seeds]` for each of PAIRS."""
    methods, table = result.first.settings.methods, runs(result)
    found = {
        (method, other): table[method] - table[other]
        for method, other in against_plain(methods) + against_sam(methods)
    }
    return pd.concat(found, axis=1, names=PAIRS) if found else pd.DataFrame()


def tallies(found: pd.DataFrame, pair: Pair) -> dict[str, Tally]:
    """Metric -> what all conditions say of two methods, of `differences`."""
    return {
        metric: tally(found[(*pair, metric)].to_numpy(), claim.sign)
        for metric, claim in CLAIMS.items()
    }
