r"""SDMGrad: stochastic direction-oriented MGDA (Xiao et al. 2023).

As MoDo, but the weights take several steps a call on the objective of MGDA pulled
towards a preference. As in the authors' code the products are divided by the squared
mean norm plus 1e-8; here the latter is at most a millionth of the former, so that short
gradients count as long ones do. In their code the three batches share one buffer, so
that they really are one.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.simplex import project_simplex
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class SDMGradState(NamedTuple):
    """State of SDMGrad."""

    simplex_weights: TaskRows  # [T], those of inactive tasks as they were


@partial(jax.jit, static_argnames="num_iters")
def _descend(
    products: jax.Array,
    start: jax.Array,
    pull: jax.Array,
    learning_rate: Any,
    momentum: Any,
    active: jax.Array,
    num_iters: int,
) -> jax.Array:
    """Projected heavy-ball steps on the simplex, against `products @ (w + pull)`."""

    def step(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        weights, velocity = carry
        velocity = momentum * velocity + linalg.dot(products, weights + pull)
        return project_simplex(weights - learning_rate * velocity, active), velocity

    bounds = jnp.int32(0), jnp.int32(num_iters)
    return lax.fori_loop(*bounds, step, (start, jnp.zeros_like(start)))[0]


@gramian_method
def sdmgrad(
    *,
    lam: ScalarOrSchedule = 0.3,
    learning_rate: ScalarOrSchedule = 5.0,
    momentum: ScalarOrSchedule = 0.5,
    num_iters: int = 20,
    preference: PerTask = None,
) -> Weighting:
    r"""Min-norm direction regularised towards a preference, from independent batches.

    .. math::
      w \leftarrow \Pi_\Delta\big(w - \eta A (w + \lambda p)\big) \text{ repeatedly},
      \quad A = J_1 J_2^\top / s^2, \quad
      d = \frac{1}{1 + \lambda} J_3^\top (w + \lambda p)

    with heavy-ball momentum, which starts anew at each call; s is the mean gradient
    norm, and w starts where the last call ended.

    Args:
      num_tasks: T, a Python int.
      lam: strength :math:`\lambda` of the pull towards p; 0 is MGDA, a large one p.
      learning_rate: step size :math:`\eta` of the weights.
      momentum: of these steps.
      num_iters: number of steps a call, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name; None is uniform,
        1/T over the active tasks.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients J3 `[T, *param]`, or lazy ones. Its
      `update` takes `gramian=` `[T, T]`, the products J1 J2' of gradients on two
      other batches, `mtl_optax.gramian(first, second)`. Without it the Gramian of the
      gradients stands in: one batch, with MGDA's bias. Output scale: simplex, if p sums
      to 1. T=1 gives the gradient itself. The weights of a task that was missing return
      as they were, projected on the simplex together with those of the others.

    Raises:
      ValueError: for a negative `lam`, `learning_rate` or `momentum`, a `num_iters`
        that is no positive Python int, or a `preference` that is not `[T]`; for a
        `gramian` that is not `[T, T]`; for gradients that are not stacked, or
        another task count.

    Cost: at most T backward passes with lazy gradients; state of T numbers; `num_iters`
    products of size T x T. With `gramian` no Gramian is formed, and lazy gradients need
    one pass (beside the 2T behind J1 J2').

    Invariances: none to loss scales, but a factor common to all losses leaves the
    weights.

    Guarantee: none for a single call; at a small enough learning rate, with enough
    steps, the shortest vector :math:`J^\top (w + \lambda p)` there is.

    When not to use it: with the published step sizes (5, LibMTL; 10, TorchJD) where you
    need weights that settle. Above about :math:`2 / \lambda_{max}(A)`, where
    :math:`\lambda_{max}` may reach T, they jump between corners of the simplex, and
    rounding decides which; 0.2 is safe for a few tasks.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.sdmgrad(num_tasks=2, learning_rate=0.2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(grads, tx.init(params), params)
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.5999, 0.4001], dtype=float32)

    (The example of :func:`mtl_optax.modo` shows how a `gramian` is made.)

    References:
      Xiao, Ban and Ji, `Direction-oriented Multi-objective Learning: Simple and
      Provable Stochastic Algorithms <https://arxiv.org/abs/2305.18409>`_, 2023.
    """
    checks.at_least("lam", lam, 0)
    checks.at_least("learning_rate", learning_rate, 0)
    checks.at_least("momentum", momentum, 0)
    num_iters = checks.static_int("num_iters", num_iters)

    def init(num_tasks: int) -> SDMGradState:
        checks.optional_vectors(num_tasks, preference=preference)
        return SDMGradState(jnp.full(num_tasks, 1 / num_tasks, jnp.result_type(float)))

    def update(
        gramian: jax.Array, state: SDMGradState, *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, SDMGradState]:
        del extra
        norms = jnp.sqrt(jnp.maximum(jnp.diag(gramian), 0))
        square = (jnp.sum(norms) / jnp.maximum(jnp.sum(active), 1)) ** 2
        square += jnp.minimum(1e-8, 1e-6 * square)
        anchor = preference_or_uniform(preference, active)
        weights = _descend(
            gramian / jnp.where(square > 0, square, 1),
            # Among the tasks that are present the weights sum to 1 again.
            project_simplex(state.simplex_weights, active),
            lam * anchor,
            learning_rate,
            momentum,
            active,
            num_iters,
        )
        kept = jnp.where(active, weights, state.simplex_weights)
        return (weights + lam * anchor) / (1 + lam), SDMGradState(kept)

    return Weighting(init, update, asymmetric=True)
