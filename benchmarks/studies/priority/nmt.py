"""Digits first: the NMT-style method against fixed weightings, tuned as one would.

Four tasks of Multi-digits; parity and comparison are subordinate to the two digits. The
method claims to need no tuning: it trains task after task and holds the digits where
their stages left them. A fixed weighting has the weight of the subordinate tasks to be
chosen, from a grid of seven.
"""

from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.problem import Metric, Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Judgement, MethodResult, Part, PartResult
from mtl_optax.study.report import paired
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.styles import styles

FIRST, LATER = (0, 1), (2, 3)  # tasks: the digits; parity and comparison
NMT, FIXED = "nmt", "weighted"
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the subordinate tasks
RATE = 1e-3
STAGE = 500.0

RULE = (
    f"The primary metric is the mean test accuracy of the two digits, the subordinate "
    f"one that of the other two tasks. {FIXED} is the sum with one weight for both "
    f"subordinate tasks, from {', '.join(f'{w:g}' for w in WEIGHTS)}; the best of the "
    f"grid is that with the best primary metric on validation data, over other seeds "
    f"than those reported. {NMT} trains left, right, parity and greater for "
    f"{STAGE:g} steps each; its multiplier rate is chosen likewise, from three, of "
    f"which the smallest is the learning rate: what the reconstruction suggests. The "
    f"excess is the loss on all training images at the end, minus the target that the "
    f"method measured in the last tenth of the task's stage. The equations of {NMT} "
    f"are INFERRED: reconstructed from the paper's abstract and Platt and Barr 1987. "
    f"{paired.INTERVALS}"
)
CAPTION = (
    "Test accuracy of the first tasks against that of the subordinate ones, mean and "
    "sd over seeds. The numbers are multiplier rates and weights."
)


def problem() -> Problem:
    """Multi-digits with four tasks; losses too, and on training images too."""
    plain = digits_problem(4)

    def evaluate(params: Any, state: Any, split: Any, key: Any) -> dict[str, jax.Array]:
        losses, _ = plain.losses(params, state, split, None)
        found = plain.evaluate(params, state, split, key)
        return {**found, "loss": jnp.stack(losses)}

    return plain._replace(
        splits={**plain.splits, "all training images": plain.splits["train"]},
        metrics=(*plain.metrics, Metric("loss", "", higher_is_better=False)),
        evaluate=evaluate,
        chosen_by=FIRST,
    )


def primary_and_later(result: MethodResult) -> tuple[NDArray, NDArray]:
    """Both metrics of all candidates `[candidates, seeds]`."""
    accuracy = result.metrics["test"]["accuracy"][:, 0]
    return accuracy[..., FIRST].mean(axis=-1), accuracy[..., LATER].mean(axis=-1)


def excess(result: MethodResult) -> NDArray:
    """Of the digits' losses over their targets, `[seeds, 2]`."""
    loss = result.metrics["all training images"]["loss"][result.chosen[0], 0]
    return paired.minus(loss, result.readings["targets"][-1, 0])[:, FIRST]


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Whether the method that needs no tuning is as good as the best of the grid."""
    best = {
        method: [values[result.chosen[0]] for values in primary_and_later(result)]
        for method, result in results.items()
    }
    words = dict.fromkeys(results, "")
    sentences = {
        method: f"{method}: digits {own[0].mean():.2f} %, parity and greater "
        f"{own[1].mean():.2f} %."
        for method, own in best.items()
    }
    if NMT in results:
        digits = tuple(tasks[t] for t in FIRST)
        over = paired.changes(100 * excess(results[NMT]), digits)
        sentences[NMT] += f" Excess of the loss over its target, times 100: {over}."
    if NMT not in results or FIXED not in results:
        return Judgement(words, sentences, f"No statement without {NMT} and {FIXED}.")
    primary, later = (a - b for a, b in zip(best[NMT], best[FIXED], strict=True))
    number = len(primary_and_later(results[FIXED])[0])
    statement = (
        f"{NMT} against the best of {number} fixed weightings: digits "
        f"{paired.change(primary)} points, parity and greater {paired.change(later)} "
        f"points. Its equations are reconstructed, not the paper's (INFERRED)."
    )
    return Judgement(words, sentences, statement)


def tradeoff(result: PartResult) -> Drawn:
    """A point a setting of each method, with its sd in both directions."""
    figure, (ax,) = grid(1, 7, 3.9, columns=1)
    looks = styles(result.methods)
    for method, own in result.methods.items():
        primary, later = primary_and_later(own)
        several = primary.shape[1] > 1
        at = later.mean(axis=1), primary.mean(axis=1)
        ax.errorbar(
            *at,
            xerr=later.std(axis=1, ddof=1) if several else None,
            yerr=primary.std(axis=1, ddof=1) if several else None,
            fmt=looks[method].marker,
            color=looks[method].colour,
            capsize=2,
            label=method,
        )
        for candidate, point in zip(own.candidates, zip(*at, strict=True), strict=True):
            first = next(iter(candidate.settings.values()), 0.0)
            text = f"{first:g}"
            ax.annotate(text, point, xytext=(4, 4), textcoords="offset points")
    ax.set(xlabel="parity and greater / %", ylabel="digits / %")
    ax.legend()
    return Drawn(figure, CAPTION)


def grid_table(result: PartResult) -> Table:
    """All candidates of all methods, chosen or not."""
    rows = []
    for method, own in result.methods.items():
        values = zip(own.candidates, *primary_and_later(own), strict=True)
        for c, (candidate, primary, later) in enumerate(values):
            mark = "chosen" if c == own.chosen[0] else ""
            cells = paired.mean_sd(primary, 2), paired.mean_sd(later, 2), mark
            rows.append([method, candidate.more(), *cells])
    head = ["method", "settings", "digits", "parity and greater", ""]
    note = "Test accuracy in percent, mean ± sd over seeds."
    return Table("All settings", note, head, rows, styles(result.methods))


_SETTINGS = Settings(
    (NMT, FIXED),
    tuning_seeds=5,
    steps=4 * int(STAGE),
    learning_rates=(RATE,),
    schedule="constant",
    points=100,
    grids={
        NMT: {"multiplier_lr": (RATE, 0.1, 1.0), "stage_steps": (STAGE,)},
        FIXED: {"later": WEIGHTS},
    },
)

PART = Part(
    name="nmt",
    title="Digits first",
    question="Two digits overlap in each image. Naming them comes first; whether their "
    "sum is odd and whether the left one is greater is subordinate. Does a method with "
    "multipliers hold the digits as well as the best of seven fixed weightings does, "
    "without tuning?",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(
        seeds=2,
        tuning_seeds=1,
        steps=80,
        points=8,
        grids={NMT: {"stage_steps": (20.0,)}, FIXED: {"later": (0.1, 1.0)}},
        quick=True,
    ),
    figures=(tradeoff,),
    rules=(RULE,),
    judge=judge,
    baseline=FIXED,
    has_single_task=False,
    tables=(grid_table,),
    readings=("targets",),
)
