"""What wide towers cost, what auxiliary ones give back, and the two tasks' front."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.study import Judgement, MethodResult, PartResult
from mtl_optax.study.report.paired import INTERVALS, changes, minus

PLAIN, AUXILIARY, FIXED = "unitary", "self_auxiliary", "weighted"
GAMMAS = (0.1, 0.3, 1.0, 3.0)
LEFT_WEIGHTS = (0.95, 0.8, 0.65, 0.5, 0.35, 0.2, 0.05)  # of two that sum to 1
WORST = float(np.log(10))  # the loss of a uniform guess among ten digits

RULE = (
    f"{PLAIN} is the sum of both tasks' losses, {AUXILIARY} the same with gamma times "
    f"the loss of a linear tower in each of them. gamma is the one of "
    f"{', '.join(f'{x:g}' for x in GAMMAS)} with the best validation accuracy, on "
    f"other seeds than those reported: four tries against one. The gap is test loss "
    f"minus training loss; both are those of the towers that stay. {INTERVALS}"
)
FRONT_RULE = (
    f"The front is trained with fixed weights, left {', '.join(map(str, LEFT_WEIGHTS))}"
    f" and right the rest. The hypervolume is the share of the square from 0 to log 10 "
    f"(a uniform guess) in both test losses in which some weighting is better in both. "
    f"gamma is chosen by validation hypervolume, for each seed on the other seeds."
)


def measured(own: MethodResult) -> dict[str, NDArray]:
    """What is reported of the chosen runs, each `[seeds, T]`."""
    best = own.chosen[0]
    test, train = (own.metrics[split]["loss"][best, 0] for split in ("test", "fit"))
    return {
        "train loss": train,
        "test loss": test,
        "gap": minus(test, train),
        "accuracy": own.metrics["test"]["accuracy"][best, 0],
    }


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Of one part: the runs with auxiliary towers against those without."""
    found = {method: measured(own) for method, own in results.items()}
    sentences = {
        method: f"{method}: test loss {own['test loss'].mean():.3f}, gap "
        f"{own['gap'].mean():.3f}."
        for method, own in found.items()
    }
    words = dict.fromkeys(results, "")
    plain = next((x for x in (PLAIN, FIXED) if x in results), None)
    if plain is None or AUXILIARY not in results:
        return Judgement(words, sentences, "There is nothing to compare.")
    accuracy, loss = (
        changes(factor * minus(found[AUXILIARY][name], found[plain][name]), tasks)
        for name, factor in (("accuracy", 1), ("test loss", 100))
    )
    statement = f"{AUXILIARY} minus {plain}: accuracy {accuracy}; 100 × test loss"
    return Judgement(words, sentences, f"{statement} {loss}.")


class Front(NamedTuple):
    """Test losses under all weightings, and what they cover; plain has gamma 0."""

    gammas: tuple[float, ...]
    losses: NDArray  # [gammas, weights, seeds, T]
    volume: NDArray  # [gammas, seeds], in percent
    # [seeds], in percent: gamma > 0, chosen on the other seeds; None without others
    chosen: NDArray | None


def front(result: PartResult) -> Front:
    """Of the part in which weights of tasks are varied."""
    gammas = (0.0, *result.settings.grids[AUXILIARY]["gamma"])
    volumes, losses = {}, {}
    for split in ("val", "test"):
        values = np.concatenate(
            [result.methods[x].metrics[split]["loss"][:, 0] for x in (FIXED, AUXILIARY)]
        )
        values = values.reshape(len(gammas), -1, *values.shape[1:])
        losses[split] = values
        volumes[split] = 100 * np.array(
            [[hypervolume(x) for x in np.moveaxis(own, 1, 0)] for own in values]
        )
    volume = volumes["test"]
    seeds = np.arange(volume.shape[1])
    if len(seeds) < 2:
        return Front(gammas, losses["test"], volume, None)
    picked = [
        1 + volumes["val"][1:, seeds != seed].mean(axis=1).argmax() for seed in seeds
    ]
    return Front(gammas, losses["test"], volume, volume[picked, seeds])


def hypervolume(points: NDArray, worst: float = WORST) -> float:
    """The share of a square from 0 that pairs of losses `[N, 2]` leave behind them."""
    area, height = 0.0, worst
    for x, y in points[np.argsort(points[:, 0])]:
        if x < worst and y < height:
            area += (worst - x) * (height - y)
            height = y
    return area / worst**2
