"""What a method did, as a flat dict for any logger."""

import itertools
from collections.abc import Set
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import sorted_names
from mtl_optax.core.readings import FAMILIES, at_most_one, task_names
from mtl_optax.core.solvers import linalg


def metrics(opt_state: Any, names: Any = None) -> dict[str, jax.Array]:
    r"""What a method did in the last update, as a flat dict for any logger.

    Args:
      opt_state: as in :func:`task_weights`.
      names: T names in sorted order, as :func:`task_names` gives them; or what that
        takes (a dict of losses, lazy gradients). None: the tasks' indices.

    Returns:
      Scalars by name, of what the state holds: `weight/lm`; of methods that form a
      Gramian `norm/lm` (the length of the task's gradient), `cosine/aux/lm` for each
      pair and `conflict_fraction`, the share of negative ones among the pairs that
      both have a gradient; with `skip_nonfinite_tasks` `nonfinite/lm`, how often the
      task was skipped so far. Where a method has weights for each of B blocks they are
      `weight/lm/0` and so on, and the rest is that of all blocks together. Of a task
      that was not `active` weight, norm and cosines are 0: log `active` beside them.

    Raises:
      ValueError: if the state holds nothing to report, or several of a kind, with
        their paths; for another number of names than tasks, one name twice, or names
        with a slash that give one key twice; for a state with axes of steps or seeds.

    Cost: some T x T numbers; it may run inside the jitted step. (Of steps that a scan
    recorded, or of many seeds: under `jax.vmap`.)

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.mgda(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.5, 2.0]])}
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> for name, value in mtl.metrics(state, ["aux", "lm"]).items():
      ...     print(f"{name} {value:.2f}")
      weight/aux 0.76
      weight/lm 0.24
      norm/aux 1.00
      norm/lm 2.50
      cosine/aux/lm -0.60
      conflict_fraction 1.00
    """
    kinds = "task_weights", "task_gramian", "nonfinite_counts"
    weights, gramian, skipped = (at_most_one(opt_state, kind) for kind in kinds)
    held = [value for value in (weights, gramian, skipped) if value is not None]
    if not held:
        raise ValueError(
            "The optimizer state holds nothing to report. Task weights are recorded by "
            f"{FAMILIES['task_weights']}; a Gramian by {FAMILIES['task_gramian']}; "
            "counts of skipped tasks by skip_nonfinite_tasks."
        )
    if max(value.ndim for value in (weights, skipped) if value is not None) > 2:
        raise ValueError(
            "metrics: the state has axes of steps or seeds before those of tasks: use "
            "jax.vmap(mtl_optax.metrics) over these."
        )
    names = _names_of(names, held[0].shape[-1])
    pairs: list[tuple[str, jax.Array]] = []
    if weights is not None:
        pairs += _of_weights(weights, names)
    if gramian is not None:
        pairs += _of_gramian(gramian.reshape(-1, len(names), len(names)).sum(0), names)
    if skipped is not None:
        pairs += [(f"nonfinite/{name}", skipped[t]) for t, name in enumerate(names)]
    report = dict(pairs)
    if len(report) < len(pairs):
        raise ValueError(
            f"metrics: two of the names {list(names)} give the same key, since they "
            "hold a slash. Use names without, or pass others as names=."
        )
    return report


def _names_of(names: Any, num_tasks: int) -> tuple[Any, ...]:
    if names is None:
        return tuple(range(num_tasks))
    if isinstance(names, str):
        given: tuple[Any, ...] = (names,)
    elif isinstance(names, Set):  # of a dict's keys, in whatever order
        given = sorted_names(names)
    elif isinstance(names, (tuple, list)) and all(
        isinstance(name, (str, int)) for name in names
    ):
        given = tuple(names)
    else:
        given = task_names(names)
    if len(given) != num_tasks or len(set(map(str, given))) != num_tasks:
        raise ValueError(
            f"metrics: names= must name each of the {num_tasks} tasks once, in sorted "
            f"order; got {list(given)}. mtl_optax.task_names(losses) gives them."
        )
    return given


def _of_weights(
    weights: jax.Array, names: tuple[Any, ...]
) -> list[tuple[str, jax.Array]]:
    if weights.ndim == 1:
        return [(f"weight/{name}", weights[t]) for t, name in enumerate(names)]
    return [
        (f"weight/{name}/{block}", weights[block, t])
        for t, name in enumerate(names)
        for block in range(weights.shape[0])
    ]


def _of_gramian(
    gramian: jax.Array, names: tuple[Any, ...]
) -> list[tuple[str, jax.Array]]:
    cosines, norms = linalg.cosine_matrix(gramian)
    pairs = list(itertools.combinations(range(len(names)), 2))
    alive = norms > 0
    both = sum((alive[t] & alive[s] for t, s in pairs), jnp.zeros((), jnp.int32))
    against = sum((cosines[t, s] < 0 for t, s in pairs), jnp.zeros((), jnp.int32))
    share = against / jnp.maximum(both, 1).astype(norms.dtype)
    return [
        *((f"norm/{name}", norms[t]) for t, name in enumerate(names)),
        *((f"cosine/{names[t]}/{names[s]}", cosines[t, s]) for t, s in pairs),
        ("conflict_fraction", share),
    ]
