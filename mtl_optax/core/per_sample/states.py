"""What is known of a value in the backward pass, and what to say where that fails."""

import dataclasses
from typing import Any, NoReturn


@dataclasses.dataclass(frozen=True)
class Still:
    """Does not depend on the losses' cotangent."""

    of_batch: bool = False  # depends on an argument with the batch in front
    zero: bool = False  # is known to be zero


@dataclasses.dataclass(frozen=True)
class Row:
    """Linear in the cotangent; what belongs to sample b depends on its entry b alone.

    The axis has size `outer * B * inner`, the middle of these is the batch.
    """

    axis: int
    inner: int = 1


@dataclasses.dataclass(frozen=True)
class Total:
    """A sum over the samples of values that are each linear in one entry."""

    where: str  # the operation that summed


State = Still | Row | Total

CURE = (
    "Evaluate BatchNorm in inference mode (use_running_average=True), or take GroupNorm"
    " or LayerNorm; take means, softmaxes and sorted orders over the batch out of "
    "losses_fn; or make the gradients with mtl_optax.lazy_task_grads, which takes any "
    "losses [B], at the price of B backward passes."
)


def name_of(eqn: Any) -> str:
    """The primitive, the shape of its result, and the module that it belongs to."""
    shape = eqn.outvars[0].aval.str_short() if eqn.outvars else ""
    stack = str(getattr(eqn.source_info, "name_stack", ""))
    return f"{eqn.primitive.name} ({shape}{', in ' if stack else ''}{stack})"


def mixed(eqn: Any, how: str) -> NoReturn:
    """Raises for an operation through which one sample reaches another."""
    raise ValueError(
        "per_sample_grads: the losses of different samples depend on each other, or "
        f"cannot be shown not to: {name_of(eqn)} {how}. {CURE}"
    )


def nonlinear(eqn: Any) -> NoReturn:
    """Raises for a backward pass that is not one."""
    raise ValueError(
        f"per_sample_grads: the backward pass is not linear in its cotangent at "
        f"{name_of(eqn)}: a custom_vjp of the model changes gradients there (clipping, "
        "rounding). Take it out, or make the gradients with mtl_optax.task_grads."
    )


def shape_of(atom: Any) -> tuple[int, ...]:
    """That of a variable or a literal."""
    return tuple(atom.aval.shape)
