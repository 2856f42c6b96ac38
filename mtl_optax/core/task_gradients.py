"""From one function of several losses to per-task gradients, in three prices.

`task_grads` stacks them, `lazy_task_grads` postpones them, `feature_task_grads` looks
at them only where the tasks part, at the shared representation.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial

from mtl_optax.core.arguments.checks import static_int
from mtl_optax.core.arguments.losses import stack_losses
from mtl_optax.core.gramians import gramian
from mtl_optax.core.lazy import Features, LazyTaskGrads, mean_over


def task_grads(
    losses_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    axis_name: Any = None,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    r"""Turns a function of several losses into losses and per-task gradients.

    .. math:: (L_t(\theta), \; \nabla_\theta L_t(\theta)), \quad t = 1 \ldots T

    The forward pass runs once; each task is then pulled back on its own, so that the
    head of task s costs nothing in the gradient of task t, and a NaN stays in its task.

    Args:
      losses_fn: `losses_fn(params, *args) -> losses`, a dict (tasks in order of sorted
        names) or tuple of scalars; the first choice. An array `[T]` works too, but
        then tasks are not isolated: 0 times the NaN of a neighbour is NaN, and every
        head is pulled back for every task. Inside, tasks may use inputs of their own.
      has_aux: whether `losses_fn` returns `(losses, aux)`, for example new batch
        statistics.
      axis_name: name of a mapped data axis (`jax.shard_map`, `jax.vmap`); losses and
        each task's gradient are averaged over it, *before* any Gramian is formed.
      chunk_size: number of tasks pulled back together by `jax.vmap`; None, one after
        the other, is faster on CPU and isolates tasks. On an accelerator a larger
        number may pay; it needs memory for that many backward passes at once.

    Returns:
      A function `(params, *args) -> (losses [T], stacked)`, or
      `((losses, aux), stacked)` with `has_aux`; each leaf of `stacked` is
      `[T, *param.shape]`.

    Raises:
      ValueError: when called, if a task's loss is not a scalar.

    Cost: one forward and T backward passes, T copies of the parameters. Use
    :func:`lazy_task_grads` where the method does not need the stack. Where each task
    has a batch of its own of one shape, `jax.vmap(jax.value_and_grad(loss_fn),
    in_axes=(None, 0))(params, batches)` needs nothing from us.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> def losses_fn(params):
      ...     return {"a": jnp.sum(params["w"] ** 2), "b": jnp.sum(params["w"])}
      >>> losses, grads = mtl.task_grads(losses_fn)({"w": jnp.array([1.0, 2.0])})
      >>> losses
      Array([5., 3.], dtype=float32)
      >>> grads["w"]
      Array([[2., 4.],
             [1., 1.]], dtype=float32)
    """
    lazy = lazy_task_grads(
        losses_fn, has_aux=has_aux, axis_name=axis_name, chunk_size=chunk_size
    )

    def value_and_task_grads(params: optax.Params, *args: Any) -> Any:
        value, task_gradients = lazy(params, *args)
        return value, task_gradients.stack()

    return value_and_task_grads


def lazy_task_grads(
    losses_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    axis_name: Any = None,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Like `task_grads`, but each gradient is computed only if the method asks for it.

    Args:
      losses_fn: as in :func:`task_grads`.
      has_aux: as in :func:`task_grads`.
      axis_name: as in :func:`task_grads`.
      chunk_size: as in :func:`task_grads`.

    Returns:
      A function `(params, *args) -> (losses [T], lazy)`, or `((losses, aux), lazy)`
      with `has_aux`, where `lazy` is a :class:`LazyTaskGrads`, taken by every method
      in place of stacked gradients and giving the same update to rounding.

    Raises:
      ValueError: when called, if a task's loss is not a scalar.

    Cost: one forward pass; then one backward pass for a method that sees losses only,
    T backward passes and T trees (no stack) for one that needs the Gramian, and the
    stack for one that reads single coordinates. Make and use it inside one `jax.jit`.

    When not to use it: with `optax.partition`, `optax.masked`, `nnx.Optimizer.update`
    or any transformation before the method; these need stacked gradients, and raise.
    With a NaN task and `active=`: a method that sees losses only then runs a single
    backward pass, in which weight 0 times NaN is NaN; use :func:`task_grads` there.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl
      >>> def losses_fn(params):
      ...     return {"a": jnp.sum(params["w"] ** 2), "b": jnp.sum(params["w"])}
      >>> tx = mtl.unitary(num_tasks=2)
      >>> @jax.jit
      ... def update(params, state):
      ...     losses, grads = mtl.lazy_task_grads(losses_fn)(params)
      ...     return tx.update(grads, state, params)
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> update(params, tx.init(params))[0]
      {'w': Array([3., 5.], dtype=float32)}
    """
    if chunk_size is not None:
        static_int("chunk_size", chunk_size)

    def value_and_lazy_grads(params: optax.Params, *args: Any) -> Any:
        params = local(params, axis_name)

        def checked(params: optax.Params) -> Any:
            out = losses_fn(params, *args)
            losses, aux = out if has_aux else (out, None)
            stack_losses(losses)  # raises here, where the caller's names are known
            return losses, aux

        primal, pushforward, aux = jax.linearize(checked, params, has_aux=True)
        lazy = LazyTaskGrads(
            losses=mean_over(stack_losses(primal), axis_name),
            primal=primal,
            pushforward=pushforward,
            params=params,
            axis_name=axis_name,
            chunk_size=chunk_size,
        )
        return ((lazy.losses, aux) if has_aux else lazy.losses), lazy

    return value_and_lazy_grads


def feature_task_grads(
    features_fn: Callable[..., Any],
    heads_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    axis_name: Any = None,
) -> Callable[..., Any]:
    r"""Lazy task gradients whose Gramian is taken at the shared representation.

    .. math:: K_{ts} = \langle \nabla_z L_t, \nabla_z L_s \rangle, \quad z = f(\theta)

    With :func:`mtl_optax.mgda` this is MGDA-UB (Sener and Koltun 2018): weights from an
    upper bound of the parameter Gramian, then one backward pass of the weighted loss.
    A cheaper, different algorithm for every method that sees the Gramian, not an exact
    substitute.

    Args:
      features_fn: `features_fn(params, *args) -> z`, any tree of arrays; or
        `(z, aux)` with `has_aux`.
      heads_fn: `heads_fn(params, z, *args) -> losses`, a dict or tuple of scalars
        (or an array `[T]`), as in :func:`task_grads`.
      has_aux: whether `features_fn` returns auxiliary output.
      axis_name: as in :func:`task_grads`.

    Returns:
      A function `(params, *args) -> (losses [T], lazy)`, or `((losses, aux), lazy)`
      with `has_aux`. Wrap the method in :func:`mtl_optax.on_shared`, so that heads get
      their own plain gradient.

    Raises:
      ValueError: when called, if a task's loss is not a scalar.

    Cost: one forward pass, T backward passes through the heads, one through the trunk;
    T copies of the representation's cotangent. A method that reads single coordinates
    (from_gradients) pulls back T times through the trunk all the same, but for
    `graddrop(at="features")`.

    When not to use it: where the method's guarantee on the parameters' gradients
    matters, since the trunk may turn and stretch them; with parameters outside trunk
    and heads; where a representation is larger than the parameters.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> grads_fn = mtl.feature_task_grads(
      ...     lambda params: params["w"] * 2.0,
      ...     lambda params, z: {"a": jnp.sum(z), "b": -3.0 * jnp.sum(z)},
      ... )
      >>> losses, lazy = grads_fn({"w": jnp.array([1.0, 2.0])})
      >>> lazy.gramian
      Array([[ 2., -6.],
             [-6., 18.]], dtype=float32)

    References:
      Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, 2018.
    """

    def value_and_lazy_grads(params: optax.Params, *args: Any) -> Any:
        params = local(params, axis_name)

        def trunk(params: optax.Params) -> Any:
            out = features_fn(params, *args)
            return out if has_aux else (out, None)

        def heads(params: optax.Params, features: Any) -> Any:
            losses = heads_fn(params, features, *args)
            stack_losses(losses)
            return losses

        features, push_trunk, aux = jax.linearize(trunk, params, has_aux=True)
        primal, push_heads = jax.linearize(heads, params, features)
        losses = stack_losses(primal)
        at_features = LazyTaskGrads(
            losses=losses,
            primal=primal,
            pushforward=Partial(_from_features, push_heads, params),
            params=features,
        )
        lazy = LazyTaskGrads(
            losses=mean_over(losses, axis_name),
            primal=primal,
            pushforward=Partial(_through_features, push_trunk, push_heads),
            params=params,
            gramian=_feature_gramian(at_features, axis_name),
            features=Features(
                value=features,
                gradients=at_features,
                trunk=push_trunk,
                heads=Partial(_past_features, push_heads, features),
            ),
            axis_name=axis_name,
        )
        return ((lazy.losses, aux) if has_aux else lazy.losses), lazy

    return value_and_lazy_grads


def _through_features(push_trunk: Any, push_heads: Any, tangent: Any) -> Any:
    return push_heads(tangent, push_trunk(tangent))


def _from_features(push_heads: Any, params: Any, tangent: Any) -> Any:
    return push_heads(jax.tree.map(jnp.zeros_like, params), tangent)


def _past_features(push_heads: Any, features: Any, tangent: Any) -> Any:
    return push_heads(tangent, jax.tree.map(jnp.zeros_like, features))


def _feature_gramian(at_features: LazyTaskGrads, axis_name: Any) -> jax.Array:
    local = gramian(at_features)
    if axis_name is None:
        return local
    # Losses are means over the axis, features lie side by side on it.
    return lax.psum(local, axis_name) / lax.axis_size(axis_name) ** 2


def local(params: optax.Params, axis_name: Any) -> optax.Params:
    """Parameters marked as different on each device of the axis.

    `jax.shard_map` sums gradients of replicated parameters over the mesh by itself;
    of local ones it does not, and the mean that we take is then right in every mode.
    """
    if axis_name is None:
        return params
    here = lax.axis_index(axis_name) >= 0
    return jax.tree.map(lambda p: jnp.where(here, p, p), params)
