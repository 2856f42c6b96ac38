"""Task weights from the temperatures of soft actor-critic."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks


def temperature_task_weights(log_alpha: Any, form: str = "code") -> jax.Array:
    r"""Weights of the tasks' losses, small where the temperature is large.

    .. math::
      w_t = T \, \frac{1 / \alpha_t}{\sum_s 1 / \alpha_s} \text{ ("code")}, \qquad
      w_t = \frac{e^{-\alpha_t}}{\sum_s e^{-\alpha_s}} \text{ ("paper")}

    A task that is mastered has a policy of little entropy, so its temperature
    :math:`\alpha_t` rises and its weight falls.

    Args:
      log_alpha: `[T]`, :math:`\log \alpha_t`. No gradient reaches it.
      form: "code" sums to T, "paper" sums to one.

    Returns:
      `[T]`. They weigh the actor's and the critics' losses, not the temperature's.

    Raises:
      ValueError: for an unknown form.

    Cost: O(T).

    When not to use it: with "code" where a temperature may collapse, as this task takes
    nearly the whole sum; look at the weights.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn import temperature_task_weights
      >>> temperature_task_weights(jnp.array([0.0, -1.0, -3.0, 0.5])).tolist()
      [0.164, 0.445, 3.291, 0.099]

    References:
      Yang et al., `Multi-Task Reinforcement Learning with Soft Modularization
      <https://arxiv.org/abs/2003.13661>`_, 2020. Paper and authors' code differ, see
      the two forms.
    """
    checks.one_of("form", form, ("code", "paper"))
    log_alpha = lax.stop_gradient(jnp.asarray(log_alpha))
    if form == "paper":
        return jax.nn.softmax(-jnp.exp(log_alpha))
    return len(log_alpha) * jax.nn.softmax(-log_alpha)
