"""Two curves of one number: the toy of Elich et al. (2024, appendix A1.3).

Theirs: a scalar input from a uniform distribution, two regressions with an L1 loss, a
shared part of two layers of 20 LeakyReLU units, a head of two layers for each task. The
curves, the slope of LeakyReLU and the starts are INFERRED: ours.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.classification import owners_by_name
from mtl_optax.study.engine.problem import Metric, Problem, stateless

WIDTH, SLOPE = 20, 0.01
NUM_POINTS = {"train": 1000, "val": 500, "test": 500}
TASKS = ("first", "second")
ERROR = Metric("mean absolute error", "", higher_is_better=False)


def curves(x: NDArray) -> NDArray[np.float64]:
    """Both targets `[N, 2]` of numbers `[N]` between -1 and 1."""
    return np.stack([np.sin(4 * x), np.abs(x) - 0.5], axis=1)


def start(seed: int) -> Any:
    """Gaussian weights of He's variance, biases of zero."""
    rng = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int) -> dict[str, NDArray[np.float64]]:
        weights = rng.normal(size=(inputs, outputs)) * np.sqrt(2 / inputs)
        return {"w": weights, "b": np.zeros(outputs)}

    trunk = [layer(1, WIDTH), layer(WIDTH, WIDTH)]
    heads = {task: [layer(WIDTH, WIDTH), layer(WIDTH, 1)] for task in TASKS}
    return {"trunk": trunk, "heads": heads}


def flat(part: Any) -> jax.Array:
    """All numbers of the trunk, or of the heads, in one row."""
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(part)])


def losses(params: Any, batch: Any) -> tuple[jax.Array, ...]:
    """The mean absolute error of each task."""
    x, y = batch
    features = x[:, None]
    for layer in params["trunk"]:
        features = jax.nn.leaky_relu(_linear(layer, features), SLOPE)
    found = []
    for t, task in enumerate(TASKS):
        hidden, last = params["heads"][task]
        answer = _linear(last, jax.nn.leaky_relu(_linear(hidden, features), SLOPE))
        found.append(jnp.mean(jnp.abs(answer[:, 0] - y[:, t])))
    return tuple(found)


def _linear(layer: Any, x: jax.Array) -> jax.Array:
    return x @ layer["w"] + layer["b"][None]


def problem() -> Problem:
    """For the engine; every parameter is kept along the way, the trunk first."""
    rng = np.random.default_rng(0)
    inputs = {name: rng.uniform(-1, 1, number) for name, number in NUM_POINTS.items()}
    return stateless(
        name="two curves",
        tasks=TASKS,
        splits={name: (x, curves(x)) for name, x in inputs.items()},
        init=lambda seed: jax.tree.map(jnp.asarray, start(seed)),
        losses=losses,
        loss=(ERROR,),
        metrics=(ERROR,),
        evaluate=lambda params, split: {ERROR.name: jnp.stack(losses(params, split))},
        owner=lambda params: owners_by_name(TASKS, params),
        watch=lambda params, state: jnp.concatenate(
            [flat(params["trunk"]), flat(params["heads"])]
        ),
        precision="float64",
        about="sin 4x and |x| - 1/2 of x between -1 and 1, L1 losses. A shared part of "
        f"two layers of {WIDTH} LeakyReLU units, heads of two layers. In float64.",
        credits="The toy is made after that of Elich et al., Examining Common "
        "Paradigms in Multi-task Learning, 2024.",
    )
