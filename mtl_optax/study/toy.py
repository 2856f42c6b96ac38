"""The two-dimensional toy of CAGrad (Liu et al. 2021, Figure 1).

Signs are those of their code. Two losses with a narrow valley each above, and two bowls
below whose best compromise is known. It does not go through the runner: here are no
data, batches, accuracies or seeds, the learning rate is constant, and 100,000 steps in
float64 are kept as a path of some 200 points. Shared with it are the aggregators.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

import mtl_optax as mtl
from mtl_optax.study.methods import aggregator
from mtl_optax.study.runner import Tick

# The starts of the paper, of its code, and of later papers (FAMO, Nash-MTL).
STARTS = (
    *((-8.5, 7.5), (-8.5, 5.0), (9.0, 9.0), (-8.5, -5.0)),
    *((0.0, 0.0), (10.0, -8.0), (-7.5, -0.5), (9.0, -1.0)),
)
MINIMUM = (0.0, -8.3552)  # of the mean loss
NEAR = 0.05
PARETO = (-8.5, -8.25)  # the second coordinate on the Pareto set, and a margin
LEARNING_RATE = 1e-3
POINTS = 200  # of a path

RULE = (
    f"minimum: the end lies within {NEAR:g} of ({MINIMUM[0]:g}, {MINIMUM[1]:g}), the "
    f"minimum of the mean loss. Pareto set: elsewhere between {PARETO[0]:g} and "
    f"{PARETO[1]:g} in the second coordinate, where no step is good for both losses. "
    f"elsewhere: the rest, most of them in a valley. Where on the Pareto set a run "
    f"ends depends on rounding: in the valleys Adam jumps from wall to wall."
)


class Settings(NamedTuple):
    """What a run of the toy is made of."""

    methods: tuple[str, ...] = ("mean", "mgda", "pcgrad", "cagrad")
    steps: int = 100_000
    quick: bool = False


QUICK = Settings(steps=5_000, quick=True)


class Outcome(NamedTuple):
    """What one method did from each start."""

    path: NDArray[np.float64]  # [points, starts, 2], the first is the start
    mean_loss: NDArray[np.float64]  # [starts], at the end
    distance: NDArray[np.float64]  # [starts], of the end from MINIMUM
    places: list[str]  # [starts], the words of RULE
    sentence: str
    compile_seconds: float
    run_seconds: float


def losses(point: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both losses at a point `[2]`."""
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


def run(
    settings: Settings, tick: Tick = lambda method, stage, done: None
) -> dict[str, Outcome]:
    """All methods, one after the other; `tick` as in `runner.train`."""
    with jax.enable_x64(True):
        return {name: _run(name, settings.steps, tick) for name in settings.methods}


def _run(method: str, steps: int, tick: Tick) -> Outcome:
    one_hot = np.array([1.0, 0.0])
    rule = aggregator(method, 2, lambda _: True, seed=0, own_task=one_hot)
    tx = optax.chain(rule, optax.adam(LEARNING_RATE))

    def step(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        point, state = carry
        _, grads = mtl.lazy_task_grads(losses)(point)
        updates, state = tx.update(grads, state, point)
        return optax.apply_updates(point, updates), state

    @jax.jit
    def advance(points: Any, states: Any, count: Any) -> Any:
        return jax.vmap(lambda *x: jax.lax.fori_loop(0, count, step, x))(points, states)

    tick(method, "compiling", 0)
    begun = time.perf_counter()
    points = jnp.asarray(STARTS, jnp.float64)
    states = jax.jit(jax.vmap(tx.init))(points)
    path = [np.asarray(points)]
    chunk = max(1, steps // POINTS)
    advance(points, states, jnp.int32(0))  # compiles
    compiled = time.perf_counter()
    for done in range(0, steps, chunk):
        tick(method, "training", done)
        count = min(chunk, steps - done)
        points, states = advance(points, states, jnp.int32(count))
        path.append(np.asarray(points))
    tick(method, "training", steps)
    seconds = compiled - begun, time.perf_counter() - compiled
    distance = np.linalg.norm(path[-1] - MINIMUM, axis=-1)
    places = [_place(end, d) for end, d in zip(path[-1], distance, strict=True)]
    text = sentence(method, places)
    return Outcome(
        np.stack(path), mean_loss(path[-1]), distance, places, text, *seconds
    )


def _place(end: NDArray, distance: float) -> str:
    if distance <= NEAR:
        return "minimum"
    return "Pareto set" if PARETO[0] < end[1] < PARETO[1] else "elsewhere"


def sentence(method: str, places: list[str]) -> str:
    """The verdict line of a method."""
    words = [
        (places.count("minimum"), "reaches the minimum of the mean loss"),
        (places.count("Pareto set"), "stops elsewhere on the Pareto set"),
        (places.count("elsewhere"), "does not arrive"),
    ]
    said = [f"{text} from {n}" for n, text in words if n]
    return f"{method} {', '.join(said)} of {len(places)} starts."
