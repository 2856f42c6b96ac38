"""Sharpness: how much a loss can rise within a ball around the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks

_START = 1e-3  # of the radius: where the ascent starts


def sharpness(
    loss_fn: Callable[[Any], jax.Array],
    params: Any,
    radius: Any,
    *,
    num_steps: int = 10,
) -> jax.Array:
    r"""Largest rise of a loss in a ball, found by projected gradient ascent.

    .. math::
      \max_{\|\epsilon\| \le \rho} L(\theta + \epsilon) - L(\theta), \quad
      \epsilon \leftarrow P_\rho\big(\epsilon + \rho \, g / \|g\|\big), \quad
      g = \nabla L(\theta + \epsilon)

    The first step is the perturbation of SAM; the next ones follow the curvature, as
    power iteration does. The largest rise of all points visited counts. The ascent
    starts at a tiny offset, irregular but always the same, without which an exact
    minimum, whose gradient is zero, would never be left.

    Args:
      loss_fn: parameters to a scalar.
      params: the centre, a tree of floating arrays.
      radius: :math:`\rho`, in the norm over all leaves together; may be a tracer.
      num_steps: of the ascent, a Python int.

    Returns:
      A scalar, at least 0. A lower bound of the maximum, whatever `num_steps`.

    Raises:
      ValueError: if `num_steps` is not a positive Python int, or the radius negative.

    Cost: num_steps backward passes, one more forward pass, and two copies of params.

    Invariances: to constants added to the loss. Not to a rescaling of parameters that
    leaves the function alone (ReLU layers allow one), so compare networks of one
    architecture, trained from the same starts.

    Guarantee: if the loss is convex within the ball, no step lowers it.

    When not to use it: to predict which of two unlike networks generalises better; on
    parameters that the loss does not depend on (they cost memory and change nothing).

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.sharpness import sharpness
      >>> bowl = lambda w: 0.5 * (w[0] ** 2 + 4 * w[1] ** 2)
      >>> sharpness(bowl, jnp.array([0.0, 0.0]), 0.1).round(4)
      Array(0.02, dtype=float32)

    References:
      Keskar et al., `On Large-Batch Training for Deep Learning
      <https://arxiv.org/abs/1609.04836>`_, 2017 (a box, relative to the loss). Foret et
      al., `Sharpness-Aware Minimization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """
    num_steps = checks.static_int("num_steps", num_steps)
    checks.at_least("radius", radius, 0)
    at = jax.value_and_grad(loss_fn)
    centre = loss_fn(params)

    def within(offset: Any, length: Any) -> Any:
        """The offset, shortened to the length if it is longer."""
        norm = optax.tree.norm(offset)
        factor = jnp.where(norm > length, length / jnp.where(norm > 0, norm, 1), 1)
        return optax.tree.scale(factor, offset)

    def ascend(carry: tuple[Any, jax.Array], _: None) -> tuple[Any, None]:
        offset, highest = carry
        loss, gradient = at(optax.tree.add(params, offset))
        norm = optax.tree.norm(gradient)
        step = jnp.where(norm > 0, radius / jnp.where(norm > 0, norm, 1), 0)
        offset = optax.tree.add(offset, optax.tree.scale(step, gradient))
        offset = optax.tree.cast_like(within(offset, radius), params)
        return (offset, jnp.maximum(highest, loss)), None

    # Cosines: random numbers would take longer to compile than all the rest.
    start = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    start = optax.tree.cast_like(within(start, _START * radius), params)
    (offset, highest), _ = jax.lax.scan(ascend, (start, centre), length=num_steps)
    last = loss_fn(optax.tree.add(params, offset))
    return jnp.maximum(highest, last) - centre
