"""Progressive layered extraction, PLE: CGC on several levels (Tang et al. 2020)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.mixtures import Gate, Module, flatten, mix, task_names
from mtl_optax.nn.sharing import one_input


class PLE(nnx.Module):
    r"""Levels of shared and own experts; each reads the mixtures of the level before.

    .. math:: r_t^s = \sum_{m \in \text{shared}} p_{tm}^s E_m^s(r_{sh}^{s-1})
      + \sum_{m \in \text{own}_t} p_{tm}^s E_m^s(r_t^{s-1}) \qquad r^0 = x \qquad
      y_t = D_t(r_t^S)

    with gates :math:`p_t^s = \operatorname{softmax}(W_t^s u(r_t^{s-1}) + b_t^s)`, the
    shared experts first. The shared representation :math:`r_{sh}^s` of each level but
    the last is the mixture of all experts, those of all tasks included, by a shared
    gate that reads :math:`r_{sh}^{s-1}`. With `shared_gate=False` there is none: shared
    experts are evaluated on :math:`r_t^{s-1}` for each task.

    Args:
      shared_experts: for each of the S levels its shared experts. Outputs of a level
        have one shape.
      own_experts: task -> for each level the task's experts, which may be none.
      decoders: task -> :math:`D_t`, a callable module from the last mixture.
      input_shape: shape of the inputs without B, from which the features that the gates
        of each level read are inferred.
      shared_gate: True as in the paper, False as in LibMTL.
      read: u, from inputs or mixtures to rows; by default it flattens them.
      rngs: for the gates.

    Shared: shared experts of all levels, and shared gates. Below the last level a
    shared gate lets a task's loss reach the experts of other tasks; `on_shared` adds
    these gradients up. With `shared_gate=False` none does. Auxiliary terms: none.

    Raises:
      ValueError: if tasks or numbers of levels differ.

    Cost: one pass through every expert; with `shared_gate=False` T through each shared
    expert above the first level, whose batch statistics then move T times a call.

    When not to use it: with one level it is `CGC`. With inputs that differ by task.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import PLE
      >>> rngs = nnx.Rngs(0)
      >>> linear = lambda *size: nnx.Linear(*size, rngs=rngs)
      >>> net = PLE(
      ...     [[linear(3, 4)], [linear(4, 5)]],
      ...     {task: [[linear(3, 4)], [linear(4, 5)]] for task in ("a", "b")},
      ...     {"a": linear(5, 1), "b": linear(5, 2)},
      ...     input_shape=(3,),
      ...     rngs=rngs,
      ... )
      >>> {task: y.shape for task, y in net(jnp.ones((8, 3))).items()}
      {'a': (8, 1), 'b': (8, 2)}

    References:
      Tang et al., `Progressive Layered Extraction (PLE)
      <https://doi.org/10.1145/3383313.3412236>`_, RecSys 2020, section 4.2. Where we
      differ from LibMTL: any number of levels, the shared gate.
    """

    def __init__(
        self,
        shared_experts: Sequence[Sequence[Module]],
        own_experts: Mapping[str, Sequence[Sequence[Module]]],
        decoders: Mapping[str, Module],
        *,
        input_shape: Sequence[int],
        shared_gate: bool = True,
        read: Module = flatten,
        rngs: nnx.Rngs,
    ):
        tasks = task_names("PLE", own_experts=own_experts, decoders=decoders)
        levels = {"shared_experts": len(shared_experts)}
        levels |= {f"own_experts[{task!r}]": len(own_experts[task]) for task in tasks}
        if len(set(levels.values())) != 1:
            raise ValueError(
                f"PLE: all need one number of levels, but they have {levels}."
            )
        self.experts = _levels(shared_experts)
        own = {task: _levels(own_experts[task]) for task in tasks}
        gates: dict[str, list[Gate]] = {task: [] for task in tasks}
        shared_gates = []
        shape = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
        for level, shared in enumerate(self.experts):
            features = jax.eval_shape(read, shape).shape[-1]
            counts = {task: len(own[task][level]) for task in tasks}
            for task in tasks:
                number = len(shared) + counts[task]
                gates[task].append(Gate(features, number, read, rngs=rngs))
            if shared_gate and level < len(self.experts) - 1:
                number = len(shared) + sum(counts.values())
                shared_gates.append(Gate(features, number, read, rngs=rngs))
            shape = _output(next(iter([*shared, *own[tasks[0]][level]])), shape)
        self.gates = nnx.List(shared_gates)
        self.shared_gate = shared_gate
        parts: dict[str, Any] = {
            task: nnx.Dict(
                experts=own[task], gates=nnx.List(gates[task]), decoder=decoders[task]
            )
            for task in tasks
        }
        self.own = nnx.Dict(parts)

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`."""
        one_input("PLE", x, self.own)
        shared, inputs = x, dict.fromkeys(self.own, x)
        for level, experts in enumerate(self.experts):
            own = {
                task: [expert(inputs[task]) for expert in part["experts"][level]]
                for task, part in self.own.items()
            }
            if self.shared_gate or level == 0:  # all tasks read one input
                values = [expert(shared) for expert in experts]
                common = dict.fromkeys(self.own, values)
            else:
                common = {
                    t: [expert(r) for expert in experts] for t, r in inputs.items()
                }
            if level < len(self.gates):
                everyone = sum((own[task] for task in sorted(own)), values)
                shared = mix(self.gates[level](shared), everyone)
            inputs = {
                task: mix(part["gates"][level](inputs[task]), common[task] + own[task])
                for task, part in self.own.items()
            }
        return {task: part["decoder"](inputs[task]) for task, part in self.own.items()}


def _levels(experts: Sequence[Sequence[Module]]) -> nnx.List:
    return nnx.List([nnx.List(list(level)) for level in experts])


def _output(expert: Callable[..., Any], x: jax.ShapeDtypeStruct) -> Any:
    """Shape and dtype of an expert's output, without its state moving."""
    graphdef, state = nnx.split(expert)
    return jax.eval_shape(lambda x: nnx.merge(graphdef, state, copy=True)(x), x)
