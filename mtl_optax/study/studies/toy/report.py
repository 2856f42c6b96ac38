"""What the toy shows beside what every study does: paths, end points, the claim."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_optax.study.data import toy as data
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report import claims, places
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.figures.paths import Ground, paths
from mtl_optax.study.report.frame import Drawn
from mtl_optax.study.studies.toy.claim import CLAIM, measured
from mtl_optax.study.studies.toy.rule import PLACES

GROUND = Ground(
    height=data.mean_loss,
    said="the mean loss",
    pareto_set=data.PARETO_SET,
    window=((-11, 11), (-11, 11)),
    star=data.MINIMUM,
    said_of_star="the minimum of the mean loss",
)
NUMBERS = {"mean_loss": data.mean_loss, "distance": data.distances}


def toy(result: PartResult) -> Drawn:
    """A panel a method."""
    return paths(result, _starts(result), GROUND)


def end_points(result: PartResult) -> Table:
    """A row a start, a column a method."""
    return places.table(result, _starts(result), data.mean_loss, "mean loss")


def claim(result: PartResult) -> Table:
    """What was claimed, and what is found."""
    return claims.shown(CLAIM, measured(result))


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """ends.csv, and claim.csv."""
    ends = places.files(result, _starts(result), PLACES, NUMBERS)
    return ends | claims.files(CLAIM, measured(result))


def _starts(result: PartResult) -> NDArray[np.float64]:
    seeds = range(result.settings.seeds)
    return np.array([data.start(seed, data.STARTS) for seed in seeds])
