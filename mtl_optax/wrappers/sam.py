"""Two helpers for optax.contrib.sam around our methods."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.weighting import check_transformation


def drop_extra_args(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Hides extra arguments from a transformation that would refuse them.

    `optax.contrib.sam` takes `grad_fn` and raises a TypeError for any other keyword, so
    `optax.chain(method, sam).update(..., losses=...)` fails; `optax.chain(method,
    drop_extra_args(sam))` works in transparent mode.

    Args:
      tx: any transformation.

    Returns:
      The same transformation, called with `grad_fn` as its only extra argument.

    Raises:
      Nothing of its own.

    Cost: none.

    When not to use it: around anything that needs its extra arguments. Lazy task
    gradients bring their losses along and need no keyword at all.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05))
      >>> tx = optax.chain(mtl.uw(num_tasks=2), mtl.drop_extra_args(sam))
      >>> params = jnp.zeros(2)
      >>> update, _ = tx.update(
      ...     jnp.ones((2, 2)), tx.init(params), params, losses=jnp.ones(2)
      ... )
      >>> update  # the first call of transparent SAM climbs
      Array([0.05, 0.05], dtype=float32)

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """
    check_transformation("drop_extra_args", tx)
    inner = optax.with_extra_args_support(tx)

    def update(
        updates: Any, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        known = {k: v for k, v in extra_args.items() if k == "grad_fn"}
        return inner.update(updates, state, params, **known)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def safe_normalize() -> optax.GradientTransformation:
    r"""Scales updates to norm 1, and leaves zero updates at zero.

    .. math:: u \leftarrow u / \|u\| \text{ if } \|u\| > 0

    `optax.contrib.normalize`, which recipes for SAM use, divides by zero where a method
    returns an exact zero (every Pareto-stationary point), and makes the parameters NaN.

    Returns:
      A stateless transformation.

    Raises:
      Nothing.

    Cost: one read and one write of the updates.

    When not to use it: there is no reason to prefer `optax.contrib.normalize`.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.safe_normalize()
      >>> tx.update(jnp.array([3.0, 4.0]), tx.init(None))[0]
      Array([0.6, 0.8], dtype=float32)
      >>> tx.update(jnp.zeros(2), tx.init(None))[0]
      Array([0., 0.], dtype=float32)

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """

    def update(updates: optax.Updates, params: Any = None) -> optax.Updates:
        del params
        # In two steps, for the squares of long and short updates are no numbers.
        each = [jnp.max(jnp.abs(u), initial=0) for u in jax.tree.leaves(updates)]
        near_one = _over(updates, jnp.max(jnp.stack([jnp.zeros(()), *each])))
        # As they are, but so that XLA will not square constants before it divides.
        near_one = jax.tree.map(lambda x: jnp.clip(x, -1, 1), near_one)
        normal = _over(near_one, optax.tree.norm(near_one))
        return jax.tree.map(lambda n, u: n.astype(u.dtype), normal, updates)

    return optax.stateless(update)


def _over(tree: Any, divisor: Any) -> Any:
    """In float32 or wider; as it is where the divisor is 0."""
    divisor = jnp.asarray(divisor, jnp.result_type(float))
    divisor = jnp.where(divisor > 0, divisor, 1)
    return jax.tree.map(lambda x: x.astype(divisor.dtype) / divisor, tree)
