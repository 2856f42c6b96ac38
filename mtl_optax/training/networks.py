"""Networks for a data set: any architecture of `mtl_optax.nn` that fits what it holds.

>>> from flax import nnx
>>> import jax, jax.numpy as jnp
>>> from mtl_optax.data.dataset import Columns, Dataset, Task
>>> tasks = (Task("bought", "binary", 2), Task("price", "regression"))
>>> data = Dataset("shop", tasks, {"train": ()}, Columns(3, (7,)))
>>> net = build(data, "mmoe", width=8, rngs=nnx.Rngs(0))
>>> x = {"numbers": jnp.ones((4, 3)), "categories": jnp.zeros((4, 1), int)}
>>> outputs, terms = forward(net, x)
>>> {task: y.shape for task, y in outputs.items()}, terms
({'bought': (4, 1), 'price': (4, 1)}, {})
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from mtl_optax import nn
from mtl_optax.data.dataset import Dataset
from mtl_optax.nn.sharing import is_by_task
from mtl_optax.training.encoders import Parts, encoders_for

Outputs = dict[str, jax.Array]
LossesOf = Callable[[Outputs], Mapping[str, jax.Array]]


class Network(nnx.Module):
    """An architecture behind the front that makes rows of tables or molecules.

    Args:
      net: of `mtl_optax.nn`.
      front: from inputs to what `net` reads; None hands inputs on.
    """

    def __init__(self, net: Any, front: Any = None):
        self.net, self.front = net, front

    def __call__(self, inputs: Any) -> Outputs:
        """Outputs of each task, as in evaluation."""
        return self.net(self.read(inputs))

    def read(self, inputs: Any) -> Any:
        """What the architecture reads; of each task, where inputs differ by task."""
        if self.front is None:
            return inputs
        if is_by_task(inputs, self.net.own):
            return {task: self.front(x) for task, x in inputs.items()}
        return self.front(inputs)


def hard_sharing(parts: Parts) -> nnx.Module:
    """One encoder for all tasks."""
    return nn.HardSharing(parts.encoder(), parts.towers())


class Architecture(NamedTuple):
    """How a network is made, and of what."""

    build: Callable[[Parts], nnx.Module]


ARCHITECTURES = {
    "hps": Architecture(hard_sharing),
}


def build(
    dataset: Dataset,
    arch: str,
    encoder: str | None = None,
    *,
    rngs: nnx.Rngs,
    width: int | None = None,
    dtype: Any = None,
    weights: Path | str | None = None,
) -> Network:
    """A network."""
    encoder = encoder or encoders_for(dataset)[0]
    parts = Parts(dataset, encoder, width, dtype, weights, rngs)
    return Network(ARCHITECTURES[arch].build(parts), parts.front)


def takes_inputs_by_task(net: Network) -> bool:
    """Whether inputs may be a dict from tasks to those of each."""
    return isinstance(net.net, nn.HardSharing)


def forward(
    net: Network,
    inputs: Any,
    *,
    key: Any = None,
    epoch: Any = 0,
    epochs: Any = 1,
    losses_of: LossesOf | None = None,
) -> tuple[Outputs, Outputs]:
    """Outputs and auxiliary terms."""
    return net(inputs), {}
