"""The extra argument `losses_fn`, with which a method asks at other parameters.

Some ask on a second batch too, `validation_losses_fn`.
"""

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
    argument: str = "losses_fn",
) -> tuple[Callable[[optax.Params], Any], TaskGrads]:
    """Returns `losses_fn`, checked when called, or explains how to hand it over.

    Args:
      method: its name.
      losses_fn: the extra argument.
      given: the gradients, for the number of tasks and their names.
      params: the parameters, to learn the names from the losses if there are no others.
      extra_args: all others, among which a function of gradients, as versions before
        took it, is an error.
      argument: what it is called: "losses_fn", or "validation_losses_fn".

    Returns:
      The function, and the gradients with their names.
    """
    checks.renamed(extra_args)
    if not callable(losses_fn):
        batch, of, nor = _BATCHES[argument]
        raise ValueError(
            f"{method} needs the extra argument {argument}=, the losses of {batch} "
            f"as a function of the parameters, which did not arrive (got {losses_fn!r})"
            ". Call, inside the jitted step, tx.update(task_gradients, state, params, "
            f"{argument}=lambda p: losses_fn(p, {of})). Flax's TrainState cannot pass "
            f"it: use mtl_optax.flax_support.MultiTaskTrainState. Nor can {nor}."
        )

    def checked(params: optax.Params) -> Any:
        losses = _called(method, argument, losses_fn, params)
        if isinstance(losses, tuple) and any(
            isinstance(part, (Mapping, tuple, list)) for part in losses
        ):
            raise ValueError(
                f"{method}: {argument}= must return losses only, a dict or tuple of "
                f"scalars or an array [T]; got a tuple of {_types(losses)}. Leave the "
                f"auxiliary output away: {argument}=lambda p: losses_fn(p, x)[0]."
            )
        found, wanted = stack_losses(losses).shape[0], given.num_tasks
        if found != wanted:
            raise ValueError(
                f"{method}: {argument}= gave {found} losses for {wanted} tasks. Give "
                "one a task; for a task absent from this batch any number, and set its "
                f"entry of {_MASKS[argument]}= to False."
            )
        names = {"the gradients": given.names, f"{argument}=": names_of(losses)}
        agreed_names(names, wanted)
        return losses

    if given.names is None:
        named = dataclasses.replace(
            cast(Any, given), names=names_of(jax.eval_shape(checked, params))
        )
        return checked, named
    return checked, given


# What each argument is of: in words, and in the call; and what cannot pass it on.
_BATCHES = {
    "losses_fn": ("this batch", "x, y", "optax.contrib.sam"),
    "validation_losses_fn": (
        *("a second batch", "x_val, y_val"),
        "optax.contrib.sam, nor mtl_optax.pareto_front, which has one batch a step",
    ),
}
_MASKS = {"losses_fn": "active", "validation_losses_fn": "validation_active"}


def _called(method: str, argument: str, losses_fn: Any, params: optax.Params) -> Any:
    """The losses; where only a part of the parameters is there, an error that says so.

    A function of some leaves alone may well do without the others.
    """
    try:
        return losses_fn(params)
    except Exception as error:
        if not checks.is_part(params):
            raise
        raise ValueError(
            f"{method} calls {argument}= with the parameters that it was given, which "
            "are some leaves only: mtl_optax.on_shared, optax.masked or "
            "optax.partition holds the others back. A method that asks for losses "
            "needs all leaves: put it outside, as in "
            f"optax.chain(mtl_optax.{method}(...), optimiser)."
        ) from error


def _types(parts: tuple[Any, ...]) -> str:
    return ", ".join(type(part).__name__ for part in parts)
