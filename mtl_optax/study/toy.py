"""The two-dimensional toy of CAGrad (Liu et al. 2021, Figure 1).

Signs are those of their code. Two losses with a narrow valley each above, and two bowls
below whose best compromise is known. A problem without data: the parameters are the
point, a seed is a start, and the path of the point is kept.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.compare import Judgement, Study
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.problem import Metric, Problem
from mtl_optax.study.settings import Settings

# The starts of the paper, of its code, and of later papers (FAMO, Nash-MTL).
STARTS = (
    *((-8.5, 7.5), (-8.5, 5.0), (9.0, 9.0), (-8.5, -5.0)),
    *((0.0, 0.0), (10.0, -8.0), (-7.5, -0.5), (9.0, -1.0)),
)
SIDE = 10.0  # further starts are drawn from the square around 0 with this half side
MINIMUM = (0.0, -8.3552)  # of the mean loss
NEAR = 0.05
PARETO = (-8.5, -8.25)  # the second coordinate on the Pareto set, and a margin
PLACES = {
    "minimum": "reaches the minimum of the mean loss",
    "Pareto set": "stops elsewhere on the Pareto set",
    "elsewhere": "does not arrive",
}

RULE = (
    f"minimum: the end lies within {NEAR:g} of ({MINIMUM[0]:g}, {MINIMUM[1]:g}), the "
    f"minimum of the mean loss. Pareto set: elsewhere between {PARETO[0]:g} and "
    f"{PARETO[1]:g} in the second coordinate, where no step is good for both losses. "
    f"elsewhere: the rest, most of them in a valley. Where on the Pareto set a run "
    f"ends depends on rounding: in the valleys Adam jumps from wall to wall."
)


def start(seed: int) -> NDArray[np.float64]:
    """STARTS, and after them random points."""
    if seed < len(STARTS):
        return np.array(STARTS[seed])
    return np.random.default_rng(seed).uniform(-SIDE, SIDE, 2)


def losses(point: jax.Array, batch: None = None) -> tuple[jax.Array, jax.Array]:
    """Both losses at a point `[2]`."""
    del batch
    x, y = point
    up = jnp.maximum(jnp.tanh(0.5 * y), 0)
    down = jnp.maximum(jnp.tanh(-0.5 * y), 0)
    left = jnp.abs(0.5 * (-x - 7) - jnp.tanh(-y))
    right = jnp.abs(0.5 * (-x + 3) + jnp.tanh(-y) + 2)
    left, right = (jnp.log(jnp.maximum(u, 5e-6)) + 6 for u in (left, right))
    first = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    second = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    return up * left + down * first, up * right + down * second


def mean_loss(points: NDArray) -> NDArray[np.float64]:
    """At points `[..., 2]`."""
    with jax.enable_x64(True):
        return np.asarray(sum(losses(jnp.moveaxis(jnp.asarray(points), -1, 0)))) / 2


def problem() -> Problem:
    """For the runner."""
    return Problem(
        name="CAGrad's toy",
        tasks=("first", "second"),
        splits={"end": None},
        init=lambda seed: jnp.asarray(start(seed)),
        losses=losses,
        metrics=(Metric("loss", "", higher_is_better=False),),
        evaluate=lambda point, split: {"loss": jnp.stack(losses(point))},
        owner=lambda point: None,
        chosen_on="end",  # nothing is held back: the losses are all there is
        reported_on="end",
        watch=lambda point: point,
        precision="float64",
        about="All methods share starts and optimiser.",
        facts={"starts": STARTS},
        credits="The toy is that of Liu et al., Conflict-Averse Gradient Descent for "
        "Multi-task Learning, 2021.",
    )


def ends(outcome: Outcome) -> NDArray[np.float64]:
    """The last points `[starts, 2]`."""
    assert outcome.path is not None
    return outcome.path[-1, 0]


def distances(points: NDArray) -> NDArray[np.float64]:
    """Of points `[..., 2]` from MINIMUM."""
    return np.linalg.norm(points - np.array(MINIMUM), axis=-1)


def places(points: NDArray) -> list[str]:
    """The words of RULE for ends `[starts, 2]`."""
    return [
        "minimum"
        if distance <= NEAR
        else ("Pareto set" if PARETO[0] < y < PARETO[1] else "elsewhere")
        for y, distance in zip(points[:, 1], distances(points), strict=True)
    ]


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Where each method ends."""
    del tasks
    found = {method: places(ends(outcome)) for method, outcome in outcomes.items()}
    words = {
        method: f"minimum from {at.count('minimum')} of {len(at)}"
        for method, at in found.items()
    }
    sentences = {method: sentence(method, at) for method, at in found.items()}
    always = [method for method, at in found.items() if set(at) == {"minimum"}]
    return Judgement(
        words,
        sentences,
        "From every start the minimum of the mean loss is reached by "
        f"{', '.join(always) or 'no method here'}.",
    )


def sentence(method: str, found: list[str]) -> str:
    """The verdict line of a method."""
    said = [
        f"{text} from {found.count(place)}"
        for place, text in PLACES.items()
        if place in found
    ]
    return f"{method} {', '.join(said)} of {len(found)} starts."


_SETTINGS = Settings(
    methods=("mean", "mgda", "pcgrad", "cagrad"),
    seeds=len(STARTS),
    steps=100_000,
    learning_rates=(1e-3,),
    schedule="constant",
    points=200,
)

STUDY = Study(
    name="toy",
    title="CAGrad's toy",
    question="Two losses of two parameters: a narrow valley each above, two bowls "
    "below. Which method finds its way to the minimum of the mean loss?",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(steps=5_000, quick=True),
    figures=(),
    rules=(RULE,),
    judge=judge,
    baseline="mean",
    has_single_task=False,
)
