"""On which the settings of `mtl-optax study groups` were fixed: seeds 5 to 9.

In how many of these seeds TAG and selective group updates find the two blocks of six
tasks (MLP), for each setting tried. The study itself reports seeds 0 to 4.
"""

import argparse
import csv
import itertools
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.studies.groups import rule
from benchmarks.studies.groups.blocks import block_digits, truth
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.program import Lanes, Recipe
from mtl_optax.study.engine.train import LanesResult, Work, train_all
from mtl_optax.study.engine.transformations import tag

SEEDS = range(5, 10)
TASKS, STEPS, RATE = 6, 400, 3e-3
SETTINGS = ("ahead", "decay", "warmup", "preference")
COLUMNS = ("method", *SETTINGS, "found_at_end", "second_half", "validation")
EVERY_STEP = "tag_every_step"  # not every tenth
KNOWN = {**METHODS, EVERY_STEP: partial(tag, every_k=1)}
GRIDS = (
    {"tag": {}},  # looks ahead with Adam, as it trains
    {
        "tag": {"ahead": (0.01, 0.1)},
        EVERY_STEP: {"ahead": (0.01, 0.003)},
        "selective_groups": {"decay": (1e-3, 1e-2), "warmup": (100.0,)},
        "selective_preference": {
            "decay": (1e-3, 1e-2),
            "warmup": (100.0,),
            "preference": (0.1, 0.2, 0.3),
        },
    },
)


def lanes(grid: dict[str, tuple[float, ...]]) -> Lanes:
    """All combinations, each with all seeds."""
    rows = [(seed, *x) for x in itertools.product(*grid.values()) for seed in SEEDS]
    columns = list(zip(*rows, strict=True))
    return Lanes(
        seed=np.array(columns[0], np.int32),
        learning_rate=np.full(len(rows), RATE),
        loss_scales=np.ones((len(rows), TASKS)),
        trained=np.ones((len(rows), TASKS)),
        settings={name: np.array(x) for name, x in zip(grid, columns[1:], strict=True)},
    )


def rows(method: str, work: Lanes, run: LanesResult) -> list[tuple]:
    """One a setting."""
    found = []
    for first in range(0, len(work.seed), len(SEEDS)):
        own = slice(first, first + len(SEEDS))
        if method.startswith("tag"):
            made = rule.tag_groups(run.log.readings["affinity"][-1, own])
            late = ""
        else:
            labels = run.log.readings["groups"][:, own]
            made = [rule.partition(x) for x in labels[-1]]
            late = f"{rule.fraction_recovered(labels, truth(TASKS)):.2f}"
        number = sum(rule.recovered(x, truth(TASKS)) for x in made)
        chosen = (
            f"{work.settings[x][first]:g}" if x in work.settings else ""
            for x in SETTINGS
        )
        accuracy = run.metrics["val"]["accuracy"][own].mean()
        found.append((method, *chosen, number, late, f"{accuracy:.2f}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tuning.csv"))
    out = parser.parse_args().out
    problem = block_digits(TASKS, "mlp")
    recipe = Recipe(
        *(STEPS, "adam", "constant"),
        record_every=STEPS // 50,
        readings=("affinity", "groups"),
    )
    table = []
    for grids in GRIDS:
        work = {
            name: Work(problem, KNOWN[name], lanes(grid))
            for name, grid in grids.items()
        }
        for name, run in train_all(work, recipe).items():
            table += rows(name, work[name].lanes, run)
    with open(out, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])
    print(out.read_text())


if __name__ == "__main__":
    main()
