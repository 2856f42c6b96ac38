"""Hard parameter sharing: one encoder for all tasks (Caruana 1997)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from mtl_optax.nn.sharing import is_by_task


class HardSharing(nnx.Module):
    r"""One encoder that all tasks share, and a decoder for each.

    .. math:: y_t = D_t(E(x))

    Args:
      encoder: E, any callable module from inputs to a representation.
      decoders: task -> :math:`D_t`, a callable module from the representation.

    Shared: the encoder. Auxiliary terms: none.

    Cost: one pass through the encoder, whatever T; one a task, over its own rows, where
    inputs differ by task. Batch statistics then move with each.

    When not to use it: where tasks disturb one another in the encoder and the method of
    aggregation does not help.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import HardSharing
      >>> rngs = nnx.Rngs(0)
      >>> net = HardSharing(
      ...     nnx.Linear(3, 4, rngs=rngs),
      ...     {"a": nnx.Linear(4, 1, rngs=rngs), "b": nnx.Linear(4, 2, rngs=rngs)},
      ... )
      >>> {task: y.shape for task, y in net(jnp.ones((5, 3))).items()}
      {'a': (5, 1), 'b': (5, 2)}

    References:
      Caruana, `Multitask Learning <https://doi.org/10.1023/A:1007379606734>`_, 1997.
    """

    def __init__(
        self,
        encoder: Callable[..., jax.Array],
        decoders: Mapping[str, Callable[..., jax.Array]],
    ):
        self.encoder = encoder
        self.own = nnx.Dict(dict(decoders))

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`.

        Args:
          x: the inputs of all tasks; or a dict from some of the tasks to those of each,
            whose numbers may differ.
        """
        return self.decode(self.representations(x))

    def representations(self, x: Any) -> dict[str, jax.Array]:
        """What the decoder of each task reads."""
        if is_by_task(x, self.own):
            return {task: self.encoder(inputs) for task, inputs in x.items()}
        return dict.fromkeys(self.own, self.encoder(x))

    def decode(self, representations: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Outputs of each task from `representations`."""
        return {task: self.own[task](h) for task, h in representations.items()}
