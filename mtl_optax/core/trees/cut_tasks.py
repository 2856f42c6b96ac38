"""Stacks whose task axis is cut over a mesh, so that a device has its tasks' rows."""

import math
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from mtl_optax.core.trees.replicated import placed, replicated, spread_out


class Together(NamedTuple):
    """The same stack with a part of every task's row on each device."""

    rows: jax.Array
    row: NamedSharding | None  # where one belongs; None: where it lies


def tasks_together(rows: jax.Array, param: Any) -> Together:
    """A stack `[T, *param]`, along a parameter's axis where it was along the tasks'.

    One exchange of parts, of as many numbers as a device has, in place of all rows on
    all devices. Along the axes of the parameter, if it is cut along these of the mesh;
    else along the first that their number divides (none: all rows are on all devices).
    An Auto axis is XLA's: there the type of an array does not say.

    Args:
      rows: any stack.
      param: the parameter, or None for one that lies as the rows beside the task axis.
    """
    aval = jax.typeof(rows)
    if not rows.ndim or not spread_out(aval) or aval.sharding.spec[0] is None:
        return Together(rows, None)
    mesh, (tasks, *parts) = aval.sharding.mesh, aval.sharding.spec
    known = param is not None and replicated(param) is not None
    wanted = [*jax.typeof(param).sharding.spec] if known else parts
    axes = _names(tasks)
    row = None
    if not axes <= set().union(*map(_names, wanted)):
        row = NamedSharding(mesh, PartitionSpec(*wanted))
        size = math.prod(mesh.shape[name] for name in axes)
        pairs = enumerate(zip(parts, rows.shape[1:], strict=True))
        free = (i for i, (part, n) in pairs if part is None and n % size == 0)
        wanted, place = [*parts], next(free, None)
        if place is not None:
            wanted[place] = tasks
    spec = PartitionSpec(None, *wanted)
    return Together(placed(rows, NamedSharding(mesh, spec)), row)


def of_stack(row: NamedSharding) -> NamedSharding:
    """Where the stack belongs, if one row does there."""
    return NamedSharding(row.mesh, PartitionSpec(None, *row.spec))


def _names(part: Any) -> set[str]:
    """The axes of a mesh that an axis of an array is cut along."""
    if part is None:
        return set()
    return {part} if isinstance(part, str) else set(part)
