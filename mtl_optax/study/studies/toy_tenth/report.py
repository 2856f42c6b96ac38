"""What the toy of two scales shows beside what every study does."""

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_optax.study.data import toy as data
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report import claims, places
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.figures.paths import Ground, paths
from mtl_optax.study.report.frame import Drawn
from mtl_optax.study.studies.toy_tenth.claim import CLAIM, measured
from mtl_optax.study.studies.toy_tenth.rule import PLACES

FIRST = 0.1  # the factor on the first loss
# Of Nash-MTL's and FAMO's code
STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
MEAN_LOSS = partial(data.mean_loss, first=FIRST)
GROUND = Ground(
    height=MEAN_LOSS,
    said=f"the mean loss, the first loss times {FIRST:g}",
    pareto_set=data.PARETO_SET,
    window=((-11, 11), (-11, 11)),
    star=(-5.7273, -8.4094),
    said_of_star="the minimum of that mean",
)


def toy_tenth(result: PartResult) -> Drawn:
    """A panel a method."""
    return paths(result, _starts(result), GROUND)


def end_points(result: PartResult) -> Table:
    """A row a start, a column a method."""
    return places.table(result, _starts(result), MEAN_LOSS, "mean loss")


def claim(result: PartResult) -> Table:
    """What was claimed, and what is found."""
    return claims.shown(CLAIM, measured(result))


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """ends.csv, and claim.csv."""
    numbers = {"mean_loss": MEAN_LOSS}
    ends = places.files(result, _starts(result), PLACES, numbers)
    return ends | claims.files(CLAIM, measured(result))


def _starts(result: PartResult) -> NDArray[np.float64]:
    return np.array([data.start(s, STARTS) for s in range(result.settings.seeds)])
