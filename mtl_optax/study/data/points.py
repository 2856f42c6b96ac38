"""Two losses of a point: a problem without data, whose parameters are the point."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.study.engine.problem import Metric, Problem, stateless


def of_a_point(
    name: str,
    start: Callable[[int], Any],
    losses: Callable[[jax.Array], tuple[jax.Array, ...]],
    **others: Any,
) -> Problem:
    """A problem whose seeds are starts, and whose scores are its losses at the end.

    Args:
      name: of the problem.
      start: seed -> the point.
      losses: of the point.
      **others: the other fields of a problem, such as what `watch` keeps.
    """
    return stateless(
        name=name,
        tasks=("first", "second"),
        splits={"end": None},
        init=lambda seed: jnp.asarray(start(seed)),
        losses=lambda point, batch: losses(point),
        metrics=(Metric("loss", "", higher_is_better=False),),
        evaluate=lambda point, split: {"loss": jnp.stack(losses(point))},
        owner=lambda point: None,
        chosen_on="end",  # nothing is held back: the losses are all there is
        reported_on="end",
        **others,
    )


# Its path is kept. In float64: in the valleys of such toys rounding decides.
of_a_path = partial(of_a_point, watch=lambda point, state: point, precision="float64")
