"""Cross-stitch networks: one encoder a task, linearly mixed (Misra et al. 2016)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.mixtures import Module, stitch, task_names
from mtl_optax.nn.sharing import one_input


class CrossStitch(nnx.Module):
    r"""An encoder for each task, whose stages read sums of all tasks' activations.

    .. math:: x_t^1 = f_t^1(x) \qquad
      x_t^s = f_t^s \Big( \sum_j c_{stj} \, x_j^{s-1} \Big) \qquad y_t = D_t(x_t^S)

    Coefficients stand between stages; the outputs of the last are not mixed. Tasks are
    numbered by their sorted names.

    Args:
      stages: task -> its S stages :math:`f_t^s`, modules whose outputs have one shape
        for all tasks.
      decoders: task -> :math:`D_t`, a callable module from the last stage.
      coefficients: the c to start from, numbers, `[T, T]` or `[S-1, T, T]`. None takes
        0.9 for a task's own activation and 0.1 / (T-1) for each other; `jnp.eye(T)`
        starts from T single networks.

    Shared: all encoders and coefficients. Auxiliary terms: none.

    Raises:
      ValueError: if the tasks of both dictionaries or the numbers of stages differ.

    Cost: T encoders.

    When not to use it: to save parameters, of which it has those of T networks. With
    inputs that differ by task: all encoders read one input.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import CrossStitch
      >>> rngs = nnx.Rngs(0)
      >>> linear = lambda *size: nnx.Linear(*size, rngs=rngs)
      >>> net = CrossStitch(
      ...     {task: [linear(3, 4), nnx.relu, linear(4, 4)] for task in ("a", "b")},
      ...     {"a": linear(4, 1), "b": linear(4, 2)},
      ... )
      >>> {task: y.shape for task, y in net(jnp.ones((8, 3))).items()}
      {'a': (8, 1), 'b': (8, 2)}
      >>> net.coefficients.shape  # between three stages
      (2, 2, 2)

    References:
      Misra et al., `Cross-stitch Networks for Multi-task Learning
      <https://arxiv.org/abs/1604.03539>`_, CVPR 2016. Where we differ from LibMTL: it
      starts from c = 1, a plain sum whose scale grows with T at each stage (here
      `coefficients=1.0`), and holds a slice of coefficients that it never uses.
    """

    def __init__(
        self,
        stages: Mapping[str, Sequence[Module]],
        decoders: Mapping[str, Module],
        *,
        coefficients: Any = None,
    ):
        num_tasks = len(task_names("CrossStitch", stages=stages, decoders=decoders))
        num_stages = stage_count("CrossStitch", stages)
        if coefficients is None:
            others = 0.1 / max(num_tasks - 1, 1)
            coefficients = jnp.where(jnp.eye(num_tasks) > 0, 0.9, others)
        shape = (num_stages - 1, num_tasks, num_tasks)
        start = jnp.broadcast_to(jnp.asarray(coefficients, jnp.float32), shape)
        self.coefficients = nnx.Param(start)
        self.stages = nnx.Dict({t: nnx.List(list(s)) for t, s in stages.items()})
        self.own = nnx.Dict(dict(decoders))

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for inputs `[B, ...]`."""
        one_input("CrossStitch", x, self.own)
        values = stitched(x, self.stages, self.coefficients[...])
        return {task: self.own[task](value) for task, value in values.items()}


def stitched(
    x: Any, stages: Mapping[str, Sequence[Module]], coefficients: Any
) -> dict[str, jax.Array]:
    """Each task's last stage, where coefficients `[S-1, T, T]` mix between stages."""
    tasks = sorted(stages)
    values = [stages[task][0](x) for task in tasks]
    for number, between in enumerate(coefficients, start=1):
        mixed = zip(tasks, stitch(between, values), strict=True)
        values = [stages[task][number](value) for task, value in mixed]
    return dict(zip(tasks, values, strict=True))


def stage_count(where: str, stages: Mapping[str, Sequence[Module]]) -> int:
    """The number of stages, which must be one for all tasks."""
    numbers = {task: len(of_task) for task, of_task in stages.items()}
    if len(set(numbers.values())) != 1 or 0 in numbers.values():
        raise ValueError(
            f"{where}: all tasks need the same number of stages, one at least, but "
            f"stages has {numbers}."
        )
    return next(iter(numbers.values()))
