"""Means over a mapped data axis, before anything looks at the gradients.

Every device counts alike. So a loss must be a mean over as many examples on each; where
they differ, as with labels of which some are missing, means of the devices' own parts
are wrong, and `mtl_optax.masked_mean(..., axis_name=...)` is right: it divides by the
number in the whole batch, times the number of devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax


def mean_over(tree: Any, axis_name: Any) -> Any:
    """Mean over a mapped axis (data parallelism), or the tree as it is for None."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def local(params: optax.Params, axis_name: Any) -> optax.Params:
    """Parameters marked as different on each device of the axis.

    `jax.shard_map` sums gradients of replicated parameters over the mesh by itself;
    of local ones it does not, and the mean that we take is then right in every mode.
    """
    if axis_name is None:
        return params
    here = lax.axis_index(axis_name) >= 0
    return jax.tree.map(lambda p: jnp.where(here, p, p), params)
