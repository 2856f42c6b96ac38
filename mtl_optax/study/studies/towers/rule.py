"""What wide towers cost, what auxiliary ones give back, and the two tasks' front."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.compare import Judgement, Results
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts import paired

PLAIN, AUXILIARY, FIXED = "unitary", "self_auxiliary", "weighted"
GAMMAS = (0.1, 0.3, 1.0, 3.0)
# Of the right task, where the left one has 1: shares of left from 0.95 to 0.05
SHARES = (0.95, 0.8, 0.65, 0.5, 0.35, 0.2, 0.05)
WEIGHTS = tuple((1 - x) / x for x in SHARES)
WORST = float(np.log(10))  # the loss of a uniform guess among ten digits

RULE = (
    f"{PLAIN} is the sum of both tasks' losses, {AUXILIARY} the same with gamma times "
    f"the loss of a linear tower in each of them. gamma is the one of "
    f"{', '.join(f'{x:g}' for x in GAMMAS)} with the best validation accuracy, on "
    f"other seeds than those reported: four tries against one. The gap is test loss "
    f"minus training loss; both are those of the towers that stay. {paired.INTERVALS}"
)
FRONT_RULE = (
    f"The front is trained with fixed weights, left {', '.join(map(str, SHARES))} and "
    f"right the rest. The hypervolume is the share of the square from 0 to log 10 (a "
    f"uniform guess) in both test losses in which some weighting is better in both. "
    f"gamma is chosen by validation hypervolume, for each seed on the other seeds."
)


def measured(outcome: Outcome) -> dict[str, NDArray]:
    """What is reported of the chosen runs, each `[seeds, T]`."""
    best = outcome.chosen[0]
    test, train = (outcome.metrics[split]["loss"][best, 0] for split in ("test", "fit"))
    return {
        "train loss": train,
        "test loss": test,
        "gap": test - train,
        "accuracy": outcome.metrics["test"]["accuracy"][best, 0],
    }


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Of one part: the runs with auxiliary towers against those without."""
    words, sentences = {}, {}
    for method, outcome in outcomes.items():
        found = measured(outcome)
        loss, gap = (found[name].mean() for name in ("test loss", "gap"))
        words[method] = ""
        sentences[method] = f"{method}: test loss {loss:.3f}, gap {gap:.3f}."
    plain = next((x for x in (PLAIN, FIXED) if x in outcomes), None)
    if plain is None or AUXILIARY not in outcomes:
        return Judgement(words, sentences, "There is nothing to compare.")
    ours, others = measured(outcomes[AUXILIARY]), measured(outcomes[plain])
    parts = [
        f"{name} {paired.changes(factor * (ours[name] - others[name]), tasks)}"
        for name, factor in (("accuracy", 1), ("test loss", 100))
    ]
    statement = f"{AUXILIARY} minus {plain}: {'; 100 × '.join(parts)}."
    return Judgement(words, sentences, statement)


class Front(NamedTuple):
    """Test losses under all weightings, and what they cover; plain has gamma 0."""

    gammas: tuple[float, ...]
    losses: NDArray  # [gammas, weights, seeds, T]
    volume: NDArray  # [gammas, seeds], in percent
    chosen: NDArray  # [seeds], in percent: gamma > 0, chosen on the other seeds


def front(results: Results) -> Front:
    """Of the part in which weights of tasks are varied."""
    grid = results.settings.grids[AUXILIARY]
    gammas = (0.0, *grid["gamma"])
    volumes, losses = {}, {}
    for split in ("val", "test"):
        parts = [
            results.outcomes[method].metrics[split]["loss"][:, 0]
            for method in (FIXED, AUXILIARY)
        ]
        values = np.concatenate(parts)
        values = values.reshape(len(gammas), -1, *values.shape[1:])
        losses[split] = values
        volumes[split] = 100 * np.array(
            [[hypervolume(x) for x in np.moveaxis(own, 1, 0)] for own in values]
        )
    seeds = np.arange(values.shape[2])
    picked = [
        1 + volumes["val"][1:, seeds != seed].mean(axis=1).argmax() for seed in seeds
    ]
    return Front(
        gammas, losses["test"], volumes["test"], volumes["test"][picked, seeds]
    )


def hypervolume(points: NDArray, worst: float = WORST) -> float:
    """The share of a square from 0 that pairs of losses `[N, 2]` leave behind them."""
    area, height = 0.0, worst
    for x, y in points[np.argsort(points[:, 0])]:
        if x < worst and y < height:
            area += (worst - x) * (height - y)
            height = y
    return area / worst**2
