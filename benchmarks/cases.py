"""What is measured: every public method, on trees of 30 leaves in conflict."""

import inspect
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl

# A method that takes the gradient function has no place here: it is given gradients.
_FOLDER = re.compile(r"mtl_optax\.from_(losses|gramian|gradients)\.")
_LAYERS = 15
# These contain their Adam, so that none may follow; `step.py` has them.
_WITH_OPTIMISER = ("mconfig",)

# Arguments that methods require beside the number of tasks.
ARGUMENTS = {
    "key": lambda num_tasks: 0,
    "weights": lambda num_tasks: jnp.linspace(1.0, 2.0, num_tasks),
    "num_byzantine": lambda num_tasks: max(0, (num_tasks - 3) // 2),
    "num_groups": lambda num_tasks: min(2, num_tasks),
}
# Of single methods: what must be given, and defaults that two tasks are too few for.
OPTIONS = {
    "trimmed_mean": lambda num_tasks: {"trim_number": (num_tasks - 1) // 2},
    "nmt": lambda num_tasks: {
        "priority": range(num_tasks),
        "multiplier_lr": 1e-3,
        "stage_steps": 10,
    },
    "cso_project": lambda num_tasks: {"priority": partial(_first_tasks, num_tasks)},
}


def _first_tasks(num_tasks: int, params: Any) -> Any:
    """Tasks in turn on the channels of kernels; none for biases."""

    def of_leaf(leaf: Any) -> Any:
        return jnp.arange(leaf.shape[-1]) % num_tasks if leaf.ndim > 1 else None

    return jax.tree.map(of_leaf, params)


def methods() -> dict[str, str]:
    """Public methods and the family of each: losses, gramian or gradients."""
    folders = {
        name: _FOLDER.match(getattr(mtl, name).__module__)
        for name in mtl.__all__
        if name not in _WITH_OPTIMISER
    }
    return {name: found[1] for name, found in folders.items() if found}


def build(name: str, num_tasks: int) -> optax.GradientTransformationExtraArgs:
    """The method with its defaults, where they fit."""
    factory = getattr(mtl, name)
    required = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.name != "num_tasks"
    ]
    options = OPTIONS[name](num_tasks) if name in OPTIONS else {}
    required = [argument for argument in required if argument not in options]
    missing = [argument for argument in required if argument not in ARGUMENTS]
    if missing:
        raise ValueError(
            f"{name} requires {missing}: add a value to ARGUMENTS in "
            "benchmarks/cases.py."
        )
    arguments = {a: ARGUMENTS[a](num_tasks) for a in required}
    return factory(num_tasks, **arguments, **options)


def parameters(size: int) -> dict[str, dict[str, jax.Array]]:
    """15 kernels and 15 biases, together about `size` numbers."""
    width = max(1, round((-1 + np.sqrt(1 + 4 * size / _LAYERS)) / 2))
    # One buffer a leaf: equal ones would be donated twice.
    return {
        f"layer{i:02}": {
            "bias": jnp.full(width, 0.01 * i),
            "kernel": jnp.full((width, width), 0.01 * i),
        }
        for i in range(_LAYERS)
    }


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def task_gradients(params: Any, num_tasks: int) -> Any:
    """Stacked gradients: neighbours at cosines near -0.4, norms from 1 to 3.

    Without conflict several solvers stop at once and would be timed doing nothing.
    """
    mix = np.eye(num_tasks) - 0.6 * np.eye(num_tasks, k=-1)
    mix *= np.geomspace(1.0, 3.0, num_tasks)[:, None]
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))

    @jax.jit
    def draw(key: jax.Array, leaf: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, (num_tasks, *leaf.shape), leaf.dtype)
        return jnp.tensordot(jnp.asarray(mix, leaf.dtype), noise, 1)

    drawn = [draw(key, leaf) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


def least_cosine(stacked: Any) -> float:
    gram = np.asarray(mtl.gramian(stacked), np.float64)
    norms = np.sqrt(np.diag(gram))
    return float((gram / np.outer(norms, norms)).min())


def task_losses(num_tasks: int) -> jax.Array:
    return jnp.linspace(0.5, 2.0, num_tasks)


def reads(family: str) -> int:
    """Passes over the stack that a method cannot avoid."""
    return 2 if family == "gramian" else 1
