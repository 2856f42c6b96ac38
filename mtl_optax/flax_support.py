"""What Flax's training loops lack to call our methods; the only core file on flax."""

from typing import Any

import optax
from flax.training.train_state import TrainState


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
