"""An equation, its losses and its reference, as a problem for the engine.

A run has its own points, which stay as they are: the state of the problem.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.pinn import network, record
from mtl_optax.study.engine.problem import Metric, Now, Problem

ERROR = Metric("log10 MSE", "", higher_is_better=False)


class Equation(NamedTuple):
    """What a network is to solve, on a rectangle."""

    name: str
    tasks: tuple[str, ...]  # the first is the residual
    axes: tuple[str, str]
    outputs: tuple[str, ...]
    sides: tuple[NDArray, NDArray]  # of the grid of the reference
    exact: Callable[[NDArray, NDArray], NDArray]  # -> [..., outputs] in float64
    # points [N, 2] -> [N, T] bool: where the loss of each task asks
    regions: Callable[[NDArray], NDArray]
    # (seed, number of points inside) -> the points of a run
    draw: Callable[[int, int], dict[str, NDArray]]
    losses: Callable[[Any, Any], tuple[jax.Array, ...]]  # (params, points) -> T
    about: str

    def grid(self) -> tuple[NDArray, NDArray]:
        """Points `[A, B, 2]` and the reference there `[A, B, outputs]`."""
        first, second = np.meshgrid(*self.sides, indexing="ij")
        return np.stack([first, second], axis=-1), self.exact(first, second)


def problem(equation: Equation, size: network.Size) -> Problem:
    """The network on the equation."""
    points, exact = (x.reshape(-1, x.shape[-1]) for x in equation.grid())
    split = points, exact, equation.regions(points)

    def init(seed: int) -> tuple[Any, Any]:
        drawn = equation.draw(seed, size.inside)
        own = jax.tree.map(partial(jnp.asarray, dtype=float), drawn)
        return network.init(seed, len(equation.outputs), size), own

    def losses(params: Any, own: Any, batch: None, now: Now) -> tuple[Any, Any]:
        del batch, now
        return equation.losses(params, own), own

    def evaluate(params: Any, own: Any, split: Any, key: Any) -> dict[str, jax.Array]:
        del own, key
        return {ERROR.name: jnp.log10(record.errors(params, split))}

    plain = Problem(
        name=equation.name,
        tasks=equation.tasks,
        splits={"grid": tuple(np.asarray(x, np.float32) for x in split)},
        init=init,
        losses=losses,
        metrics=(ERROR,),
        evaluate=evaluate,
        owner=lambda params: jax.tree.map(lambda _: None, params),
        loss=(Metric("mean square", "", higher_is_better=False),),
        chosen_on="grid",  # with seeds that are not reported
        reported_on="grid",
        chosen_by=(0,),
        about=f"{equation.about} The residual has {size.inside} points inside; all "
        f"points in every step. A tanh network with {size.hidden} hidden layers of "
        f"{size.width} units, float32. The error of a task is that of its region; of "
        f"the residual it is the whole domain.",
    )
    return plain._replace(programs=partial(record.programs, plain))
