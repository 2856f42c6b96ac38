"""The forms in which task losses come: a dict or tuple of scalars, or an array [T]."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import sorted_names
from mtl_optax.core.trees.replicated import whole


def stack_losses(losses: Any) -> jax.Array:
    """Stacks task losses into `[T]`: a dict (sorted names), a tuple, or an array.

    Raises:
      ValueError: if a task's loss is not a scalar.
    """
    if isinstance(losses, Mapping):
        named = [(f"losses[{name!r}]", losses[name]) for name in sorted_names(losses)]
    elif isinstance(losses, (tuple, list)):
        named = [(f"losses[{i}]", loss) for i, loss in enumerate(losses)]
    else:
        array = _array(losses)
        if array.ndim != 1:
            raise ValueError(
                "Task losses must be a dict or tuple of scalars, or an array [T]; got "
                f"an array of shape {array.shape}. Reduce each task's loss over its "
                "batch (jnp.mean) first."
            )
        return array
    for name, loss in named:
        _one(name, loss)
        if jnp.shape(loss) != ():
            raise ValueError(
                f"{name} has shape {jnp.shape(loss)}, but a task's loss must be a "
                "scalar. Reduce it over the batch, for example with jnp.mean."
            )
    if not named:
        raise ValueError("There are no task losses: the dict or tuple is empty.")
    return jnp.stack([jnp.asarray(loss) for _, loss in named])


def differentiable(losses: Any) -> Any:
    """The losses that a user's function returned, if they have gradients.

    Raises:
      ValueError: for those of `stack_losses`, and for numbers that are not real and
        floating point.
    """
    stack_losses(losses)
    for path, loss in jax.tree_util.tree_leaves_with_path(losses):
        dtype = jnp.result_type(loss)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"losses{jax.tree_util.keystr(path)} has dtype {dtype}, but only a "
                "real floating point loss has a gradient. Make it one, for example "
                "with jnp.mean; for a task absent from this batch return 0.0 and set "
                "its entry of active= to False."
            )
    return losses


def losses_and_aux(out: Any, has_aux: bool) -> tuple[Any, Any]:
    """What a function returned that has auxiliary output, or has not."""
    if not has_aux:
        return out, None
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ValueError(
            "has_aux=True says that the function returns a pair, its output and "
            f"anything else, (losses, aux); got a {type(out).__name__}. Return both, "
            "or leave has_aux out."
        )
    losses, aux = out
    return losses, aux


def _array(losses: Any) -> jax.Array:
    if losses is None:
        raise ValueError(
            "The task losses are None: does losses_fn end without a return? Return a "
            "dict or tuple of scalars, or an array [T]."
        )
    try:
        return jnp.asarray(losses)
    except TypeError as error:
        raise ValueError(
            "Task losses must be a dict or tuple of scalars, or an array [T]; got a "
            f"{type(losses).__name__}. Of a dataclass make a dict: "
            "dataclasses.asdict(losses)."
        ) from error


def _one(name: str, loss: Any) -> None:
    """Raises for the loss of one task that is no array, and says why that may be."""
    if hasattr(loss, "dtype") or isinstance(loss, (bool, int, float, complex)):
        return
    raise ValueError(
        f"{name} is a {type(loss).__name__}, but a task's loss must be a scalar. Tasks "
        "are one flat dict or tuple: add up what belongs to one task. (If losses_fn "
        "returns (losses, aux), say has_aux=True where it is handed over.)"
    )


def loss_of(losses: Any, task: int) -> jax.Array:
    """The loss of one task, in the order in which `stack_losses` stacks them."""
    if isinstance(losses, Mapping):
        return losses[sorted_names(losses)[task]]
    return losses[task]


def names_of(losses: Any) -> tuple[Any, ...] | None:
    """Names of the tasks in order, if the losses are a dict by name; else None."""
    return sorted_names(losses) if isinstance(losses, Mapping) else None


def losses_vector(losses: Any, num_tasks: int) -> jax.Array:
    """Task losses as `[T]`, float32 or wider."""
    stacked = stack_losses(losses)
    if stacked.shape != (num_tasks,):
        raise ValueError(
            f"losses= has {stacked.shape[0]} entries, but num_tasks={num_tasks}. Pass "
            "one loss a task; for a task absent from this batch pass any number and "
            "set its entry of active= to False."
        )
    return whole(stacked.astype(jnp.result_type(float)))
