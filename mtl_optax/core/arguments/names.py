"""Tasks by name: a dict is read in sorted order of its names, everywhere."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def agreed_names(
    sources: Mapping[str, tuple[Any, ...] | None], num_tasks: int
) -> tuple[Any, ...] | None:
    """The names that all sources that know some agree on; None if none does."""
    known = {what: names for what, names in sources.items() if names is not None}
    for what, names in known.items():
        if len(names) != num_tasks:
            raise ValueError(
                f"{what} name {len(names)} tasks, {list(names)}, but "
                f"num_tasks={num_tasks}."
            )
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{what}: {list(names)}" for what, names in known.items())
        raise ValueError(
            f"Tasks are named differently in one step. {listed}. Use the same names, "
            "for example the keys of the dict of losses."
        )
    return next(iter(known.values()), None)


def active_mask(active: Any, num_tasks: int) -> jax.Array:
    """`active` as a boolean vector `[T]`, from one or from a dict of bools by name."""
    if isinstance(active, Mapping):
        active = jnp.stack([jnp.asarray(active[name]) for name in sorted(active)])
    mask = jnp.asarray(active)
    if mask.shape != (num_tasks,) or mask.dtype != jnp.bool_:
        raise ValueError(
            f"active= must be a boolean vector of shape ({num_tasks},), True for the "
            f"tasks present in this step; got shape {mask.shape} and dtype "
            f"{mask.dtype}. Use for example active=jnp.array(present, dtype=bool)."
        )
    return mask
