"""Mixture of experts with a gate for each task, MMoE (Ma et al. 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from mtl_optax.nn.mixtures import Gate, Module, flatten, mix
from mtl_optax.nn.sharing import one_input


class MMoE(nnx.Module):
    r"""Experts that all tasks share, mixed for each task by a gate of its own.

    .. math:: p_t = \operatorname{softmax}(W_t u(x) + b_t) \qquad
      y_t = D_t \Big( \sum_m p_{tm} E_m(x) \Big)

    Args:
      experts: the M experts :math:`E_m`, modules with outputs of one shape.
      decoders: task -> :math:`D_t`, a callable module from the mixture.
      num_features: features of u(x), which the gates read.
      read: u, from inputs to rows `[B, num_features]`; by default it flattens them.
      rngs: for the gates.

    Shared: the experts. Auxiliary terms: none.

    Cost: M encoders, whatever T.

    When not to use it: on images with the default `read`, whose gates have a weight for
    each pixel; pool them. Where gates must be sparse, see `DSelectK`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import MMoE
      >>> rngs = nnx.Rngs(0)
      >>> net = MMoE(
      ...     [nnx.Linear(3, 4, rngs=rngs) for _ in range(5)],
      ...     {"a": nnx.Linear(4, 1, rngs=rngs), "b": nnx.Linear(4, 2, rngs=rngs)},
      ...     num_features=3,
      ...     rngs=rngs,
      ... )
      >>> {task: y.shape for task, y in net(jnp.ones((8, 3))).items()}
      {'a': (8, 1), 'b': (8, 2)}
      >>> net.own["a"]["gate"](jnp.ones((8, 3))).shape
      (8, 5)

    References:
      Ma et al., `Modeling Task Relationships in Multi-task Learning with Multi-gate
      Mixture-of-Experts <https://doi.org/10.1145/3219819.3220007>`_, KDD 2018. Gates
      have a bias, as in LibMTL.
    """

    def __init__(
        self,
        experts: Sequence[Module],
        decoders: Mapping[str, Module],
        *,
        num_features: int,
        read: Module = flatten,
        rngs: nnx.Rngs,
    ):
        self.experts = nnx.List(list(experts))
        own: dict[str, Any] = {}
        for task, decoder in decoders.items():
            gate = Gate(num_features, len(self.experts), read, rngs=rngs)
            own[task] = nnx.Dict(gate=gate, decoder=decoder)
        self.own = nnx.Dict(own)

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`."""
        one_input("MMoE", x, self.own)
        values = [expert(x) for expert in self.experts]
        return {
            task: part["decoder"](mix(part["gate"](x), values))
            for task, part in self.own.items()
        }
