"""What Flax's training loops lack to call our methods.

Besides this, `mtl_optax.nn`, `mtl_optax.rl` and the study need Flax; the methods do
not.
"""

import copy
from typing import Any

import optax
from flax import nnx
from flax.training.train_state import TrainState

from mtl_optax.core.task_grads.as_task_grads import is_lazy


class MultiTaskTrainState(TrainState):
    """Linen's TrainState, with extra arguments of `apply_gradients` passed on.

    `TrainState.apply_gradients(grads=g, losses=l)` takes `losses` for a field of the
    state and raises; here it reaches `tx.update`. Gradients may be lazy.

    Raises:
      ValueError: those of the method in `tx`.

    Cost: none of its own.

    When not to use it: with Flax NNX, whose `nnx.Optimizer.update(model, grads,
    losses=...)` passes keywords by itself; with fp8 parameters that Flax overwrites
    with their gradient, which have no meaning per task.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> from mtl_optax.flax_support import MultiTaskTrainState
      >>> state = MultiTaskTrainState.create(
      ...     apply_fn=None,
      ...     params={"w": jnp.ones(2)},
      ...     tx=optax.chain(mtl.uw(num_tasks=2), optax.sgd(0.1)),
      ... )
      >>> grads = {"w": jnp.ones((2, 2))}
      >>> state = state.apply_gradients(grads=grads, losses=jnp.array([1.0, 2.0]))
      >>> state.params["w"], int(state.step)
      (Array([0.9, 0.9], dtype=float32), 1)
    """

    def apply_gradients(
        self, *, grads: Any, **extra_args: Any
    ) -> "MultiTaskTrainState":
        """One step; `extra_args` go to `tx.update` (`losses=`, `active=`, ...)."""
        tx = optax.with_extra_args_support(self.tx)
        updates, opt_state = tx.update(grads, self.opt_state, self.params, **extra_args)
        return self.replace(
            step=self.step + 1,
            params=optax.apply_updates(self.params, updates),
            opt_state=opt_state,
        )


def nnx_update(
    optimizer: nnx.Optimizer, model: Any, task_gradients: Any, **extra_args: Any
) -> None:
    """`nnx.Optimizer.update` for stacked and for lazy task gradients.

    `optimizer.update(model, grads, **extra)` takes stacked gradients and passes its
    keywords on; but it filters the gradients by variable type, which lazy ones cannot
    pass. This hands them to the optimiser's transformation beside the filter.

    Args:
      optimizer: an `nnx.Optimizer` whose `tx` begins with a method.
      model: the model that it optimises; updated in place, like the optimiser.
      task_gradients: a tree like `nnx.state(model, optimizer.wrt)` with leaves
        `[T, *param]`, or :class:`mtl_optax.LazyTaskGrads` of such parameters.
      **extra_args: go to `tx.update` (`losses=`, `active=`, ...).

    Raises:
      ValueError: those of the method in `tx`.

    Cost: none of its own.

    When not to use it: with stacked gradients `optimizer.update` does the same.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> from flax import nnx
      >>> from mtl_optax.flax_support import nnx_update
      >>> model = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0))
      >>> tx = optax.chain(mtl.cagrad(num_tasks=2), optax.sgd(0.1))
      >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
      >>> @nnx.jit
      ... def step(model, optimizer, x):
      ...     graphdef, params, rest = nnx.split(model, nnx.Param, ...)
      ...
      ...     def losses_fn(params):
      ...         out = nnx.merge(graphdef, params, rest, copy=True)(x)
      ...         return {"a": jnp.mean(out[:, 0] ** 2), "b": jnp.mean(out[:, 1] ** 2)}
      ...
      ...     losses, grads = mtl.lazy_task_grads(losses_fn)(params)
      ...     nnx_update(optimizer, model, grads)
      ...     return losses
      >>> x = jnp.ones((4, 2))
      >>> bool(jnp.sum(step(model, optimizer, x)) > jnp.sum(step(model, optimizer, x)))
      True
    """
    if not is_lazy(task_gradients):
        optimizer.update(model, task_gradients, **extra_args)
        return
    tx = optax.with_extra_args_support(optimizer.tx)

    def update(_: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return tx.update(task_gradients.onto(params), state, params, **extra)

    # A copy shares the optimiser's variables, so that this updates the original.
    with_lazy = copy.copy(optimizer)
    with_lazy.tx = optax.GradientTransformationExtraArgs(tx.init, update)
    with_lazy.update(model, nnx.state(model, optimizer.wrt), **extra_args)
