"""Customised gate control, CGC: shared experts and experts of each task (Tang 2020)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from mtl_optax.nn.mixtures import Gate, Module, flatten, mix, task_names
from mtl_optax.nn.sharing import one_input


class CGC(nnx.Module):
    r"""Shared experts and experts of its own, mixed for each task by its gate.

    .. math:: p_t = \operatorname{softmax}(W_t u(x) + b_t) \qquad
      y_t = D_t \Big( \sum_{m \in \text{shared} \cup \text{own}_t} p_{tm} E_m(x) \Big)

    The gate's first columns are the shared experts. No gradient of a task reaches
    experts, gate or decoder of another.

    Args:
      shared_experts: modules with outputs of one shape.
      own_experts: task -> its experts, likewise; may be empty for any task.
      decoders: task -> :math:`D_t`, a callable module from the mixture.
      num_features: features of u(x), which the gates read.
      read: u, from inputs to rows `[B, num_features]`; by default it flattens them.
      rngs: for the gates.

    Shared: the shared experts. Auxiliary terms: none.

    Raises:
      ValueError: if a task has experts but no decoder, or the reverse.

    Cost: one pass through every expert.

    When not to use it: with many tasks, whose own experts cost as much as single
    networks; see `MMoE`, which this is when tasks have no own experts.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import CGC
      >>> rngs = nnx.Rngs(0)
      >>> expert = lambda: nnx.Linear(3, 4, rngs=rngs)
      >>> net = CGC(
      ...     [expert(), expert()],
      ...     {"a": [expert()], "b": [expert(), expert()]},
      ...     {"a": nnx.Linear(4, 1, rngs=rngs), "b": nnx.Linear(4, 2, rngs=rngs)},
      ...     num_features=3,
      ...     rngs=rngs,
      ... )
      >>> {task: y.shape for task, y in net(jnp.ones((8, 3))).items()}
      {'a': (8, 1), 'b': (8, 2)}

    References:
      Tang et al., `Progressive Layered Extraction (PLE)
      <https://doi.org/10.1145/3383313.3412236>`_, RecSys 2020, section 4.1.
    """

    def __init__(
        self,
        shared_experts: Sequence[Module],
        own_experts: Mapping[str, Sequence[Module]],
        decoders: Mapping[str, Module],
        *,
        num_features: int,
        read: Module = flatten,
        rngs: nnx.Rngs,
    ):
        task_names("CGC", own_experts=own_experts, decoders=decoders)
        self.experts = nnx.List(list(shared_experts))
        own: dict[str, Any] = {}
        for task, decoder in decoders.items():
            experts = nnx.List(list(own_experts[task]))
            number = len(self.experts) + len(experts)
            gate = Gate(num_features, number, read, rngs=rngs)
            own[task] = nnx.Dict(experts=experts, gate=gate, decoder=decoder)
        self.own = nnx.Dict(own)

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`."""
        one_input("CGC", x, self.own)
        shared = [expert(x) for expert in self.experts]
        return {
            task: part["decoder"](
                mix(part["gate"](x), shared + [e(x) for e in part["experts"]])
            )
            for task, part in self.own.items()
        }
