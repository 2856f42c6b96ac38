"""Connection strength on digits: which channels belong to whom, and what that is worth.

The sum, PCGrad, each phase of CSO alone, and both.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray

import mtl_optax as mtl
from benchmarks.studies.priority.cso_problem import problem
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Judgement, MethodResult, Part, PartResult
from mtl_optax.study.engine.transformations import Ingredients
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import change
from mtl_optax.study.report.rules import Results, against, judge_against
from mtl_optax.study.report.styles import PALETTE

BATCH = 64
EPOCHS = 6.4  # of training: 400 steps of 64 of 4000 images

RULE = (
    f"cso_phase_1 lets tasks step in turn all the time, cso_phase_2 projects all the "
    f"time, cso draws between them: phase 2 gets likelier by the epoch, from 0 to 1. A "
    f"channel belongs to the task with the largest connection strength, normalised "
    f"over the channels of its layer. Verdicts: {against()}"
)
CAPTION = (
    "The task with the largest connection strength on each channel, at the end of "
    "training. Channels have no order; seeds start from different weights."
)


def cso(
    of: Ingredients, total_epochs: Any = 1.0, uniform: float | None = None
) -> optax.GradientTransformation:
    """CSO, which counts its epochs itself; `uniform` in place of its draws."""
    assert of.problem.strength_fn is not None
    images = jax.tree.leaves(of.problem.splits["train"])[0]
    updates_an_epoch = len(images) // BATCH
    method = mtl.cso(
        of.num_tasks,
        of.optimizer,
        strength_fn=of.problem.strength_fn,
        total_epochs=total_epochs,
        key=of.key,
        owner=of.problem.owner,
    )

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), method.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        step, inner = state
        epoch = step // updates_an_epoch
        updates, inner = method.update(
            *(updates, inner, params), epoch=epoch, uniform=uniform, **extra
        )
        return updates, (step + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def first_tasks(result: MethodResult) -> NDArray[np.int64]:
    """The task that is first on each channel at the end, `[seeds, layers, C]`."""
    assert result.path is not None  # strengths [records, scales, seeds, layers, T, C]
    return result.path[-1, 0].argmax(axis=-2)


def judge(results: Results, tasks: tuple[str, ...]) -> Judgement:
    """Paired with the plain sum."""
    compared, base = judge_against(results, tasks), results.get(BASELINE)
    means = {
        method: change((own.score - base.score)[0].mean(axis=1))
        for method, own in results.items()
        if base is not None and method != BASELINE
    }
    for method, own in results.items():
        first = first_tasks(own)
        owned = [f"{x} {100 * (first == t).mean():.0f} %" for t, x in enumerate(tasks)]
        mean = f" Mean over tasks {means[method]} points." if method in means else ""
        compared.sentences[method] += f"{mean} First on channels: {', '.join(owned)}."
    statement = f"No statement without {BASELINE} and cso."
    if "cso" in means:
        statement = (
            f"Both phases together change the mean accuracy by {means['cso']} points "
            f"against {BASELINE}."
        )
    return compared._replace(statement=statement)


def channels(result: PartResult) -> Drawn:
    """A row of panels a method, a panel a layer, a row of channels a seed."""
    tasks, owners = result.tasks, list(map(first_tasks, result.methods.values()))
    seeds, layers, _ = owners[0].shape
    count, height = len(owners) * layers, 0.6 + 0.2 * seeds
    figure, axes = grid(count, 9 / layers, height, columns=layers)
    colours = ListedColormap(PALETTE[: len(tasks)])
    panels = (first[:, layer] for first in owners for layer in range(layers))
    for ax, first in zip(axes, panels, strict=True):
        limits = {"vmin": -0.5, "vmax": len(tasks) - 0.5}
        ax.imshow(first, colours, aspect="auto", **limits)
        ax.set_yticks([])
        ax.grid(False)
    for ax, method in zip(axes[::layers], result.methods, strict=True):
        ax.set_ylabel(method, rotation=0, ha="right", va="center")
    for layer, ax in enumerate(axes[:layers]):
        ax.set_title(f"convolution {layer + 1}")
    figure.supxlabel("channel; a row is a seed", size="medium")
    patches = [Patch(color=colours(t), label=task) for t, task in enumerate(tasks)]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(tasks))
    return Drawn(figure, CAPTION)


_SETTINGS = Settings(
    ("unitary", "pcgrad", "cso_phase_1", "cso_phase_2", "cso"),
    steps=400,
    learning_rates=(3e-3,),
    # On shared parameters phase 1 counts a step a task: a schedule would end early.
    schedule="constant",
    batch_size=BATCH,
    points=40,
    grids={"cso": {"total_epochs": (EPOCHS,)}},
)

PART = Part(
    name="cso",
    title="Channels and their tasks",
    question="Two digits overlap in each image; four tasks share two convolutions. "
    "First each task steps in turn, later each channel keeps what the task learned "
    "that depends on it most. What is each phase worth, and who owns which channels?",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(
        methods=("unitary", "cso"),
        seeds=2,
        steps=40,
        points=4,
        grids={"cso": {"total_epochs": (1.0,)}},
        quick=True,
    ),
    figures=(accuracy, differences, channels),
    rules=(RULE,),
    judge=judge,
    has_single_task=False,
    methods={
        "cso": cso,
        "cso_phase_1": partial(cso, uniform=1.0),
        "cso_phase_2": partial(cso, uniform=-1.0),
    },
)
