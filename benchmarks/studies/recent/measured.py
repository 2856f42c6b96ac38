"""The chosen runs of a part, from a result or from the files that it left.

`runs.csv` has a row a method, scale and seed, and a column a task: small enough to be
kept, and all that pairs of methods are compared by.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_optax.study.engine.study import PartResult

KEY = ["method", "scale", "candidate", "seed"]
RUNS = "runs.csv"


class Measured(NamedTuple):
    """Test accuracy in percent, and what was chosen and said."""

    tasks: tuple[str, ...]
    scales: tuple[float, ...]
    scores: dict[str, NDArray]  # method -> [scales, seeds, T]
    chosen: dict[str, tuple[str, ...]]  # method -> candidate of each scale
    verdicts: dict[str, str]  # method -> word of the rule on scales


def of_part(result: PartResult) -> Measured:
    """What a run says."""
    return Measured(
        *(result.tasks, result.part.scales),
        {name: own.score for name, own in result.methods.items()},
        {name: tuple(map(str, result.chosen(name))) for name in result.methods},
        result.judgement.verdicts,
    )


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """For `Part.files`."""
    own = of_part(result)
    rows = [
        (name, scale, own.chosen[name][s], seed, *accuracy)
        for name, scores in own.scores.items()
        for s, scale in enumerate(own.scales)
        for seed, accuracy in enumerate(scores[s])
    ]
    return {RUNS: pd.DataFrame(rows, columns=[*KEY, *own.tasks])}


def read(folder: Path) -> Measured:
    """What `files` and the configuration beside them say."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tasks, scales = tuple(config["tasks"]), tuple(config["loss_scales"])
    runs = pd.read_csv(folder / RUNS, dtype={"method": str, "candidate": str})
    scores, chosen = {}, {}
    for name, own in runs.groupby("method", sort=False):
        of_scales = [own[own["scale"] == scale] for scale in scales]
        scores[name] = np.stack([x[list(tasks)].to_numpy(float) for x in of_scales])
        chosen[name] = tuple(x["candidate"].iloc[0] for x in of_scales)
    return Measured(tasks, scales, scores, chosen, config["verdicts"])
