"""The task that comes before the others, and what is asked for these."""

import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import sorted_names, values_of


def check_primary(primary: Any, num_tasks: int) -> None:
    """Raises unless it is a name, or an index (which may be a tracer) of a task."""
    if isinstance(primary, numbers.Real):
        checks.static_int("primary", primary, 0)
        checks.at_most("primary", primary, num_tasks - 1)
    elif not isinstance(primary, (str, jax.Array)) or np.shape(primary) != ():
        raise ValueError(
            f"primary must be one task, a name or an index; got {primary!r}."
        )


def thresholds(tau: Any, primary: Any, num_tasks: int) -> jax.Array:
    """`tau` as `[T]`, from one number, `[T]`, or `[T - 1]` without the primary task."""
    tau = jnp.asarray(tau, jnp.result_type(float))
    if tau.shape == (num_tasks - 1,):
        task, none = jnp.arange(num_tasks), jnp.zeros(1, tau.dtype)
        before, after = jnp.append(tau, none), jnp.append(none, tau)
        tau = jnp.where(task < primary, before, jnp.where(task > primary, after, 0))
    if tau.shape not in ((), (num_tasks,)):
        raise ValueError(
            f"pcd: tau must be a number, or one a task: shape ({num_tasks},), or "
            f"({num_tasks - 1},) without the primary task; got shape {tau.shape}."
        )
    return tau


def thresholds_by_name(tau: Any, primary: Any) -> tuple[Any, Any]:
    """`tau` in order, and the names of all tasks if it came by name."""
    if not isinstance(tau, Mapping):
        checks.at_least("tau", tau, 0)
        return tau, None
    for value in tau.values():
        checks.at_least("tau", value, 0)
    values, own = values_of(tau, "tau")
    named = own if not isinstance(primary, str) else {*own, primary}
    return values, sorted_names(named)


def leads(primary: Any, active: jax.Array) -> jax.Array:
    """The primary task, or the first active one where that is inactive, `[T]` bool."""
    primary_task = active & (jnp.arange(active.shape[0]) == primary)
    first = active & (jnp.cumsum(active) == 1)
    return jnp.where(jnp.any(primary_task), primary_task, first)
