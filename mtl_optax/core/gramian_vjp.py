"""The Gramian of a pull-back's gradients, and their weighted sums, layer by layer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.core.arguments import checks
from mtl_optax.core.layerwise.forms import FORMS
from mtl_optax.core.task_grads.deferred import Deferred
from mtl_optax.core.task_grads.layerwise import parts_of_pullback


def gramian_vjp(
    pullback: Callable[[Any], Any], cotangents: Any, *, form: str = "auto"
) -> tuple[jax.Array, Callable[[Any], Any]]:
    r"""The exact Gramian of T gradients, without the gradients.

    .. math:: K_{ts} = \langle J^\top c_t, J^\top c_s \rangle, \qquad
      \text{combine}(w) = J^\top \sum_t w_t c_t

    A weight's gradient is a last product, :math:`G_t = X^\top D_t`, of its layer's
    inputs X `[R, m]` and the cotangents :math:`D_t` `[R, n]` of its outputs. So
    :math:`\langle G_t, G_s \rangle = \langle D_t, X X^\top D_s \rangle`, which is
    cheaper where there are fewer rows R (batch times positions) than the layer has
    inputs; and the weighted sum is one product more, of the same factors.

    Args:
      pullback: of `out, pullback = jax.vjp(fn, params)`, for any function and trees.
      cotangents: a tree like `out`, each leaf with a leading axis of T. For T losses
        in one array, `jnp.eye(T)`; behind a shared trunk, the gradients of the losses
        with respect to its output, so that no head is pulled back T times.
      form: "auto", the cheaper for every leaf; "rows", wherever the gradient is a last
        product; "direct", never.

    Returns:
      K `[T, T]`, float32 or wider, and `combine(weights)`, from weights `[T]` to what
      `pullback` gives for the weighted cotangent.

    Raises:
      ValueError: for an unknown form, cotangents without a common leading axis, or
        complex gradients.

    Cost: the cotangents of all layers' outputs for T tasks, about half of T backward
    passes; for each leaf `R^2 (m + T n) + T^2 R n` multiplications by rows, or
    `T R m n + T^2 m n`. The factors, `T R n` numbers a layer, live until `combine`; so
    where layers are many and memory is short call `pullback` with the weighted
    cotangent instead, one backward pass more. `mtl_optax.explain` tells what is taken
    for losses.

    When not to use it: :func:`mtl_optax.lazy_task_grads` does it for you, with heads
    that cost nothing to other tasks. For convolutions, and rows above a layer's width,
    it is no cheaper than T backward passes.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl
      >>> def losses(w, x):
      ...     return jnp.mean(jnp.tanh(x @ w), axis=0)
      >>> x = jnp.arange(6.0).reshape(2, 3) / 6
      >>> out, pullback = jax.vjp(lambda w: losses(w, x), jnp.ones((3, 2)))
      >>> gramian, combine = mtl.gramian_vjp(pullback, jnp.eye(2))
      >>> gramian.shape
      (2, 2)
      >>> (direction,) = combine(jnp.array([0.5, 0.5]))
      >>> direction.shape
      (3, 2)

    References:
      Goodfellow, `Efficient Per-Example Gradient Computations
      <https://arxiv.org/abs/1510.01799>`_, 2015, has the products of factors for one
      example a row; rows that are summed over, and any function of JAX, are ours.
    """
    checks.one_of("form", form, FORMS)
    num_tasks = _leading(cotangents)
    shapes = jax.eval_shape(pullback, jax.tree.map(lambda c: c[0], cotangents))
    like, treedef = jax.tree.flatten(shapes)
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in like):
        raise ValueError(
            "gramian_vjp: the pull-back gives complex gradients, which have no real "
            "inner products; differentiate with respect to real and imaginary parts."
        )
    real = [i for i, leaf in enumerate(like) if leaf.dtype != jax.dtypes.float0]

    def gradients_of(cotangent: Any) -> list[jax.Array]:
        leaves = jax.tree.leaves(pullback(cotangent))
        return [leaves[i] for i in real]

    leaves = parts_of_pullback(
        gradients_of, cotangents, [like[i] for i in real], num_tasks, form
    )
    gradients = Deferred(
        leaves=tuple(leaves),
        treedef=jax.tree.structure([0] * len(real)),
        num_tasks=num_tasks,
    )

    def combine(weights: Any) -> Any:
        weights = jnp.asarray(weights, jnp.result_type(float))
        if weights.shape != (num_tasks,):
            raise ValueError(
                f"combine: weights must have one entry for each of the {num_tasks} "
                f"cotangents, shape ({num_tasks},); got shape {weights.shape}."
            )
        # Whole numbers have no gradient, which JAX writes as float0.
        summed: list[Any] = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in like]
        for i, gradient in zip(real, gradients.pull(weights), strict=True):
            summed[i] = gradient
        return jax.tree.unflatten(treedef, summed)

    return gradients.gramian(), combine


def _leading(cotangents: Any) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(cotangents)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "gramian_vjp: every leaf of the cotangents must have the same leading "
            f"axis, one entry a task; got shapes {shapes}. For T losses in one array "
            "pass jnp.eye(T)."
        )
    return int(shapes[0][0])
