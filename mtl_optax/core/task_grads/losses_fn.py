"""The extra argument `losses_fn`, with which a method asks at other parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from mtl_optax.core.arguments.losses import names_of, stack_losses
from mtl_optax.core.arguments.names import agreed_names
from mtl_optax.core.task_grads.form import TaskGrads

_CALL = (
    "tx.update(task_gradients, state, params, losses_fn=lambda p: losses_fn(p, x, y))"
)
_REPLACED = ("task_grad_fn", "group_grad_fn")


def asked(
    method: str, losses_fn: Any, given: TaskGrads, extra_args: Mapping[str, Any]
) -> Callable[[optax.Params], Any]:
    """Returns `losses_fn`, checked when called, or explains how to hand it over.

    Args:
      method: its name.
      losses_fn: the extra argument.
      given: the gradients, for the number of tasks and their names.
      extra_args: all others, among which a function of gradients, as versions before
        took it, is an error.
    """
    for name in _REPLACED:
        if name in extra_args:
            raise ValueError(
                f"{method} takes losses_fn=, the losses themselves, in place of "
                f"{name}=: it makes the function of gradients by itself. Call, inside "
                f"the jitted step, {_CALL}."
            )
    if losses_fn is None:
        raise ValueError(
            f"{method} needs the extra argument losses_fn=, the losses of this batch "
            "as a function of the parameters, which did not arrive. Call, inside the "
            f"jitted step, {_CALL}. Flax's TrainState cannot pass it: use mtl_optax."
            "flax_support.MultiTaskTrainState. Nor can optax.contrib.sam."
        )

    def checked(params: optax.Params) -> Any:
        losses = losses_fn(params)
        if isinstance(losses, tuple) and any(
            isinstance(part, (Mapping, tuple, list)) for part in losses
        ):
            raise ValueError(
                f"{method}: losses_fn= must return losses only, a dict or tuple of "
                f"scalars or an array [T]; got a tuple of {_types(losses)}. Leave the "
                "auxiliary output away: losses_fn=lambda p: losses_fn(p, x)[0]."
            )
        found, wanted = stack_losses(losses).shape[0], given.num_tasks
        if found != wanted:
            raise ValueError(
                f"{method}: losses_fn= gave {found} losses for {wanted} tasks. Give "
                "one a task; for a task absent from this batch any number, and set its "
                "entry of active= to False."
            )
        names = {"the gradients": given.names, "losses_fn=": names_of(losses)}
        agreed_names(names, wanted)
        return losses

    return checked


def _types(parts: tuple[Any, ...]) -> str:
    return ", ".join(type(part).__name__ for part in parts)
