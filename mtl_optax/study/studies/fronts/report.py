"""What the study of fronts shows: the ends of all runs, measures, and the claim."""

import numpy as np
import pandas as pd

from mtl_optax.study.data.pareto_problems import PROBLEMS
from mtl_optax.study.engine.study import PartResult, StudyResult
from mtl_optax.study.report import claims, parts
from mtl_optax.study.report.document import Document, Table
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import mean_sd
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.fronts.claim import CLAIM, measured
from mtl_optax.study.studies.fronts.measures import measures, points, shares


def fronts(result: PartResult) -> Drawn:
    """A panel a method."""
    plot, panels = grid(len(result.methods), 2.8, 2.8, columns=3)
    front, looks = PROBLEMS[result.part.name].front(201), styles(result.methods)
    for ax, (method, own) in zip(panels, result.methods.items(), strict=True):
        ax.plot(*front.T, color="0.75", lw=4)
        first, second = points(own).reshape(-1, 2).T
        look = looks[method]
        ax.plot(first, second, look.marker, color=look.colour, ms=4, mew=0, alpha=0.5)
        ax.set(title=method, xlim=(-0.05, 1.15), ylim=(-0.05, 1.15))
    plot.supxlabel("first loss", size="medium")
    plot.supylabel("second loss", size="medium")
    seeds, every = points(next(iter(result.methods.values()))).shape[:2]
    return Drawn(
        plot,
        f"Where the runs of {every} preferences from {seeds} starts end; grey: the "
        "known front.",
    )


def coverage(result: PartResult) -> Table:
    """A row a method."""
    rows = []
    for method, own in result.methods.items():
        found = measures(result.part.name, own)
        percents = (found.volume, found.of_best, found.between)
        cells = [mean_sd(100 * x) for x in percents]
        rows.append([method, *cells, mean_sd(found.gap, 3)])
    return Table(
        "Coverage of the front",
        "Mean ± sd over starts: volume in percent of the front's, and of what points "
        "of the front on the rays of the same preferences have; percent of the runs "
        "between the ends; the largest distance from a point of the front to the "
        "nearest run.",
        ["method", "volume", "of the rays'", "between", "gap"],
        rows,
        styles(result.methods),
    )


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """coverage.csv: a row a method and start; front.csv: a row a run."""
    starts, runs = [], []
    for method, own in result.methods.items():
        found = measures(result.part.name, own)._asdict()
        seeds = {"method": method, "seed": range(result.settings.seeds)}
        starts.append(pd.DataFrame(seeds | found))
        every = points(own)
        number, count = every.shape[:2]
        runs.append(
            pd.DataFrame(
                {
                    "method": method,
                    "seed": np.repeat(np.arange(number), count),
                    "share_of_first": np.tile(shares(own), number),
                    "first": every[..., 0].ravel(),
                    "second": every[..., 1].ravel(),
                }
            )
        )
    return {"coverage.csv": pd.concat(starts), "front.csv": pd.concat(runs)}


def document(whole: StudyResult, documents: dict[str, Document]) -> Document:
    """The claim, then each part."""
    common, found = parts.document(whole, documents), measured(whole.parts)
    return common._replace(
        body=[claims.shown(CLAIM, found), *common.body],
        files=claims.files(CLAIM, found),
    )
