"""Weighted sums of representations, and the gate that weighs them.

The one piece of mathematics that mixtures of experts, cross-stitch units and branched
networks have in common.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.core.arguments import checks

Module = Callable[..., jax.Array]  # any callable, an `nnx.Module` mostly


def flatten(x: Any) -> jax.Array:
    """Inputs `[B, ...]` as rows `[B, D]`: what a gate reads unless told otherwise."""
    return jnp.reshape(x, (x.shape[0], -1))


def mix(weights: Any, values: Sequence[jax.Array]) -> jax.Array:
    """The sum of M arrays `[B, ...]`, each times its column of weights `[B, M]`.

    In the dtype of the values; one after the other, which XLA fuses, so that no stack
    of M arrays is held.
    """
    column = (-1,) + (1,) * (values[0].ndim - 1)
    return sum(
        jnp.reshape(weights[:, m], column).astype(value.dtype) * value
        for m, value in enumerate(values)
    )  # type: ignore[return-value]  # M is at least 1


def stitch(coefficients: Any, values: Sequence[jax.Array]) -> list[jax.Array]:
    r"""T sums :math:`\sum_j c_{tj} x_j` of T arrays, by coefficients `[T, T]`."""
    return [
        sum(c.astype(value.dtype) * value for c, value in zip(row, values, strict=True))
        for row in coefficients
    ]


class Gate(nnx.Module):
    r"""Weights of M experts that a task sees, float32.

    .. math:: \operatorname{softmax}(W u(x) + b)

    Args:
      num_features: features of `u(x)`, the rows that the gate reads.
      num_experts: M.
      read: u, from inputs `[B, ...]` to rows `[B, num_features]`.
      rngs: as in `flax.nnx.Linear`.
    """

    def __init__(
        self, num_features: int, num_experts: int, read: Module, *, rngs: nnx.Rngs
    ):
        self.linear = nnx.Linear(num_features, num_experts, rngs=rngs)
        self.read = read

    def __call__(self, x: Any) -> jax.Array:
        """Weights `[B, M]` of the experts, each row of sum 1."""
        return nnx.softmax(self.linear(self.read(x)).astype(jnp.float32))


def task_names(where: str, **mappings: Mapping[str, Any]) -> tuple[str, ...]:
    """The sorted tasks of several mappings; a ValueError where they differ."""
    names = {key: tuple(sorted(mapping)) for key, mapping in mappings.items()}
    if len(set(names.values())) != 1 or () in names.values():
        raise ValueError(
            f"{where}: every task needs an entry in each of its dictionaries, but "
            + ", ".join(f"{key} has {tasks}" for key, tasks in names.items())
            + "."
        )
    return next(iter(names.values()))


def names_of(where: str, num_tasks: int, tasks: Iterable[str] | None) -> list[str]:
    """T different names; without any "0", "1", ..., padded with zeros to sort."""
    num_tasks = checks.static_int("num_tasks", num_tasks)
    digits = len(str(num_tasks - 1))
    names = list(tasks or (f"{task:0{digits}}" for task in range(num_tasks)))
    if len(set(names)) != num_tasks or len(names) != num_tasks:
        raise ValueError(
            f"{where}: tasks must be {num_tasks} different names, as num_tasks says; "
            f"got {tuple(names)}."
        )
    return names
