"""VLMOP2 and ZDT2 from random starts, and methods that take a preference.

A preference is a candidate of the engine: all of them are trained, from each start, and
none is chosen.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax.study.data.pareto_problems import PROBLEMS, stays_in
from mtl_optax.study.data.points import of_a_point
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.transformations import Ingredients, Method, among_tasks

SIZES = {"VLMOP2": 2, "ZDT2": 30}  # parameters, the usual numbers
# Where starts are drawn: the usual box of the problem. VLMOP2 may be left, ZDT2 not.
BOXES = {"VLMOP2": (-2.0, 2.0), "ZDT2": (0.0, 1.0)}
DIVISIONS = 40  # of the shares of the first task, both ends left out
SHARES = tuple((np.arange(1, DIVISIONS) / DIVISIONS).tolist())
MU = 0.01  # of the smooth form


def problem(name: str) -> Problem:
    """For the engine."""
    known = PROBLEMS[name]

    def start(seed: int) -> jax.Array:
        drawn = np.random.default_rng(seed).uniform(*BOXES[name], SIZES[name])
        return jnp.asarray(drawn, jnp.float32)

    return of_a_point(
        name=name,
        start=start,
        losses=known.losses,
        about=f"Starts are drawn from the box {BOXES[name]} in {SIZES[name]} "
        "dimensions; all preferences and methods share them.",
        facts={"parameters": SIZES[name], "box": known.box},
        credits="VLMOP2: Van Veldhuizen and Lamont 1999. ZDT2: Zitzler, Deb and Thiele "
        "2000.",
    )


FACTORIES: dict[str, Callable[[int, Any], optax.GradientTransformation]] = {
    "constant": lambda num_tasks, weights: mtl.constant(num_tasks, weights=weights),
    "tchebycheff": lambda num_tasks, weights: mtl.tchebycheff(
        num_tasks, preference=weights
    ),
    "stch": lambda num_tasks, weights: mtl.stch(num_tasks, preference=weights, mu=MU),
}


def _weighted(
    of: Ingredients, share: Any = 0.5, *, method: str, name: str
) -> optax.GradientTransformation:
    """With this weight for the first task and the rest for the second.

    Where a problem has a box, what would leave it is cut: a projection after each step.
    """
    weights = jnp.stack([jnp.asarray(share, float), 1 - jnp.asarray(share, float)])
    rule = among_tasks(FACTORIES[method](of.num_tasks, weights), of.problem)
    return optax.chain(rule, of.optimizer, stays_in(PROBLEMS[name].box))


def methods(name: str) -> dict[str, Method]:
    """Those of a problem."""
    return {
        method: partial(_weighted, method=method, name=name) for method in FACTORIES
    }
