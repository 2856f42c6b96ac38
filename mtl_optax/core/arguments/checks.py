"""Checks of the arguments that a method is built from. Each error names the cure.

Python types and shapes are checked always, values on Python numbers only, so that
hyper-parameters may be tracers.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

STATIC_ARGS_HINT = (
    'Under `optax.inject_hyperparams` pass static_args=("num_tasks", ...), so that '
    "structural arguments stay Python values."
)


def static_int(name: str, value: Any, minimum: int = 1) -> int:
    """Returns `value`, an int of Python or NumPy of at least `minimum`, as Python's."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(
            f"{name} must be a Python int, because it fixes shapes; got {value!r} of "
            f"type {type(value).__name__}. {STATIC_ARGS_HINT}"
        )
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}.")
    return int(value)


def at_least(name: str, value: Any, minimum: float) -> None:
    """Raises if `value` is a Python number below `minimum`; tracers pass."""
    if isinstance(value, numbers.Real) and not float(value) >= minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}.")


def at_most(name: str, value: Any, maximum: float) -> None:
    """Raises if `value` is a Python number above `maximum`; tracers pass."""
    if isinstance(value, numbers.Real) and not float(value) <= maximum:
        raise ValueError(f"{name} must be at most {maximum}; got {value}.")


def positive(name: str, value: Any) -> None:
    """Raises if `value` is a Python number that is not positive; tracers pass."""
    if isinstance(value, numbers.Real) and not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {value}.")


def scalar(name: str, value: Any) -> None:
    """Raises unless `value` is one number: a Python number, a 0-d array or a tracer."""
    if isinstance(value, numbers.Real):
        return
    shape, dtype = np.shape(value), getattr(value, "dtype", None)
    if dtype is None:
        found = repr(value)
    elif shape or not jnp.issubdtype(dtype, jnp.number):
        found = f"an array of shape {shape} and dtype {dtype}"
    else:
        return
    raise ValueError(
        f"{name} must be one number, or a function of the step count that returns one; "
        f"got {found}. To try several values, jax.vmap over them."
    )


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises if `value` is none of the `choices` that select code."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {known}; got {value!r}.")


def task_vector(name: str, value: Any, num_tasks: int) -> jax.Array:
    """Returns `value` as a floating vector `[T]`, one entry a task."""
    vector = jnp.asarray(value)
    if vector.shape != (num_tasks,):
        raise ValueError(
            f"{name} must have one entry a task, shape ({num_tasks},); got shape "
            f"{vector.shape}."
        )
    return vector.astype(jnp.result_type(float))


def optional_vectors(num_tasks: Any, **vectors: Any) -> None:
    """Raises at construction unless each is None or one number a task."""
    for name, value in vectors.items():
        if value is not None:
            task_vector(name, value, static_int("num_tasks", num_tasks))


def required(method: str, keyword: str, value: Any) -> Any:
    """Returns `value`, or explains how to hand over the missing extra argument."""
    if value is None:
        raise ValueError(
            f"{method} needs the extra argument {keyword}=, which did not arrive. Call "
            f"tx.update(task_gradients, state, params, {keyword}={keyword}). Flax's "
            "TrainState cannot pass it: use mtl_optax.flax_support."
            "MultiTaskTrainState. optax.contrib.sam cannot either: give it lazy task "
            "gradients (mtl_optax.lazy_task_grads), which carry the losses."
        )
    return value


_RENAMED = {
    "precomputed_gramian": "gramian=K",
    "cross_gramian": "gramian=K",
    "task_grad_fn": "losses_fn=lambda p: losses_fn(p, x, y)",
    "group_grad_fn": "losses_fn=lambda p: losses_fn(p, x, y)",
}


# What only a method that combines the tasks' gradients can use, so that nothing else in
# a chain may be meant, and who does. `losses_fn` is not among them: `task_affinity`
# reads it in front of any method, and `flat_mtl` hands it on. Nor are `epoch`,
# `statistics` and `uniform` of cso, which a user's own transformation may take too.
_TAKEN_BY = {
    "gramian": "the methods that see the Gramian (mgda, upgrad, cagrad, ...)",
    "order": "pcgrad, gradvac and selective_groups",
    "uniforms": "graddrop",
    "normals": 'rlw with distribution "normal" or "random_normal", and samo',
    "previous_losses": "famo",
    "priority": "cso_project",
    "validation_losses_fn": "auto_lambda, moml and forum",
    "validation_active": "auto_lambda, moml and forum",
}


def only_taken(
    extra_args: Mapping[str, Any], taken: Collection[str], updates: Any = None
) -> None:
    """Raises for extra arguments of other methods of ours; unknown ones are ignored.

    Not on gradients with an `optax.MaskedNode`: there `optax.partition` hands the same
    arguments to another method for the other leaves.
    """
    renamed(extra_args)
    given = {key for key, value in extra_args.items() if value is not None}
    strange = sorted((_TAKEN_BY.keys() & given) - set(taken))
    if not strange or is_part(updates):
        return
    raise ValueError(
        f"{strange[0]}= has no effect here: this method does not take it, and no other "
        "part of a chain can. It is an extra argument of "
        f"{_TAKEN_BY[strange[0]]}. Leave it out, or use one of these."
    )


def keywords(update: Callable[..., Any]) -> frozenset[str]:
    """The extra arguments that a rule reads by name."""
    parameters = inspect.signature(update).parameters.values()
    return frozenset(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)


def is_part(updates: Any) -> bool:
    """Whether leaves of the tree are held back, an `optax.MaskedNode` in place."""
    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    tree = updates.like() if hasattr(updates, "like") else updates  # lazy: no tree
    return any(map(masked, jax.tree.leaves(tree, is_leaf=masked)))


def renamed(extra_args: Mapping[str, Any]) -> None:
    """Raises for extra arguments of former versions, with what takes their place."""
    for old in _RENAMED.keys() & extra_args.keys():
        new = _RENAMED[old]
        raise ValueError(
            f"{old}= is now {new.split('=')[0]}=: "
            f"tx.update(task_gradients, state, params, {new})."
        )
