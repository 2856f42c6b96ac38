"""The page on Meta-World, from what `metaworld` wrote; knows no JAX.

    python -m benchmarks.metaworld_page             # page and picture anew
    python -m benchmarks.metaworld_page RUN ...     # first takes in these runs

A run is a folder with `result.json`; it becomes `METHOD-SEED.json` beside the page.
What stands before and after the two lines of comment there is written by hand.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.figures import drawn
from benchmarks.report import page
from benchmarks.tables import table
from mtl_optax.rl.metaworld.checkpoint import RESULT, as_text

RESULTS = Path(__file__).parent / "results" / "metaworld"
COMMAND = "python -m benchmarks.metaworld_page"
BEGIN = f"<!-- Made by `{COMMAND}`; what is written here is lost. -->"
TITLE = "Meta-World: three easy tasks, a small budget"
PICTURE = "curves.svg"
LAST = 5  # evaluations that the tables average
READINGS = {
    "success": "success at the last step",
    "any_success": "success at any step",
    "return": "return",
}
# How others measured, and no number of theirs: none of them is comparable with ours.
PROTOCOLS = (
    *(("where", "suite", "reward", "success", "networks, batch", "steps", "seeds"),),
    (
        *("Yu et al. 2020 (PCGrad)", "MT10, MT50 of the first version"),
        *("not said", "mean over tasks; which reading is not said"),
        *("6 layers of 160 (MT10) or 300, 128 a task", "5M, 20M in all", "curves"),
    ),
    (
        *("CARE, CAGrad and later papers", "MT10, MT50 of 26 February 2021"),
        *("not said", "best over training of the seeds' mean, every 10,000 steps"),
        *("3 layers of 400, 1280 in all", "2M a task", "10"),
    ),
    (
        *("rainx0r/metaworld-algorithms", "MT10, a fork of Meta-World", "as set"),
        *("at any step: an evaluation ends there; 50 episodes",),
        *("as set; 1280 in all", "20M in all", "as set"),
    ),
)


class Measured(NamedTuple):
    """The finished runs of one method."""

    seeds: list[int]
    runs: list[Mapping[str, Any]]

    def curve(self, reading: str) -> NDArray:
        """`[seeds, stages, K]`."""
        rows = [[record[reading] for record in run["records"]] for run in self.runs]
        return np.array(rows)

    def seconds(self, part: str, clock: str) -> NDArray:
        """`[seeds]`, over the run."""
        runs = [[record[part][clock] for record in run["records"]] for run in self.runs]
        return np.array(runs).sum(axis=1)


def read(folder: Path) -> tuple[dict[str, Measured], list[str]]:
    """Finished runs by method, and a line for each that is not."""
    found: dict[str, Measured] = {}
    unfinished = []
    order = ("unitary", "pcgrad", "cagrad")
    runs = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    runs.sort(key=lambda run: (run["run"]["method"], run["run"]["seed"]))
    runs.sort(
        key=lambda run: [*order, run["run"]["method"]].index(run["run"]["method"])
    )
    for run in runs:
        of, done = run["run"], len(run["records"])
        _check_alike(runs[0]["run"], of)
        if done < of["stages"]:
            line = f"{of['method']}, seed {of['seed']}: {done} of {of['stages']} stages"
            unfinished.append(line)
            continue
        own = found.setdefault(of["method"], Measured([], []))
        own.seeds.append(of["seed"])
        own.runs.append(run)
    return found, unfinished


def _check_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    differing = [key for key in one if one[key] != other.get(key)]
    differing = [key for key in differing if key not in ("method", "seed")]
    if differing:
        raise ValueError(
            f"runs of {one['method']} and {other['method']} differ in "
            f"{', '.join(differing)}: one page is of one protocol. Move one of them."
        )


def protocol(run: Mapping[str, Any]) -> str:
    """All that must stand beside the numbers."""
    tasks, steps = len(run["tasks"]), run["stages"] * run["every"]
    hidden = " x ".join(map(str, run["hidden"]))
    versions = ", ".join(f"{name} {v}" for name, v in run["versions"].items())
    lines = [
        f"{', '.join(run['tasks'])}; reward function "
        f"**{run['reward_function_version']}**; episodes of {run['max_episode_steps']} "
        "steps, no termination at success.",
        f"{steps * tasks:,} environment steps in all, {steps:,} a task, the first "
        f"{run['random_steps']:,} of each at random; steps of all tasks to an update: "
        f"{run['update_every']}; {run['batch_size']} transitions of each in a batch; a "
        f"buffer of {run['capacity']:,} a task.",
        f"Multi-head networks {hidden}, ReLU; {run['optimiser']}; the method acts on "
        "what tasks share, in actor and critics apart.",
        f"Evaluation every {run['every']:,} steps a task: {run['episodes']} "
        "episodes of each with the policy's mean, on goals of seed "
        f"{run['evaluation_seed']}, which are not those of the training. *Success at "
        "the last step* counts an episode whose last step is a success, *at any step* "
        "one that has some.",
        f"Device: {run['device']}, {run['threads']} thread(s). {versions}.",
    ]
    return "\n".join(f"* {line}" for line in lines)


def spread(values: NDArray, digits: int = 2) -> str:
    """Mean over seeds, and the least and the greatest."""
    mean, low, high = (f"{f(values):,.{digits}f}" for f in (np.mean, np.min, np.max))
    return f"{mean} ({low} to {high})"


def of_reading(
    found: Mapping[str, Measured], tasks: Sequence[str], reading: str
) -> str:
    """A table: a method a row, a task a column."""
    digits = 0 if reading == "return" else 2
    rows = []
    for method, own in found.items():
        last = own.curve(reading)[:, -LAST:].mean(axis=1)
        cells = [spread(last.mean(axis=1), digits)]
        cells += [spread(last[:, k], digits) for k in range(len(tasks))]
        rows.append([method, str(len(own.seeds)), *cells])
    return table(["method", "seeds", "all tasks", *tasks], rows)


def times(found: Mapping[str, Measured]) -> str:
    """A table of minutes."""
    rows = []
    for method, own in found.items():
        parts = [
            spread(own.seconds(part, clock) / 60, 1)
            for part in ("train", "evaluate")
            for clock in ("wall_s", "cpu_s")
        ]
        rows.append([method, *parts])
    head = ["training, wall", "training, CPU", "evaluation, wall", "evaluation, CPU"]
    return table(["method", *(f"{name}, minutes" for name in head)], rows)


def made(folder: Path) -> str:
    """What stands between the two lines of comment."""
    found, unfinished = read(folder)
    parts = []
    if unfinished:
        parts.append(f"**Not finished, and not below:** {'; '.join(unfinished)}.")
    if found:
        run = next(iter(found.values())).runs[0]["run"]
        parts += [
            *("## Protocol", protocol(run), f"![Success and return]({PICTURE})"),
            "The mean over seeds, and from the least to the greatest of them. Tables: "
            f"the mean of the last {LAST} evaluations of each seed.",
        ]
        for reading, title in READINGS.items():
            title = title[0].upper() + title[1:]
            parts += [f"## {title}", of_reading(found, run["tasks"], reading)]
        parts += ["## Time of a run", times(found)]
    head, *rows = PROTOCOLS
    parts += ["## How others measured", table(head, rows)]
    return "\n\n".join(parts)


def draw(found: Mapping[str, Measured], path: Path) -> None:
    """A row a reading, a column for all tasks and for each."""

    def figure() -> Figure:
        run = next(iter(found.values())).runs[0]["run"]
        names = ["all tasks", *run["tasks"]]
        fig = Figure((2.4 * len(names), 2.0 * len(READINGS)), layout="constrained")
        axes = fig.subplots(len(READINGS), len(names), squeeze=False, sharex=True)
        for (reading, title), line in zip(READINGS.items(), axes, strict=True):
            for method, own in found.items():
                values = own.curve(reading)
                values = np.concatenate([values.mean(-1, keepdims=True), values], -1)
                steps = [r["environment_steps"] / 1e3 for r in own.runs[0]["records"]]
                for ax, curve in zip(line, np.moveaxis(values, -1, 0), strict=True):
                    ax.plot(steps, curve.mean(axis=0), label=method)
                    ax.fill_between(steps, curve.min(0), curve.max(0), alpha=0.15)
            line[0].set_ylabel(title)
            for ax in line if reading != "return" else ():
                ax.set_ylim(-0.05, 1.05)
        for ax, name in zip(axes[0], names, strict=True):
            ax.set_title(name)
        for ax in axes[-1]:
            ax.set_xlabel("1,000 environment steps")
        axes[0][0].legend()
        return fig

    drawn(path, figure)


def take(runs: Sequence[Path], folder: Path) -> None:
    """Their results, a file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in runs:
        run = json.loads((path / RESULT).read_text("utf-8"))
        name = f"{run['run']['method']}-{run['run']['seed']}.json"
        (folder / name).write_text(as_text(run["run"], run["records"]), "utf-8")


def write(folder: Path = RESULTS) -> Path:
    """Page and picture of the results in a folder; returns the page's path."""
    found, _ = read(folder)
    if found:
        draw(found, folder / PICTURE)
    target = folder / "README.md"
    old = target.read_text("utf-8") if target.exists() else None
    target.write_text(page(old, TITLE, made(folder), target.name, BEGIN), "utf-8")
    return target


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders with result.json")
    take(parser.parse_args(argv).runs, RESULTS)
    print(f"Written: {write()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
