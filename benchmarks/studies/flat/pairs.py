"""Who is compared with whom: the numbers of all conditions, and their differences."""

from collections.abc import Sequence

import pandas as pd

from benchmarks.studies.flat.rule import CLAIMS, PLAIN, SAM, SAMO, Tally, tally
from mtl_optax.study.engine import tidy
from mtl_optax.study.engine.study import StudyResult

Pair = tuple[str, str]
RUN = ["condition", "metric", "task", "seed"]


def against_plain(methods: Sequence[str]) -> list[Pair]:
    """The pairs that are both there."""
    return [(m, PLAIN[m]) for m in methods if PLAIN.get(m) in methods]


def against_flat(methods: Sequence[str]) -> list[Pair]:
    """Every S- method with the F- method around the same one."""
    found = [(method, f"f_{plain}") for method, plain in SAMO.items()]
    return [pair for pair in found if set(pair) <= set(methods)]


def against_sam(methods: Sequence[str]) -> list[Pair]:
    """Every F- and S- method with joint SAM."""
    return [(m, SAM) for m in methods if m in PLAIN and m != SAM and SAM in methods]


def runs(result: StudyResult) -> pd.DataFrame:
    """A row a number: at the chosen radius, each metric on the split of its claim."""
    table = tidy.of_study(result).rename(columns={"part": "condition"})
    table = table.assign(radius=table["candidate"].str.partition("=")[2])
    of_claims = [
        table[(table["metric"] == metric) & (table["split"] == claim.split)]
        for metric, claim in CLAIMS.items()
    ]
    return pd.concat(of_claims).query("chosen")


def differences(result: StudyResult) -> pd.DataFrame:
    """A row a run of a pair: the method minus the other one."""
    methods = result.first.settings.methods
    table = runs(result).set_index([*RUN, "method"])["value"]
    values = table.unstack("method", sort=False)
    every = (against_plain, against_flat, against_sam)
    of_pairs = [
        (values[method] - values[other])
        .reset_index(name="value")
        .assign(method=method, other=other)
        for pairs in every
        for method, other in pairs(methods)
    ]
    if not of_pairs:
        return pd.DataFrame(columns=[*RUN, "value", "method", "other"])
    return pd.concat(of_pairs)


def tallies(found: pd.DataFrame) -> dict[Pair, dict[str, Tally]]:
    """Pair -> metric -> what all conditions say, of `differences`."""
    every: dict[Pair, dict[str, Tally]] = {}
    keys = ["method", "other", "metric"]
    for (method, other, metric), own in found.groupby(keys, sort=False):
        single = own.pivot(index="seed", columns=["condition", "task"], values="value")
        counts = tally(single.to_numpy(), CLAIMS[metric].sign)
        every.setdefault((method, other), {})[metric] = counts
    return every
