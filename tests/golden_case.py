"""What a reference case demands of us, and how it is run through `tx.update`.

golden/README.md says what the stored arrays mean and where they come from; the files
golden_from_*.py say how each reference method is called here.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import flat, params_of, tree_of

ROOT = pathlib.Path(__file__).parent / "golden"
OPTIMIZERS = {"sgd": optax.sgd, "adam": optax.adam}


class Call(NamedTuple):
    """One update, and the arrays it must reproduce."""

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    direction: np.ndarray | None = None  # name in tol is `tolerance`
    tolerance: str = "direction"
    weights: np.ndarray | None = None
    weights_tolerance: str = "weights"
    static: tuple[tuple[str, Any], ...] = ()  # keywords that select code
    numeric: Mapping[str, Any] = {}  # keywords that are traced
    extras: Mapping[str, Any] = {}  # extra arguments [T ...] or [P]


class Wanted(NamedTuple):
    """Values that a trajectory must reproduce, step by step."""

    tolerance: str  # name in tol
    values: np.ndarray  # [S, ...]
    read: Callable[[Any], jax.Array] | None = None  # from the state; None: direction


class Trajectory(NamedTuple):
    """Updates that follow one another, and the values they must reproduce.

    `read` sees the state after the update of its step.
    """

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    matrices: np.ndarray  # [S, T, P]
    wanted: tuple[Wanted, ...]
    static: tuple[tuple[str, Any], ...] = ()  # keywords that select code
    numeric: Mapping[str, Any] = {}  # keywords that are traced
    extras: Mapping[str, Any] = {}  # extra arguments, [S, ...]


@functools.cache
def _index():
    return json.loads((ROOT / "cases.json").read_text("utf-8"))


def methods():
    """Number of stored cases by method."""
    return {name: entry["n_cases"] for name, entry in _index()["methods"].items()}


def cases(method):
    """The stored cases of a method, each with its arrays."""
    with np.load(ROOT / f"{method}.npz", allow_pickle=False) as arrays:
        return [
            (case, {name: arrays[f"{case['id']}/{name}"] for name in case["arrays"]})
            for case in _index()["cases"]
            if case["method"] == method
        ]


@functools.cache
def _step(factory, num_tasks, static):
    """Compiled once for each method, task count and choice of code."""

    def step(gradients, numeric, extras):
        tx = factory(num_tasks, **dict(static), **numeric)
        params = params_of(gradients)
        return tx.update(gradients, tx.init(params), params, **extras)

    return jax.jit(step)


def run(call, matrix, width, dtype):
    """Direction [P], and weights [T] or None, of one call through `tx.update`."""
    gradients = tree_of(matrix, dtype, width)
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    extras = dict(call.extras)
    if "uniforms" in extras:
        extras["uniforms"] = tree_of(extras["uniforms"], dtype, width)
    if "losses" in extras:
        extras["losses"] = cast(extras["losses"])
    step = _step(call.factory, matrix.shape[0], call.static)
    update, state = step(gradients, cast(dict(call.numeric)), extras)
    weights = state.task_weights if hasattr(state, "task_weights") else None
    return flat(update, matrix.shape[1]), weights


@functools.cache
def _scan(factory, num_tasks, static):
    def follow(gradients, numeric, extras):
        tx = factory(num_tasks, **dict(static), **numeric)
        params = jax.tree.map(lambda g: jnp.zeros_like(g[0, 0]), gradients)

        def step(state, given):
            gradients, extras = given
            update, state = tx.update(gradients, state, params, **extras)
            return state, (update, state)

        return jax.lax.scan(step, tx.init(params), (gradients, extras))[1]

    return jax.jit(follow)


def follow(trajectory, dtype):
    """Directions [S, P], and the states after each step, stacked."""
    steps, num_tasks, _ = trajectory.matrices.shape

    def cast(value):
        value = jnp.asarray(value)
        return value.astype(dtype) if value.dtype.kind == "f" else value

    program = _scan(trajectory.factory, num_tasks, trajectory.static)
    updates, states = program(
        tree_of(trajectory.matrices, dtype),
        jax.tree.map(cast, dict(trajectory.numeric)),
        jax.tree.map(cast, dict(trajectory.extras)),
    )
    # In NumPy: JAX would compile a program for every step's slice.
    updates = jax.tree.map(np.asarray, updates)
    rows = [flat(jax.tree.map(lambda x, s=s: x[s], updates)) for s in range(steps)]
    return np.stack(rows), states


@functools.cache
def with_optimizer(factory, name):
    """The factory with a `learning_rate` in place of its `optimizer`."""

    def make(num_tasks, *, learning_rate, **keywords):
        optimizer = OPTIMIZERS[name](learning_rate)
        return factory(num_tasks, optimizer=optimizer, **keywords)

    return make


def only_losses(losses):
    """Gradients [S, T, 1] of ones, for methods that look at losses alone."""
    return np.ones((*losses.shape, 1))


class Adapter(NamedTuple):
    """Some or all cases of a reference method."""

    method: str
    calls: Callable[[Any, Any], list[Call | Trajectory]]
    where: Mapping[str, tuple[Any, ...]] = {}  # arguments of the cases meant
    slow: bool = False

    def cases(self):
        """The cases meant, each with its arrays."""
        return [
            (case, arrays)
            for case, arrays in cases(self.method)
            if all(case["args"][name] in known for name, known in self.where.items())
        ]
