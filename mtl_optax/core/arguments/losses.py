"""The forms in which task losses come: a dict or tuple of scalars, or an array [T]."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def stack_losses(losses: Any) -> jax.Array:
    """Stacks task losses into `[T]`: a dict (sorted names), a tuple, or an array.

    Raises:
      ValueError: if a task's loss is not a scalar.
    """
    if isinstance(losses, Mapping):
        named = [(f"losses[{name!r}]", losses[name]) for name in sorted(losses)]
    elif isinstance(losses, (tuple, list)):
        named = [(f"losses[{i}]", loss) for i, loss in enumerate(losses)]
    else:
        array = jnp.asarray(losses)
        if array.ndim != 1:
            raise ValueError(
                "Task losses must be a dict or tuple of scalars, or an array [T]; got "
                f"an array of shape {array.shape}. Reduce each task's loss over its "
                "batch (jnp.mean) first."
            )
        return array
    for name, loss in named:
        if jnp.shape(loss) != ():
            raise ValueError(
                f"{name} has shape {jnp.shape(loss)}, but a task's loss must be a "
                "scalar. Reduce it over the batch, for example with jnp.mean."
            )
    if not named:
        raise ValueError("There are no task losses: the dict or tuple is empty.")
    return jnp.stack([jnp.asarray(loss) for _, loss in named])


def loss_of(losses: Any, task: int) -> jax.Array:
    """The loss of one task, in the order in which `stack_losses` stacks them."""
    if isinstance(losses, Mapping):
        return losses[sorted(losses)[task]]
    return losses[task]


def names_of(losses: Any) -> tuple[Any, ...] | None:
    """Names of the tasks in order, if the losses are a dict by name; else None."""
    return tuple(sorted(losses)) if isinstance(losses, Mapping) else None


def losses_vector(losses: Any, num_tasks: int) -> jax.Array:
    """Task losses as `[T]`, float32 or wider."""
    stacked = stack_losses(losses)
    if stacked.shape != (num_tasks,):
        raise ValueError(
            f"losses= has {stacked.shape[0]} entries, but num_tasks={num_tasks}. Pass "
            "one loss a task; for a task absent from this batch pass any number and "
            "set its entry of active= to False."
        )
    return stacked.astype(jnp.result_type(float))
