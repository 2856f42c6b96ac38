"""The figure of groups over training: which tasks step together."""

from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn
from mtl_optax.study.styles import PALETTE


def groups_over_time(results: Results) -> Drawn | None:
    """A panel a method; in it a band a seed, a row a task, a colour a group."""
    known = {
        method: outcome.readings["groups"][:, 0]  # [records, seeds, T]
        for method, outcome in results.outcomes.items()
        if "groups" in outcome.readings
    }
    if not known:
        return None
    seeds, tasks = results.settings.seeds, results.tasks
    height = 1.2 + 0.14 * seeds * len(tasks)
    figure = Figure(figsize=(9, max(2.4, height)), layout="constrained")
    axes = figure.subplots(1, len(known), squeeze=False, sharey=True)[0]
    colours = ListedColormap(list(PALETTE)[: len(tasks)])
    for ax, (method, labels) in zip(axes, known.items(), strict=True):
        ax.imshow(
            _rows(labels),
            aspect="auto",
            interpolation="nearest",
            cmap=colours,
            vmin=0,
            vmax=len(tasks) - 1,
            extent=(0, results.settings.steps, seeds * len(tasks), 0),
        )
        for seed in range(1, seeds):
            ax.axhline(seed * len(tasks), color="white", lw=4)
        ax.set(title=method, xlabel="step")
        ax.grid(False)
    middles = [(seed + 0.5) * len(tasks) for seed in range(seeds)]
    axes[0].set_yticks(middles, [f"seed {seed}" for seed in range(seeds)])
    return Drawn(
        figure,
        f"Which tasks step together: tasks of one colour are a group, named by its "
        f"first task. In each band, from above: {', '.join(tasks)}. The blocks are "
        f"recovered where the upper half has one colour and the lower half another.",
    )


def _rows(labels: NDArray) -> NDArray:
    """Labels `[records, seeds, T]` as an image `[seeds * T, records]`."""
    return labels.reshape(len(labels), -1).T
