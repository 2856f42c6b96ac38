"""divide: tasks split in halves again and again, so that only pairs are solved."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.cancellation import zero_if_cancelling
from mtl_optax.core.solvers import linalg
from mtl_optax.core.weighting import Weighting, check_weighting


class DivideState(NamedTuple):
    """State of divide."""

    # of the wrapped weighting, one for each of the T - 1 pairs: those within the first
    # half, those within the second, and last the pair of the halves themselves
    pairs: tuple[Any, ...]


class _Group(NamedTuple):
    """Tasks that are combined already."""

    weights: jax.Array  # [T], 0 for the tasks of other groups
    active: jax.Array  # [] bool, whether any of its tasks is


def divide(weighting: Weighting) -> Weighting:
    r"""Weights two tasks at a time: halves of the tasks, and then the two halves.

    .. math::
      w = v_1 (a, 0) + v_2 (0, b), \quad
      v = \text{weighting}\big( V K V^\top, \, V L \big), \quad
      V = \begin{pmatrix} a & 0 \\ 0 & b \end{pmatrix}

    where the weights a of the first half and b of the second are found likewise, down
    to single tasks, whose weight is 1. So the two combined gradients :math:`\sum_t a_t
    g_t` and :math:`\sum_t b_t g_t`, with losses :math:`\sum_t a_t L_t` and
    :math:`\sum_t b_t L_t`, of which they are the gradients, are two tasks.

    Args:
      weighting: for example `mtl.cagrad.weighting()`. It sees two tasks always, without
        names: what it takes for each task, such as `preference`, is `[2]`, one for the
        first half and one for the second of every pair.

    Returns:
      A weighting for :func:`mtl_optax.from_weighting`. Halves are in order of the
      tasks (sorted by name); of an odd number the first half has one more. With T=2 it
      is the weighting itself, T=1 gives the gradient itself. A half without an active
      task has weight 0, and hands on the other as it is: that pair's weighting is not
      asked, and its state stays. A half whose gradients cancel counts as a zero
      gradient. Random draws are the same in every pair.

    Raises:
      ValueError: for anything but a weighting; for one with values by name, or within
        which `every_k` is (put it around); by `from_weighting`, for one whose values
        for each task are not two.

    Cost: that of the Gramian, if it is used; T - 1 problems of two tasks, traced one by
    one, and as many states.

    Guarantee: what the weighting guarantees for two tasks holds between the two halves
    of each pair, not for single tasks: an update that descends both halves may ascend a
    task within one.

    When not to use it: where the result must not depend on the order of the tasks; if
    the problem of all T tasks can be solved, which it can for every method here.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.from_weighting(mtl.divide(mtl.mgda.weighting()), num_tasks=3)
      >>> params = {"w": jnp.zeros(3)}
      >>> grads = {"w": jnp.eye(3)}
      >>> update, state = tx.update(grads, tx.init(params), params)
      >>> np.asarray(mtl.task_weights(state)).round(4)  # the halves are {0, 1} and {2}
      array([0.3333, 0.3333, 0.3333], dtype=float32)

    References:
      No paper; the recursion is the plain one of divide and conquer.
    """
    check_weighting("divide", weighting)
    if weighting.due is not None:
        raise ValueError(
            "divide: every_k inside would give each pair a clock of its own. Put it "
            "around: mtl_optax.every_k(mtl_optax.divide(weighting), k)."
        )
    if weighting.names is not None:
        raise ValueError(
            "divide: the weighting sees two halves, which have no names, but has "
            f"values by name, for {list(weighting.names)}. Give two values, for the "
            "first half and the second, or none."
        )

    crossed = weighting.asymmetric  # a cross Gramian does not tell what cancels

    def init(num_tasks: int) -> DivideState:
        try:
            pairs = [weighting.init(2) for _ in range(max(num_tasks - 1, 1))]
        except ValueError as error:
            raise ValueError(
                "divide: the weighting sees two tasks always, the first half and the "
                "second, so it must have two values where it has one for each task. "
                f"{error}"
            ) from error
        return DivideState(tuple(pairs[: num_tasks - 1]))

    def update(
        gramian: jax.Array | None,
        state: DivideState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        look: Callable[[jax.Array], Any] | None = None,
        names: Any = None,
        unit: jax.Array | float = 1.0,
        **extra: Any,
    ) -> tuple[jax.Array, DivideState]:
        del names
        num_tasks = active.shape[0]
        waiting, done = list(state.pairs), []

        def among(first: int, last: int) -> _Group:
            if last - first == 1:
                alone = active & (jnp.arange(num_tasks) == first)
                return _Group(alone.astype(jnp.result_type(float)), active[first])
            middle = (first + last + 1) // 2
            halves = among(first, middle), among(middle, last)
            rows = jnp.stack([half.weights for half in halves])
            both = jnp.stack([half.active for half in halves])
            scaled, own_unit = _in_range(rows, unit)
            old = waiting.pop(0)
            shares, new = weighting.update(
                *(None if gramian is None else _products(scaled, gramian), old),
                losses=None if losses is None else linalg.dot(rows, losses),
                active=both,
                look=None if look is None else lambda v: look(linalg.dot(v, scaled)),
                names=None,
                unit=own_unit,
                **extra,
            )
            pair = jnp.all(both)
            done.append(jax.tree.map(lambda n, o: jnp.where(pair, n, o), new, old))
            weights = linalg.dot(jnp.where(pair, shares, both.astype(rows.dtype)), rows)
            # Of the whole, `from_weighting` knows more than the Gramian tells.
            if gramian is not None and last - first < num_tasks and not crossed:
                weights = zero_if_cancelling(weights, gramian)
            return _Group(weights, jnp.any(both))

        return among(0, num_tasks).weights, DivideState(tuple(done))

    return weighting._replace(init=init, update=update, takes=frozenset())


def _in_range(rows: jax.Array, unit: Any) -> tuple[jax.Array, Any]:
    """The combinations, and the unit of their Gramian, where gradients have one.

    Weights may be as small as gradients are long, and the other way round.
    """
    size = jnp.max(jnp.abs(rows))
    exponent = jnp.round(jnp.log2(jnp.where(size > 0, size, 1)))
    factor = jnp.where(jnp.asarray(unit) == 1, 1, 2.0**exponent)
    return rows / factor, unit * factor


def _products(rows: jax.Array, gramian: jax.Array) -> jax.Array:
    """Inner products of the two combined gradients."""
    return linalg.dot(linalg.dot(rows, gramian), rows.T)
