"""Which leaves of a network belong to one task: told by their key path.

One rule for all architectures: what belongs to a task stands under `own`, a dictionary
with one entry a task. All other leaves are shared.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

OWN = "own"  # the attribute of a module that holds what belongs to each task


def owner(tasks: Sequence[str]) -> Callable[[Any], Any]:
    """The function from parameters to the task that owns each leaf.

    A leaf belongs to the task after `own` in its key path, as in
    `['own']['depth']['head']['kernel']`; without, all tasks share it. It works on the
    parameters of every module of :mod:`mtl_optax.nn`, as an NNX state, as Linen's
    dictionaries, and inside of other modules.

    Args:
      tasks: names of the T tasks, in the order of their losses (a dict of losses has
        them sorted).

    Returns:
      A function of parameters: for each leaf the task's index, or None where all share
      it. It is the `owner=` of :func:`mtl_optax.selective_groups`,
      :func:`mtl_optax.task_affinity` and :func:`mtl_optax.cso`.

    Raises:
      ValueError: when called, for a leaf under `own` whose task is not among `tasks`.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn import owner
      >>> params = {
      ...     "trunk": jnp.zeros(2),
      ...     "own": {"a": jnp.zeros(1), "b": jnp.zeros(1)},
      ... }
      >>> owner(("a", "b"))(params)
      {'own': {'a': 0, 'b': 1}, 'trunk': None}
    """
    numbers = {task: index for index, task in enumerate(tasks)}

    def of_leaf(path: Any, _: Any) -> int | None:
        task = _task(path)
        if task is None:
            return None
        if task not in numbers:
            raise ValueError(
                f"owner: leaf {jax.tree_util.keystr(path)} belongs to task {task!r}, "
                f"which is not among tasks={tuple(tasks)}."
            )
        return numbers[task]

    return lambda params: jax.tree_util.tree_map_with_path(of_leaf, params)


def shared(params: Any) -> Any:
    """The mask that is True on the leaves that all tasks share; see `owner`.

    Args:
      params: parameters of a network of :mod:`mtl_optax.nn`, or any tree like them.

    Returns:
      A tree of bools like `params`: the mask of :func:`mtl_optax.on_shared`, which
      takes this function itself, and labels for `optax.partition`.

    Example:
      >>> import mtl_optax as mtl
      >>> from mtl_optax.nn import shared
      >>> shared({"trunk": 0.0, "own": {"a": 0.0, "b": 0.0}})
      {'own': {'a': False, 'b': False}, 'trunk': True}
      >>> tx = mtl.on_shared(mtl.cagrad(num_tasks=2), shared)
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _task(path) is None, params)


def is_by_task(x: Any, tasks: Iterable[str]) -> bool:
    """Whether x is a dict from tasks to inputs of each, not the input of all."""
    return isinstance(x, Mapping) and set(x) <= set(tasks)


def one_input(where: str, x: Any, tasks: Iterable[str]) -> None:
    """A ValueError where x holds inputs of each task, and the network reads one."""
    if is_by_task(x, tasks):
        raise ValueError(
            f"{where}: its tasks read one and the same input, but x is a dict of the "
            f"tasks {sorted(x)}. For inputs that differ by task use HardSharing or "
            "SoftModularNet."
        )


def _task(path: Any) -> str | None:
    """The name after the first `own` in a key path."""
    names = [str(getattr(key, "key", getattr(key, "name", None))) for key in path]
    return names[names.index(OWN) + 1] if OWN in names[:-1] else None
