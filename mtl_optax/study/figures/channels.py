"""The figure of channels and the tasks that are first on them."""

from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn
from mtl_optax.study.styles import PALETTE
from mtl_optax.study.verdicts.channels import first_tasks


def channels(results: Results) -> Drawn:
    """A row of panels a method, a panel a layer, a row of channels a seed."""
    tasks, number = results.tasks, len(results.outcomes)
    owners = {method: first_tasks(x) for method, x in results.outcomes.items()}
    seeds, layers, _ = next(iter(owners.values())).shape
    size = 9, 1 + (0.5 + 0.2 * seeds) * number
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(number, layers, squeeze=False, sharex=True, sharey=True)
    colours = ListedColormap(PALETTE[: len(tasks)])
    for row, (method, first) in zip(axes, owners.items(), strict=True):
        row[0].set_ylabel(method, rotation=0, ha="right", va="center")
        for layer, ax in enumerate(row):
            ax.imshow(
                *(first[:, layer], colours),
                vmin=-0.5,
                vmax=len(tasks) - 0.5,
                aspect="auto",
            )
            ax.set_yticks([])
            ax.grid(False)
    for layer, ax in enumerate(axes[0]):
        ax.set_title(f"convolution {layer + 1}")
    figure.supxlabel("channel; a row is a seed", size="medium")
    patches = [Patch(color=colours(t), label=task) for t, task in enumerate(tasks)]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(tasks))
    return Drawn(
        figure,
        "The task with the largest connection strength on each channel, at the end of "
        "training. Channels have no order; seeds start from different weights.",
    )
