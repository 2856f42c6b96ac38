"""What methods share that learn weights from a second batch: it, and small steps."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.losses import names_of
from mtl_optax.core.arguments.names import active_mask, agreed_names
from mtl_optax.core.solvers.linalg import noise_floor
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.losses_fn import asked


class Batches(NamedTuple):
    """Gradients on one batch, and the losses on another."""

    train: TaskGrads
    validation_losses: Callable[[optax.Params], Any]  # checked when called
    validation_active: jax.Array | None  # [T] bool, tasks in the second; None: all

    @property
    def present(self) -> jax.Array:
        """`[T]` bool, the tasks in the first batch."""
        return self._mask(self.train.active)

    @property
    def judging(self) -> jax.Array:
        """`[T]` bool, the tasks in the second."""
        return self._mask(self.validation_active)

    def _mask(self, active: jax.Array | None) -> jax.Array:
        return jnp.ones(self.train.num_tasks, bool) if active is None else active


def both_batches(
    method: str,
    num_tasks: int,
    updates: Any,
    params: optax.Params | None,
    extra_args: Mapping[str, Any],
    *,
    losses: Any,
    active: Any,
    validation_losses_fn: Any,
    validation_active: Any,
) -> Batches:
    """What `update` of a method was given, checked.

    Without a mask of its own, the second batch lacks the tasks that the first one does.
    """
    checks.required(method, "params", params)
    checks.only_taken(extra_args, (), updates)
    about = {"losses": losses, "active": active}
    train = as_task_grads(updates, num_tasks, params, **about).at_parameters()
    argument = "validation_losses_fn"
    ask, train = asked(
        *(method, validation_losses_fn, train, params, extra_args), argument=argument
    )
    if validation_active is None:
        return Batches(train, ask, train.active)
    own = names_of(validation_active)
    agreed_names({"the gradients": train.names, "validation_active=": own})
    mask = active_mask(validation_active, num_tasks, "validation_active")
    return Batches(train, ask, mask)


def descended(
    params: optax.Params, learning_rate: Any, gradient: optax.Updates
) -> optax.Params:
    """The parameters after one plain step."""

    def moved(p: jax.Array, g: jax.Array) -> jax.Array:
        wide = jnp.promote_types(p.dtype, jnp.float32)
        return (p.astype(wide) - learning_rate * g.astype(wide)).astype(p.dtype)

    return jax.tree.map(moved, params, gradient)


def softmax_slopes(shares: jax.Array, slopes: jax.Array) -> jax.Array:
    """Slopes `[T]` in the shares as slopes in the values that these are softmax of.

    `s_t (x_t - sum_k s_k x_k)`, exactly 0 where that is the rounding of equal slopes.
    """
    apart = slopes - jnp.sum(shares * slopes)
    size = jnp.abs(slopes) + jnp.sum(shares * jnp.abs(slopes))
    floor = noise_floor(shares.shape[0], shares.dtype)
    return jnp.where(jnp.abs(apart) > floor * size, shares * apart, 0)
