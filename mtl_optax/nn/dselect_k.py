"""DSelect-k, a differentiable gate that takes k experts (Hazimeh et al. 2021)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.core.arguments import checks
from mtl_optax.nn.mixtures import Module, flatten, mix
from mtl_optax.nn.sharing import one_input

EPS = 1e-6  # below logarithms and fractions, as in LibMTL


def smooth_step(t: Any, gamma: Any = 1.0) -> jax.Array:
    r"""0 up to :math:`-\gamma/2`, 1 from :math:`\gamma/2`, a cubic between.

    .. math:: S(t) = -2 t^3 / \gamma^3 + 3 t / (2 \gamma) + 1/2

    Its derivative is continuous, and exactly 0 outside.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn.dselect_k import smooth_step
      >>> smooth_step(jnp.array([-1.0, -0.25, 0.0, 0.25, 1.0]))
      Array([0.     , 0.15625, 0.5    , 0.84375, 1.     ], dtype=float32)
    """
    u = jnp.clip(jnp.asarray(t) / gamma, -0.5, 0.5)
    return -2 * u**3 + 1.5 * u + 0.5


def single_experts(bits: Any, num_experts: int, gamma: Any = 1.0) -> jax.Array:
    r"""Each selector's weights of experts, a product over the bits of their numbers.

    .. math:: q_e = \prod_j S(z_j)^{e_j} (1 - S(z_j))^{1 - e_j}

    Args:
      bits: logits z of the bits, lowest first, `[..., m]` with `2**m >= num_experts`.
      num_experts: M.
      gamma: width of the smooth step.

    Returns:
      `[..., M]`; rows sum to 1 if M is a power of two, to less otherwise.
    """
    on = smooth_step(bits, gamma)[..., None, :]
    number = jnp.arange(num_experts)[:, None]
    is_set = (number >> jnp.arange(bits.shape[-1])[None, :]) & 1 == 1
    is_set = is_set.reshape((1,) * (bits.ndim - 1) + is_set.shape)
    return jnp.prod(jnp.where(is_set, on, 1 - on), axis=-1)


def selector_regularizer(q: Any, entropy_weight: Any = 1e-6) -> jax.Array:
    r"""What drives selectors `[B, k, M]` to single experts that exist, a scalar.

    .. math:: \frac1B \sum_{b,i} \Big( - w \sum_e q_{bie} \log(q_{bie} + \epsilon)
      \; [ \, + \, 1 / (\textstyle\sum_e q_{bie} + \epsilon) \, ] \Big)

    The second term, only where M is no power of two, keeps the selector away from
    numbers without an expert.
    """
    cost = entropy_weight * jnp.sum(-q * jnp.log(q + EPS), axis=-1)
    num_experts = q.shape[-1]
    if num_experts & (num_experts - 1):
        cost += 1 / (jnp.sum(q, axis=-1) + EPS)
    return jnp.mean(jnp.sum(cost, axis=-1))


class DSelectKGate(nnx.Module):
    """Selectors and their weights from inputs; made by `DSelectK`, see there."""

    def __init__(
        self,
        num_features: int,
        num_experts: int,
        *,
        num_selected: int,
        gamma: float,
        read: Module,
        rngs: nnx.Rngs,
    ):
        self.num_experts, self.gamma, self.read = num_experts, gamma, read
        self.shape = (num_selected, (num_experts - 1).bit_length())
        self.bits = _uniform(
            num_features, self.shape[0] * self.shape[1], gamma / 100, rngs
        )
        self.selectors = _uniform(num_features, num_selected, 0.05, rngs)

    def __call__(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """Weights `[B, M]` of the experts, and `[B, k, M]` of each selector."""
        rows = self.read(x)
        bits = self.bits(rows).astype(jnp.float32).reshape(-1, *self.shape)
        q = single_experts(bits, self.num_experts, self.gamma)
        s = nnx.softmax(self.selectors(rows).astype(jnp.float32))
        return jnp.sum(s[:, :, None] * q, axis=1), q


class DSelectK(nnx.Module):
    r"""Shared experts, of which each task's gate learns to take k at most.

    .. math:: p_t = \sum_{i \le k} s_{ti} \, q_{ti} \qquad
      y_t = D_t \Big( \sum_e p_{te} E_e(x) \Big)

    where s is a softmax over k selectors and :math:`q_{ti}` a product of smooth steps
    over the bits of the experts' numbers, see `single_experts`: once every bit's logit
    lies beyond :math:`\pm\gamma/2`, exactly k-sparse. Both are linear in u(x).

    Args:
      experts: the M experts :math:`E_e`, two at least, with outputs of one shape.
      decoders: task -> :math:`D_t`, a callable module from the mixture.
      num_features: features of u(x), which the gates read.
      num_selected: k.
      gamma: width of the smooth step, a Python number.
      entropy_weight: w of the regulariser.
      read: u, from inputs to rows `[B, num_features]`; by default it flattens them.
      rngs: for the gates.

    Shared: the experts. Auxiliary terms: each task's regulariser, see
    `selector_regularizer`.

    Raises:
      ValueError: with fewer than two experts, for which no gate is needed.

    Cost: M encoders in training, whatever T; of an expert with weight 0 nothing is
    saved, since weights are known when the program runs.

    When not to use it: with few experts, where the softmax of `MMoE` costs the same and
    is easier to train.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import DSelectK
      >>> rngs = nnx.Rngs(0)
      >>> net = DSelectK(
      ...     [nnx.Linear(3, 4, rngs=rngs) for _ in range(8)],
      ...     {"a": nnx.Linear(4, 1, rngs=rngs), "b": nnx.Linear(4, 2, rngs=rngs)},
      ...     num_features=3,
      ...     rngs=rngs,
      ... )
      >>> outputs, auxiliary = net.with_auxiliary(jnp.ones((5, 3)))
      >>> {task: y.shape for task, y in outputs.items()}
      {'a': (5, 1), 'b': (5, 2)}
      >>> {task: term.shape for task, term in auxiliary.items()}
      {'a': (), 'b': ()}

    References:
      Hazimeh et al., `DSelect-k <https://arxiv.org/abs/2106.03760>`_, NeurIPS 2021.
      Where we differ from LibMTL: its `gamma` scales the initial weights only, here the
      step too; it differentiates the regulariser inside of the forward pass, and that
      of the last task alone; it sums it over the batch, here it is a mean; its second
      term is infinite where a selector points to no expert.
    """

    def __init__(
        self,
        experts: Sequence[Module],
        decoders: Mapping[str, Module],
        *,
        num_features: int,
        num_selected: int = 2,
        gamma: float = 1.0,
        entropy_weight: float = 1e-6,
        read: Module = flatten,
        rngs: nnx.Rngs,
    ):
        if len(experts) < 2:
            raise ValueError(
                f"DSelectK selects among two experts at least, got {len(experts)}; "
                "with one use HardSharing."
            )
        self.experts = nnx.List(list(experts))
        self.entropy_weight = entropy_weight
        own: dict[str, Any] = {}
        for task, decoder in decoders.items():
            gate = DSelectKGate(
                num_features,
                len(experts),
                num_selected=checks.static_int("num_selected", num_selected),
                gamma=gamma,
                read=read,
                rngs=rngs,
            )
            own[task] = nnx.Dict(gate=gate, decoder=decoder)
        self.own = nnx.Dict(own)

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`."""
        return self.with_auxiliary(x)[0]

    def with_auxiliary(
        self, x: Any
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Outputs of each task, and the term to add to its loss."""
        one_input("DSelectK", x, self.own)
        values = [expert(x) for expert in self.experts]
        outputs, terms = {}, {}
        for task, part in self.own.items():
            weights, q = part["gate"](x)
            outputs[task] = part["decoder"](mix(weights, values))
            terms[task] = selector_regularizer(q, self.entropy_weight)
        return outputs, terms


def _uniform(num_in: int, num_out: int, bound: float, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer with weights and biases uniform within the bound."""

    def init(key: Any, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nnx.Linear(num_in, num_out, kernel_init=init, bias_init=init, rngs=rngs)
