"""resize_tasks: a training goes on with tasks added, removed or replaced."""

from typing import Any

from mtl_optax.core.resized_state import Place, Walk
from mtl_optax.core.task_rows import move_between


def resize_tasks(
    opt_state: Any, old_names: Any, new_names: Any, fresh: Any = None
) -> Any:
    r"""The optimizer state for other tasks: what stays goes on, what is new starts.

    .. math::
      s'_t = \begin{cases} s_t & \text{for a task that stays} \\
      s^0_t & \text{for a new one} \end{cases}

    for every row (and every pair of rows) that a method or wrapper of this library
    keeps a task, whatever is around it: `optax.chain`, `optax.partition`,
    `optax.inject_hyperparams`, an NNX or Linen training state. Rows move to the place
    of their task in sorted order. All else, such as Adam's moments, is taken over leaf
    by leaf: parameters are matched by their path in the tree.

    Args:
      opt_state: the state so far, of `tx.init` or `tx.update`; or a tree that holds it,
        such as a `MultiTaskTrainState`, whose new parameters then come from `fresh`.
      old_names: names of its tasks, in any order (a dict of losses has them); tasks
        without names go by their indices, `range(T)`.
      new_names: names of the tasks from now on. A name that is in both is a task that
        stays, all others are new.
      fresh: the state that training would begin with, `tx.init(params)` of the
        transformation for the new tasks and of the new parameters. Needed to add a
        task, whose rows it gives, and wherever the parameters change: a new head's
        moments come from it, those of a head that it lacks are dropped.

    Returns:
      The new state, with the structure of `fresh`, or of `opt_state` without. Numbers
      of what stays are the same to the bit. Array-valued hyper-parameters of
      `optax.inject_hyperparams` are arguments, and those of `fresh`. Groups of
      `on_shared(labels=)` go on as the group with the same tasks, new and removed ones
      aside; one that is the successor of none, or of several, starts. Blocks of
      `granularity=` are matched by their order.

    Raises:
      ValueError: for names that do not fit the state, or a task that is new without
        `fresh`; for a state that does not say which of its axes belong to tasks; where
        the result would not have the shapes of `fresh`.

    Cost: one copy of what has a task axis. Call it once, outside the jitted step.

    When not to use it: for a task that is missing from some batches, which `active=`
    switches off. For states of many seeds at once use it under `jax.vmap`. Weights that
    sum to 1 over the tasks do so again only after the next step. A parameter whose own
    shape changes, such as one layer with an output for each task, has no moments that
    could be matched: this raises.

    A transformation or weighting of your own says which arrays belong to tasks by the
    annotations of its state, a NamedTuple: `Annotated[jax.Array, "[T, ...]"]` for one
    row a task, `"[T, T, ...]"` for one for each pair.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> def make(num_tasks):
      ...     return optax.chain(mtl.moco(num_tasks), optax.adam(0.1))
      >>> params = {"trunk": jnp.ones(2), "a": jnp.ones(1), "c": jnp.ones(1)}
      >>> grads = {"trunk": jnp.ones((2, 2)), "a": jnp.ones((2, 1)),
      ...          "c": jnp.ones((2, 1))}
      >>> tx = make(num_tasks=2)
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> tx, params = make(num_tasks=3), params | {"b": jnp.ones(1)}
      >>> state = mtl.resize_tasks(state, ["a", "c"], ["a", "b", "c"], tx.init(params))
      >>> state[0].steps, state[0].tracked["trunk"][:, 0]
      (Array([1, 0, 1], dtype=int32), Array([0.1, 0. , 0.1], dtype=float32))
      >>> {name: float(mu[0]) > 0 for name, mu in state[1][0].mu.items()}
      {'a': True, 'b': False, 'c': True, 'trunk': True}
    """
    move = move_between(old_names, new_names)
    if fresh is None and move.adds:
        raise ValueError(
            "resize_tasks: there are new tasks, "
            f"{[name for name in move.new if name not in move.old]}, and what they "
            "start from depends on the method's arguments: pass fresh=tx.init(params), "
            "with tx made for the new tasks."
        )
    walk = Walk(move, fresh is not None)
    return walk.node(opt_state, opt_state if fresh is None else fresh, Place())
