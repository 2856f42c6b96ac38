"""The extra argument `losses_fn`, with which a method asks at other parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.losses import names_of, stack_losses
from mtl_optax.core.arguments.names import agreed_names
from mtl_optax.core.task_grads.form import TaskGrads


def asked(
    method: str,
    losses_fn: Any,
    given: TaskGrads,
    params: optax.Params,
    extra_args: Mapping[str, Any],
) -> tuple[Callable[[optax.Params], Any], TaskGrads]:
    """Returns `losses_fn`, checked when called, or explains how to hand it over.

    Args:
      method: its name.
      losses_fn: the extra argument.
      given: the gradients, for the number of tasks and their names.
      params: the parameters, to learn the names from the losses if there are no others.
      extra_args: all others, among which a function of gradients, as versions before
        took it, is an error.

    Returns:
      The function, and the gradients with their names.
    """
    checks.renamed(extra_args)
    if not callable(losses_fn):
        raise ValueError(
            f"{method} needs the extra argument losses_fn=, the losses of this batch "
            f"as a function of the parameters, which did not arrive (got {losses_fn!r})"
            ". Call, inside the jitted step, tx.update(task_gradients, state, params, "
            "losses_fn=lambda p: losses_fn(p, x, y)). Flax's TrainState cannot pass "
            "it: use mtl_optax.flax_support.MultiTaskTrainState. Nor can "
            "optax.contrib.sam."
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

    if given.names is None:
        named = dataclasses.replace(
            cast(Any, given), names=names_of(jax.eval_shape(checked, params))
        )
        return checked, named
    return checked, given


def _types(parts: tuple[Any, ...]) -> str:
    return ", ".join(type(part).__name__ for part in parts)
