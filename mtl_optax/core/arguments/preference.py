"""How much the tasks matter, an argument of many methods."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks


def preference_or_uniform(preference: Any, active: jax.Array) -> jax.Array:
    """`preference` on the active tasks, not renormalised; None is 1/T_active."""
    if preference is None:
        count = jnp.maximum(jnp.sum(active), 1)
        return active / count.astype(jnp.result_type(float))
    given = checks.task_vector("preference", preference, active.shape[0])
    return jnp.where(active, given, 0)
