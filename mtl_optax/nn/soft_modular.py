"""Soft modularisation: modules that all tasks share, and a soft route for each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_optax.core.arguments import checks
from mtl_optax.nn.mixtures import names_of
from mtl_optax.nn.soft_routing import ParallelLinear, Router, hidden, mix, small

Array = jax.Array


class SoftModularNet(nnx.Module):
    r"""Layers of modules whose outputs are mixed by weights computed for each task.

    With observation o and task z (one-hot), :math:`f = F(o)`, :math:`h = W z + b`, and
    e a small network of :math:`f \odot h`:

    .. math::
      P^l = \mathrm{softmax} \big(
        U^l \, \mathrm{relu}(V^l [P^1, ..., P^{l-1}] \odot e) \big), \quad
      m^{l+1}_i = M^{l+1}_i \, \mathrm{relu} \Big( \sum_j P^l_{ij} m^l_j \Big), \quad
      y = O \, \mathrm{relu} \Big( \sum_j p^L_j m^L_j \Big)

    with :math:`m^1_j = M^1_j \, \mathrm{relu}(f)` and :math:`P^1` of e alone. Each row
    of each :math:`P^l` sums to one.

    The tasks come in as a one-hot vector, so that column t of W is read by task t only:
    this is what stands under `own`. The outputs for T one-hot vectors make the dict.

    Args:
      obs_dim: size of o, without the one-hot task.
      num_tasks: T, a Python int.
      out_dim: size of y.
      num_layers: L, at least 2.
      num_modules: n, modules a layer.
      module_dim: width of a module.
      variant: "code" as above. "paper": e is :math:`f \odot h` itself; :math:`P^l` sees
        the logits of :math:`P^{l-1}` only; relu stands inside of the modules, before
        the mixture; the modules of the last layer have outputs of size `out_dim`,
        whose sum is y.
      tasks: names of the tasks, in the order of the one-hot vector; "0", "1", ...,
        padded with zeros so that they sort.
      embed_dim: size of f and h.
      gate_dim: width of e, for "code".
      dtype: of the computation, as in `flax.nnx.Linear`; routing weights are float32.
      rngs: `params` for the initial values.

    Raises:
      ValueError: for fewer than two layers, an unknown variant, other than T names;
        when called for a task that it does not know.

    Shared: all but the T rows of the task embedding. Auxiliary terms: none.

    Cost: one pass over the rows of all tasks. Given one batch for all tasks, T times
    its rows. The number of parameters grows by `embed_dim` with each task.

    When not to use it: where the input tells nothing that routing could depend on and
    heads of their own are cheap; for a single task.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import SoftModularNet
      >>> net = SoftModularNet(
      ...     3, 2, 1, num_layers=2, num_modules=2, module_dim=4, rngs=nnx.Rngs(0)
      ... )
      >>> ys = net({"0": jnp.ones((5, 3)), "1": jnp.zeros((7, 3))})
      >>> {task: y.shape for task, y in ys.items()}
      {'0': (5, 1), '1': (7, 1)}
      >>> net.routing(jnp.ones((1, 3)))["0"][0].round(2)  # nearly uniform at first
      Array([[[0.5, 0.5],
              [0.5, 0.5]]], dtype=float32)

    References:
      Yang et al., `Multi-Task Reinforcement Learning with Soft Modularization
      <https://arxiv.org/abs/2003.13661>`_, 2020. "code" has the numbers of parameters
      of the authors' code, RchalYang/Soft-Module, and its initial values. INFERRED:
      "paper" follows accounts by others; that its modules read relu(f) too, its initial
      values, and that its last modules are the heads, are ours.
    """

    def __init__(
        self,
        obs_dim: int,
        num_tasks: int,
        out_dim: int,
        *,
        num_layers: int = 2,
        num_modules: int = 2,
        module_dim: int = 256,
        variant: str = "code",
        tasks: Sequence[str] | None = None,
        embed_dim: int = 400,
        gate_dim: int = 256,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        layers = checks.static_int("num_layers", num_layers, 2)
        n = checks.static_int("num_modules", num_modules)
        checks.one_of("variant", variant, ("code", "paper"))
        names = names_of("SoftModularNet", num_tasks, tasks)
        init = hidden(embed_dim)
        code = variant == "code"
        self.variant = variant
        options = {"dtype": dtype, "rngs": rngs}
        encoder = [
            nnx.Linear(d, embed_dim, **init, **options) for d in (obs_dim, embed_dim)
        ]
        self.encoder = nnx.List(encoder)
        self.own = nnx.Dict(
            {
                t: nnx.Param(init["kernel_init"](rngs.params(), (embed_dim,)))
                for t in names
            }
        )
        self.task_bias = nnx.Param(init["bias_init"](rngs.params(), (embed_dim,)))
        self.router = Router(
            *(embed_dim, gate_dim, layers, n), variant=variant, **options
        )
        widths = [embed_dim] + [module_dim] * layers
        inits = [hidden(module_dim)] * layers
        if not code:
            widths[-1], inits[-1] = out_dim, small()
        self.layers = nnx.List(
            [
                ParallelLinear(n, d_in, d_out, **init, **options)
                for d_in, d_out, init in zip(widths, widths[1:], inits, strict=False)
            ]
        )
        self.head = (
            nnx.Linear(module_dim, out_dim, **small(), **options) if code else None
        )

    def __call__(self, x: Any) -> dict[str, Array]:
        """Outputs of each task, `[B, out_dim]`.

        Args:
          x: observations `[B, obs_dim]`, the same for all tasks; or a dict from some of
            the tasks to those of each, whose numbers may differ.
        """
        x = self._of_tasks(x)
        f, h = self._embed(x)
        routing = self.router(f * h)
        first, *layers = self.layers
        g = jnp.broadcast_to(
            nnx.relu(f)[:, None, :], (len(f), len(first.bias), f.shape[-1])
        )
        m = first(g)
        if self.head is None:
            for weights, layer in zip(routing, layers, strict=True):
                m = layer(mix(weights, nnx.relu(m)))
            return _split(m.sum(axis=-2), x)
        for weights, layer in zip(routing[:-1], layers, strict=True):
            m = layer(nnx.relu(mix(weights, m)))
        return _split(self.head(nnx.relu(mix(routing[-1], m)[:, 0])), x)

    def routing(self, x: Any) -> dict[str, list[Array]]:
        """The routing weights of each task: all P and, for "code", p.

        Args:
          x: as in a call.

        Returns:
          Arrays `[B, n, n]`, and `[B, 1, n]` for the last mixture.
        """
        x = self._of_tasks(x)
        f, h = self._embed(x)
        parts = [_split(weights, x) for weights in self.router(f * h)]
        return {task: [part[task] for part in parts] for task in x}

    def _of_tasks(self, x: Any) -> dict[str, Array]:
        if not isinstance(x, Mapping):
            return dict.fromkeys(self.own, x)
        if unknown := sorted(set(x) - set(self.own)):
            raise ValueError(
                f"SoftModularNet: there are no tasks {unknown} among {list(self.own)}."
            )
        return dict(x)

    def _embed(self, x: dict[str, Array]) -> tuple[Array, Array]:
        """Features f and embeddings h of the tasks, for the rows of all."""
        first, second = self.encoder
        f = second(nnx.relu(first(jnp.concatenate(list(x.values())))))
        shift = self.task_bias[...]
        rows = [
            jnp.broadcast_to(self.own[task][...] + shift, (len(o), *shift.shape))
            for task, o in x.items()
        ]
        return f, jnp.concatenate(rows).astype(f.dtype)


def _split(rows: Array, x: dict[str, Array]) -> dict[str, Array]:
    ends = np.cumsum([len(o) for o in x.values()])
    return dict(zip(x, jnp.split(rows, ends[:-1]), strict=True))
