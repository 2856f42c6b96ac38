"""ConFIG's length models: which norm stands for that of every gradient."""

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import Names, index_of


def _mean(values: jax.Array, some: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(some, values, 0)) / jnp.maximum(jnp.sum(some), 1)


# Of the norms [T] and which of them are not zero; not all are.
_MODELS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "min": lambda norms, some: jnp.min(norms, where=some, initial=jnp.inf),
    "max": lambda norms, some: jnp.max(norms, where=some, initial=0),
    "mean": _mean,
    "harmonic": lambda norms, some: 1 / _mean(1 / jnp.where(some, norms, 1), some),
    "geometric": lambda norms, some: jnp.exp(
        _mean(jnp.log(jnp.where(some, norms, 1)), some)
    ),
}


def check_length(length: Any, num_tasks: int) -> None:
    """Raises unless it is a model, or a task: an index (may be a tracer), or a name."""
    if isinstance(length, numbers.Real):
        checks.static_int("length", length, 0)
        checks.at_most("length", length, num_tasks - 1)
    elif not isinstance(length, (str, jax.Array, np.ndarray)) or np.shape(length) != ():
        raise ValueError(
            f"length must be one of {_known()}, or one task, a name or an index; got "
            f"{length!r}."
        )


def tracked_lengths(length: Any, norms: jax.Array, names: Names | None) -> jax.Array:
    """The norms `[T]` that gradients are projected with, 0 for those that are zero."""
    if isinstance(length, str) and length == "projection":
        return norms
    some = norms > 0
    if isinstance(length, str) and length in _MODELS:
        one = jnp.where(jnp.any(some), _MODELS[length](norms, some), 0)
    else:
        if isinstance(length, str) and length not in (names or ()):
            raise ValueError(
                f"length={length!r} is none of {_known()}, nor one of the tasks' names "
                f"({list(names) if names else 'which are not known here'})."
            )
        one = norms[index_of("length", length, names)]
    return jnp.where(some, one, 0)


def _known() -> str:
    return ", ".join(repr(model) for model in ("projection", *_MODELS))
