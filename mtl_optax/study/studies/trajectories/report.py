"""What the study of trajectories shows: paths, distances, and the claim."""

from typing import Any

import numpy as np
import pandas as pd

from mtl_optax.study.engine.study import PartResult, StudyResult
from mtl_optax.study.report import claims, parts
from mtl_optax.study.report.document import Document, Table
from mtl_optax.study.report.figures.paths import Ground, paths
from mtl_optax.study.report.frame import Drawn
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.trajectories.claim import CLAIM, measured
from mtl_optax.study.studies.trajectories.measures import measures, whole_path
from mtl_optax.study.studies.trajectories.methods import times
from mtl_optax.study.studies.trajectories.quadratics import (
    QUADRATICS,
    pareto_set,
    values,
)
from mtl_optax.study.studies.trajectories.rule import arrived, raised


def trajectories(result: PartResult) -> Drawn:
    """A panel a method."""
    name = result.part.name
    own = QUADRATICS[name]
    first = next(iter(result.methods.values()))
    line = pareto_set(own, np.linspace(-30, 30, 401))
    is_point = np.ptp(line) == 0
    ground = Ground(
        # Their logarithm: the bowls are too steep for even steps.
        height=lambda points: np.log1p(values(own, points).sum(axis=-1)),
        said="the logarithm of 1 plus the sum of both objectives",
        pareto_set=line,
        window=own.window,
        star=(float(line[0, 0]), float(line[0, 1])) if is_point else None,
        said_of_star="its only point",
    )
    return paths(result, whole_path(name, first)[0], ground)


def distances(result: PartResult) -> Table:
    """A row a method, the worst over starts."""
    name = result.part.name
    rows = []
    for method, own in result.methods.items():
        found = measures(name, own)
        every = len(found.left)
        worst = [x.max() for x in (found.left, found.distance, found.stationarity)]
        worst += [found.cosine.min(), found.rise.max()]
        rows.append(
            [
                *(method, f"{times(name)[method]:g}"),
                f"{arrived(found)} of {every}",
                f"{raised(found)} of {every}",
                *(f"{x:.1e}" for x in worst),
            ]
        )
    return Table(
        "Distances",
        "The worst over starts: the distance to the Pareto set as a share of the first "
        "and as it is; the length of the shortest convex combination of gradients; the "
        "lowest cosine of a step with a gradient that it descends (negative: a "
        "conflict); the largest rise of an objective in a step, as a share of its "
        "first value (negative: none ever rose).",
        [
            *("method", "rate ×", "arrives", "raises one"),
            *("share left", "distance", "stationarity", "cosine", "rise"),
        ],
        rows,
        styles(result.methods),
    )


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """distances.csv: a row a method and start."""
    name = result.part.name
    tables = []
    for method, own in result.methods.items():
        start, end = whole_path(name, own)[[0, -1]]
        columns: dict[str, Any] = {"method": method, "rate_times": times(name)[method]}
        columns |= {"start_x": start[:, 0], "start_y": start[:, 1]}
        columns |= {"x": end[:, 0], "y": end[:, 1]}
        for key, numbers in measures(name, own)._asdict().items():
            columns[key] = [f"{x:.6g}" for x in numbers]  # small ones too
        tables.append(pd.DataFrame(columns))
    return {"distances.csv": pd.concat(tables)}


def document(whole: StudyResult, documents: dict[str, Document]) -> Document:
    """The claim, then each part."""
    common, found = parts.document(whole, documents), measured(whole.parts)
    return common._replace(
        body=[claims.shown(CLAIM, found), *common.body],
        files=claims.files(CLAIM, found),
    )
