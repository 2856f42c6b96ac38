"""A batch normalisation for each task behind a layer that all of them share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.core.arguments import checks
from mtl_optax.core.connection_strength import connection_strength


class TaskBatchNorm(nnx.Module):
    """T batch normalisations, of which a call uses that of its task.

    Statistics, scale and bias are each task's own, so that activations of a shared
    layer are normalised as the task's data ask, and the scales tell how much the task
    uses each channel: what :func:`mtl_optax.cso` asks for. Each is a whole
    `flax.nnx.BatchNorm`, `norms[t]`, with leaves of its own, which `owner=` of that
    method can give to the task.

    Args:
      num_tasks: T, a Python int.
      num_features: channels, the last axis of the input.
      rngs: as in `flax.nnx.BatchNorm`.
      **options: as in `flax.nnx.BatchNorm`: `momentum`, `epsilon`, `axis_name`, ...

    Raises:
      ValueError: if called for a task that is not a Python int from 0 to T-1.

    Cost: 4 T numbers a channel.

    When not to use it: where a task has so few examples in a batch that its own
    statistics are noise.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import TaskBatchNorm
      >>> norm = TaskBatchNorm(2, 3, rngs=nnx.Rngs(0))
      >>> x = jnp.arange(12.0).reshape(4, 3)
      >>> norm(x, task=1).mean(axis=0).round(3)
      Array([0., 0., 0.], dtype=float32)
      >>> norm.variances.round(1)  # task 0 has seen nothing yet
      Array([[1. , 1. , 1. ],
             [1.1, 1.1, 1.1]], dtype=float32)
    """

    def __init__(
        self, num_tasks: int, num_features: int, *, rngs: nnx.Rngs, **options: Any
    ):
        num_tasks = checks.static_int("num_tasks", num_tasks)
        self.norms = nnx.List(
            [
                nnx.BatchNorm(num_features, rngs=rngs, **options)
                for _ in range(num_tasks)
            ]
        )

    def __call__(self, x: Any, task: int, **options: Any) -> jax.Array:
        """Normalises `x` for a task; options as in `flax.nnx.BatchNorm`."""
        task = checks.static_int("task", task, 0)
        if task >= len(self.norms):
            raise ValueError(
                f"TaskBatchNorm: there is no task {task}; {len(self.norms)} tasks are "
                "numbered from 0."
            )
        return self.norms[task](x, **options)

    @property
    def scales(self) -> jax.Array:
        """The scales of all tasks, `[T, C]`; 1 without."""
        return jnp.stack(
            [
                jnp.ones_like(norm.var[...]) if norm.scale is None else norm.scale[...]
                for norm in self.norms
            ]
        )

    @property
    def variances(self) -> jax.Array:
        """The running variances of all tasks, `[T, C]`."""
        return jnp.stack([norm.var[...] for norm in self.norms])

    def connection_strength(self, kernel: Any) -> jax.Array:
        """Strengths `[T, C]` of the channels of the layer before, for `cso`."""
        eps = self.norms[0].epsilon
        return connection_strength(kernel, self.scales, self.variances, eps=eps)
