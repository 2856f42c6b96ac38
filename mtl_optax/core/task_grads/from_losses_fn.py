"""From one function of several losses to per-task gradients, now or when asked for."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.losses import (
    differentiable,
    losses_and_aux,
    names_of,
    stack_losses,
)
from mtl_optax.core.layerwise.forms import FORMS
from mtl_optax.core.task_grads.data_axis import local, mean_over
from mtl_optax.core.task_grads.linearised import LazyTaskGrads
from mtl_optax.core.task_grads.shape_checks import check_params


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
      losses_fn: `losses_fn(params, *args, **kwargs) -> losses`, a dict (tasks in order
        of sorted names) or tuple of scalars; the first choice. An array `[T]` works
        too, but then tasks are not isolated: 0 times the NaN of a neighbour is NaN, and
        every head is pulled back for every task. Inside, tasks may use inputs of their
        own.
      has_aux: whether `losses_fn` returns `(losses, aux)`, for example new batch
        statistics.
      axis_name: name of a mapped data axis (`jax.shard_map`, `jax.vmap`); losses and
        each task's gradient are averaged over it, *before* any Gramian is formed. A
        mean over known labels only must then be :func:`mtl_optax.masked_mean` with the
        same axis, for devices know different numbers of them.
      chunk_size: number of tasks pulled back together by `jax.vmap`; None, one after
        the other, is faster on CPU and isolates tasks. On an accelerator a larger
        number may pay; it needs memory for that many backward passes at once.

    Returns:
      A function `(params, *args, **kwargs) -> (losses [T], stacked)`, or
      `((losses, aux), stacked)` with `has_aux`; each leaf of `stacked` is
      `[T, *param.shape]`.

    Raises:
      ValueError: when called, if a task's loss is not a real floating point scalar, or
        a leaf of the parameters is no array of these.

    Cost: one forward and T backward passes, T copies of the parameters. What
    `jax.checkpoint` wraps, such as the blocks of a scanned trunk, is computed again in
    each backward pass, T times; with `chunk_size` once a chunk, at the price of a chunk
    of backward passes in memory. Use :func:`lazy_task_grads` where the method does not
    need the stack. Where each task
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

    def value_and_task_grads(params: optax.Params, *args: Any, **kwargs: Any) -> Any:
        value, task_gradients = lazy(params, *args, **kwargs)
        return value, task_gradients.stack()

    return value_and_task_grads


def lazy_task_grads(
    losses_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    axis_name: Any = None,
    chunk_size: int | None = None,
    form: str = "auto",
) -> Callable[..., Any]:
    r"""Like `task_grads`, but only what the method asks for is computed.

    .. math:: K_{ts} = \langle \nabla L_t, \nabla L_s \rangle, \quad
      d = \sum_t w_t \nabla L_t

    For a method that sees the Gramian both come layer by layer from the factors of each
    weight's gradient, exactly, where that is cheaper than T gradients
    (:func:`gramian_vjp` has the formula, :func:`explain` tells what is taken).

    Args:
      losses_fn: as in :func:`task_grads`.
      has_aux: as in :func:`task_grads`.
      axis_name: as in :func:`task_grads`.
      chunk_size: as in :func:`task_grads`, for what needs the stack.
      form: for the Gramian: "auto" takes for every weight what costs less, "rows" the
        factors wherever there are some, "direct" never.

    Returns:
      A function `(params, *args, **kwargs) -> (losses [T], lazy)`, or `((losses, aux),
      lazy)` with `has_aux`, where `lazy` is a :class:`LazyTaskGrads`, taken by every
      method in place of stacked gradients and giving the same update to rounding.

    Raises:
      ValueError: when called, if a task's loss is not a real floating point scalar, or
        a leaf of the parameters is no array of these.

    Cost: one forward pass; then one backward pass for a method that sees losses only, T
    backward passes and the stack for one that reads single coordinates. For one that
    needs the Gramian: what serves one task (its head, layers on its own data) is pulled
    back once; what serves several, for all of them at once, without the gradients of
    weights that have fewer rows (batch times positions) than inputs. That is a third to
    three fifths of T backward passes (docs/gramian.md), and `T R n` numbers in place of
    `T m n` for a weight `[m, n]` with R rows. Where no weight gains, T backward passes
    and T trees. Under `jax.checkpoint` the block is computed again once. A sum made in
    one pass is looked at where `active=` leaves a task out: if that task's NaN got into
    it, it is made anew from T backward passes, without the rows of absent tasks (code
    that is compiled, and seldom run; under `jax.vmap` in all lanes as soon as one needs
    it).

    When not to use it: with `optax.partition`, `optax.masked`, `nnx.Optimizer.update`
    or any transformation before the method; these need stacked gradients, and raise.
    Across `jax.jit`: make and use it inside one jitted step, or it raises. Where tasks
    have rows of their own, `[T, n, ...]`, in one forward pass: every task would be
    pulled back through all rows (for ten tasks 4 times a plain step of an MLP,
    measured); :func:`per_sample_grads` of losses `[T]` takes 1.2.

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
    checks.one_of("form", form, FORMS)
    if chunk_size is not None:
        chunk_size = checks.static_int("chunk_size", chunk_size)

    def value_and_lazy_grads(params: optax.Params, *args: Any, **kwargs: Any) -> Any:
        check_params("task_grads", params)
        params = local(params, axis_name)

        def checked(params: optax.Params) -> Any:
            out = losses_fn(params, *args, **kwargs)
            losses, aux = losses_and_aux(out, has_aux)
            return differentiable(losses), aux

        primal, pushforward, aux = jax.linearize(checked, params, has_aux=True)
        lazy = LazyTaskGrads(
            losses=mean_over(stack_losses(primal), axis_name),
            names=names_of(primal),
            primal=primal,
            pushforward=pushforward,
            again=lambda params: checked(params)[0],
            params=params,
            axis_name=axis_name,
            chunk_size=chunk_size,
            form=form,
        )
        return ((lazy.losses, aux) if has_aux else lazy.losses), lazy

    return value_and_lazy_grads
