"""GradVac: gradient vaccine, PCGrad with cosines to aim at (Wang et al. 2021).

Targets start at 0, where it is PCGrad, and every visited pair moves its own, changed or
not, as LibMTL in git and TorchJD do; LibMTL 1.1.5 moves those of changed pairs only.
`beta=0.5` and `eps=1e-8` are theirs; that the paper has beta 0.01 and no eps is
INFERRED. Works on coefficients of the Gramian, never on gradients.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg, surgery
from mtl_optax.core.trees.task_axis import TaskPairs
from mtl_optax.core.weighting import Weighting


class GradVacState(NamedTuple):
    """State of GradVac."""

    key: jax.Array  # raw key data, uint32
    phi: TaskPairs  # [T, T] targets, averages of the cosines met ([L, T, T] for leaves)


@jax.jit
def _vaccinate(
    cosines: jax.Array,
    norms: jax.Array,
    order: jax.Array,
    phi: jax.Array,
    beta: jax.Array,
    eps: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Row i: the coefficients of g_i/|g_i| after its visits, `[T, T]`; new targets."""
    num_tasks = cosines.shape[0]
    start = jnp.eye(num_tasks, dtype=cosines.dtype), phi
    if num_tasks == 1:
        return start
    rows = jnp.arange(num_tasks, dtype=jnp.int32)
    floor = linalg.noise_floor(num_tasks, cosines.dtype)
    sizes = jnp.where(norms > 0, norms, 1)

    def visit(
        step: jax.Array, both: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        coefficients, phi = both
        other = lax.dynamic_index_in_dim(order, step, axis=1, keepdims=False)
        products = linalg.dot(coefficients, cosines)
        inner = products[rows, other]
        square = jnp.sum(coefficients * products, axis=1)
        # What rounding leaves of a gradient that was cancelled has no direction.
        real = square > floor * jnp.sum(coefficients**2, axis=1)
        norm = jnp.sqrt(jnp.where(real, square, 0))
        target, size = phi[rows, other], sizes[other]
        soft = eps / sizes / size, eps / size
        cosine, lift = _turn(norm, inner, target, soft, floor)
        moved = (1 - beta) * target + beta * cosine
        meets = (norms > 0) & (norms[other] > 0)
        coefficients = coefficients.at[rows, other].add(jnp.where(meets, lift, 0))
        phi = phi.at[rows, other].set(jnp.where(meets & real, moved, target))
        return coefficients, phi

    return lax.fori_loop(jnp.int32(0), jnp.int32(num_tasks - 1), visit, start)


def _turn(
    norm: jax.Array,
    inner: jax.Array,
    target: jax.Array,
    soft: tuple[jax.Array, jax.Array],
    floor: float,
) -> tuple[jax.Array, jax.Array]:
    """The cosine of h with g, and the multiple of g/|g| that lifts it to the target.

    `norm` is that of h, `inner` its product with g/|g|, and `soft` is added to the two
    divisors.
    """
    parallel = norm - jnp.abs(inner) <= floor * norm
    softened = jnp.where(norm > 0, norm + soft[0], 1)
    along = inner * jnp.where(parallel, 1, norm / softened)
    aside = jnp.where(parallel, 0, (norm - along) * (norm + along))
    # No finite multiple of g brings the cosine to 1 or -1.
    aim = jnp.clip(target, floor - 1, 1 - floor)
    room = jnp.sqrt((1 - aim) * (1 + aim))
    # Positive just where the cosine is below the target.
    lift = jnp.maximum(aim * jnp.sqrt(aside) - along * room, 0) / (room + soft[1])
    return jnp.clip(along / jnp.where(norm > 0, norm, 1), -1, 1), lift


@gramian_method
def gradvac(
    *, key: Any, beta: ScalarOrSchedule = 0.5, eps: ScalarOrSchedule = 1e-8
) -> Weighting:
    r"""Turns each task gradient until its cosines with the others are the usual ones.

    .. math::
      h_i \leftarrow h_i + \|h_i\| \frac{\hat\phi_{ij} \sqrt{1 - \phi^2}
        - \phi \sqrt{1 - \hat\phi_{ij}^2}}{\|g_j\| \sqrt{1 - \hat\phi_{ij}^2}} g_j
      \text{ if } \phi = \cos(h_i, g_j) < \hat\phi_{ij}, \quad d = \sum_i h_i

    starting from :math:`h_i = g_i`, over all :math:`j \ne i` in random order; then
    :math:`\hat\phi_{ij} \leftarrow (1 - \beta) \hat\phi_{ij} + \beta \phi`, with the
    cosine before the change.

    Args:
      num_tasks: T, a Python int.
      key: int or key for the visiting orders.
      beta: rate of the averages, from 0 to 1. 0, with `eps=0`, is PCGrad.
      eps: added to the product of norms in the cosine and to the divisor above, as
        TorchJD and LibMTL do, so that gradients shorter than 1e-4 are turned too
        little; 0 is the rule above, at any length.
      granularity: None compares whole gradients; "leaf", or a tree of labels, treats
        each parameter array, or block of them, on its own, with targets of its own and
        the same orders.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. The extra
      argument `order=` `[T, T-1]` int gives the orders instead of drawing them. Output
      scale: sum, or more, since turning a gradient towards others lengthens it. T=1
      gives the gradient itself.

    Raises:
      ValueError: for a `beta` outside 0 to 1, a negative `eps`, or an unknown
        `granularity`; for gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; state of T x T targets (for
    each block) and a key; T(T-1) steps on T numbers.

    Invariances: none to loss scales: angles do not depend on them, but the gradients
    are summed as they are. Draws decide on the order of the tasks.

    Guarantee: none on conflicts.

    When not to use it: where cosines fall suddenly from near 1: a target of cosine c
    adds up to c/sqrt(1-c^2) gradients of the other task (c is cut off where it is 1 to
    rounding). The result depends on the order. A zero gradient meets no other, nor does
    one that was cancelled; their targets stay.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.gradvac(num_tasks=2, key=0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.5, 1.5], dtype=float32)

    References:
      Wang et al., `Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models
      <https://arxiv.org/abs/2010.05874>`_, 2021.
    """
    checks.at_least("beta", beta, 0)
    checks.at_most("beta", beta, 1)
    checks.at_least("eps", eps, 0)
    first_key = raw_key(key)

    def init(num_tasks: int) -> GradVacState:
        none_met = jnp.zeros((num_tasks, num_tasks), jnp.result_type(float))
        return GradVacState(jnp.copy(first_key), none_met)

    def update(
        gramian: jax.Array,
        state: GradVacState,
        *,
        order: jax.Array | None = None,
        **extra: object,
    ) -> tuple[jax.Array, GradVacState]:
        del extra
        use, keep = next_key(state.key)
        if order is None:
            order = surgery.visiting_order(use, gramian.shape[0])
        cosines, norms = linalg.cosine_matrix(gramian)
        numbers = jnp.asarray(beta, norms.dtype), jnp.asarray(eps, norms.dtype)
        coefficients, phi = _vaccinate(
            cosines, norms, jnp.asarray(order, jnp.int32), state.phi, *numbers
        )
        return surgery.sum_of_rows(coefficients, norms), GradVacState(keep, phi)

    return Weighting(init, update)
