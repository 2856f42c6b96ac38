"""RLW: random loss weighting (Lin et al. 2021).

Weights sum to 1, as in LibMTL; in the code of Kurin et al., from which the other
distributions come, they sum to T. That code draws Bernoulli weights again until one is
not zero; here the first nonzero one is drawn directly, which gives the same odds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import Names, by_position
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import softmax_among
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting

_DISTRIBUTIONS = (
    "normal",
    "uniform",
    "dirichlet",
    "random_normal",
    "bernoulli",
    "constrained_bernoulli",
)


class RLWState(NamedTuple):
    """State of RLW."""

    key: jax.Array  # raw key data, uint32
    moments: TaskRows | None  # [T, 2] mean and deviation of "random_normal"


def _nonempty_subset(key: jax.Array, active: jax.Array) -> jax.Array:
    """A subset of the active tasks, each of the nonempty ones equally likely."""
    first_key, rest_key = jax.random.split(key)
    count = jnp.sum(active, dtype=jnp.int32)
    # The first member is the k-th active task with odds 2^-k; those after it are free.
    tail = jax.random.uniform(first_key) * (1 - 0.5**count)
    first = 1 + jnp.floor(-jnp.log2(1 - tail)).astype(jnp.int32)
    first = jnp.minimum(first, count)
    place = jnp.cumsum(active, dtype=jnp.int32)
    heads = jax.random.bernoulli(rest_key, shape=active.shape)
    return active & ((place == first) | (heads & (place > first)))


def _draw_weights(key: jax.Array, distribution: str, active: jax.Array) -> jax.Array:
    """Weights of a distribution that is not normal; draws are `[T]` always."""
    if distribution == "bernoulli":
        chosen = _nonempty_subset(key, active)
        return softmax_among(jnp.zeros(active.shape), chosen)
    if distribution == "dirichlet":
        # Exponential variables divided by their sum; a Gumbel is minus the log of one.
        return softmax_among(-jax.random.gumbel(key, active.shape), active)
    draws = jax.random.uniform(key, active.shape)
    return softmax_among(draws, active, 1.0 if distribution == "uniform" else 0.0)


@losses_method
def rlw(*, key: Any, distribution: str = "normal") -> Weighting:
    r"""Random loss weighting: task weights are drawn anew at each step.

    .. math:: d = \sum_t w_t \, g_t, \quad w = \text{softmax}(z), \quad
      z \sim \mathcal{N}(0, I)

    Args:
      num_tasks: T, a Python int.
      key: int or key for the draws.
      distribution: of the weights: softmax of "normal", of "uniform" on [0, 1], or of
        "random_normal" draws, whose mean and deviation, one pair a task (INFERRED), are
        uniform on [0, 1] and drawn once; "dirichlet", uniform on the simplex;
        "bernoulli", equal weights on a random nonempty set of tasks;
        "constrained_bernoulli", one random task.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. The extra
      argument `normals=` `[T]` gives the normal draws instead of drawing them. Draws
      are made for all T tasks, and normalised over the active ones. Output scale:
      simplex. T=1 gives the gradient itself.

    Raises:
      ValueError: for an unknown distribution, or `normals=` for one that has none; for
        gradients that are not stacked, or
        another task count.

    Cost: one backward pass with lazy gradients; one key of state, and 2 numbers a task
      with "random_normal".

    Invariances: none to loss scales: a loss multiplied by s pulls s times as hard.

    Guarantee: the expected weights are 1/T, so on average the gradient of the mean
    loss ("random_normal" favours tasks at random); none on conflicts.

    When not to use it: where the noise of the weights hurts; as a baseline it shows
    what a method owes to noise alone.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.rlw(num_tasks=2, key=0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, normals=jnp.array([0.0, 1.0])
      ... )
      >>> np.asarray(update["w"]).round(4)
      array([-0.4621,  0.7311], dtype=float32)

    References:
      Lin et al., `Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning <https://arxiv.org/abs/2111.10603>`_, 2021. Kurin et al., `In
      Defense of the Unitary Scalarization for Deep Multi-Task Learning
      <https://arxiv.org/abs/2201.04122>`_, 2022.
    """
    checks.one_of("distribution", distribution, _DISTRIBUTIONS)
    first_key = raw_key(key)

    def init(num_tasks: int) -> RLWState:
        if distribution != "random_normal":
            # A copy: a caller may donate the state, and then start again.
            return RLWState(jnp.copy(first_key), None)
        use, keep = next_key(first_key)
        return RLWState(keep, jax.random.uniform(use, (num_tasks, 2)))

    def update(
        gramian: None,
        state: RLWState,
        *,
        active: jax.Array,
        normals: Any = None,
        names: Names | None = None,
        **extra: object,
    ) -> tuple[jax.Array, RLWState]:
        del gramian, extra
        use, keep = next_key(state.key)
        state = state._replace(key=keep)
        if distribution not in ("normal", "random_normal"):
            if normals is not None:
                raise ValueError(
                    f"rlw: normals= has no effect with distribution={distribution!r}, "
                    "which draws no normal numbers. Leave it out."
                )
            return _draw_weights(use, distribution, active), state
        if normals is None:
            normals = jax.random.normal(use, active.shape)
        normals = by_position(normals, "normals", names)
        draws = checks.task_vector("normals", normals, active.shape[0])
        if state.moments is not None:
            draws = state.moments[:, 0] + state.moments[:, 1] * draws
        return softmax_among(draws, active), state

    return Weighting(init, update, uses_gramian=False)
