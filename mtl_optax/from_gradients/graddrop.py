"""GradDrop: gradient sign dropout (Chen et al. 2020, Algorithm 1).

The paper applies it to the gradients of a shared representation, and lets each task
leak: `at="features"`, as in LibMTL. By default it acts on parameter gradients, the form
that TorchJD and the CAGrad code use. Sum over tasks as in TorchJD; the CAGrad code
returns the mean, that of Kurin et al. rescales to the plain sum's norm. No constant is
added to the denominator of the purity, which is 1/2 where that is 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.chains.places import placed
from mtl_optax.core.method import transformation_method
from mtl_optax.core.sign_dropout import (
    Odds,
    drop_features,
    drop_signs,
    uniforms_like,
)
from mtl_optax.core.stacked import from_stack
from mtl_optax.core.task_grads.as_task_grads import as_task_grads, at_features


class GradDropState(NamedTuple):
    """State of GradDrop."""

    key: jax.Array  # raw key data, uint32


def _odds(f: Any) -> Odds:
    """`f`, checked where it is called."""
    if f is None:
        return None
    if not callable(f):
        raise ValueError(
            "graddrop: f must be a function of the purity P, an array of numbers in "
            f"[0, 1], for example jnp.round, or None for P itself; got {f!r}."
        )

    def checked(purity: jax.Array) -> jax.Array:
        found = jnp.asarray(f(purity))
        if found.shape != purity.shape:
            raise ValueError(
                f"graddrop: f must keep the shape of P, {purity.shape}, for each "
                f"coordinate has odds of its own; it returned shape {found.shape}."
            )
        return found

    return checked


@transformation_method
def graddrop(
    num_tasks: int,
    *,
    key: Any,
    f: Callable[[jax.Array], jax.Array] | None = None,
    leak: PerTask = None,
    at: str = "gradients",
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps, in each coordinate, either the positive or the negative gradients.

    .. math::
      P = \tfrac12 \Big( 1 + \frac{\sum_t g_t}{\sum_t |g_t|} \Big), \quad
      d = \sum_t \big( \ell_t + (1 - \ell_t) M_t \big) g_t

    where for :math:`U \sim \text{Uniform}(0, 1)`, one draw a coordinate, the mask
    :math:`M_t` keeps positive entries if :math:`f(P) > U` and negative ones if
    :math:`f(P) < U`.

    On features z, whose first axis is the batch, P and M are those of :math:`\sum_b
    \text{sign}(z_b) \, \partial L_t / \partial z_b`, with one draw an entry. They mask
    the cotangents :math:`\partial L_t / \partial z_b` of the whole batch; these, summed
    over tasks, go back through the trunk. Heads get their own gradients.

    Args:
      num_tasks: T, a Python int.
      key: int or key for the draws.
      f: the odds of the positive sign as a function of its purity P, which is in
        [0, 1]: a function from an array to one of the same shape, increasing, and
        0 at 0, 1/2 at 1/2 and 1 at 1, so that gradients that agree stay; for example
        `jnp.round`, which lets the sign with the larger sum win always. None is P
        itself.
      leak: :math:`\ell`, `[T]` in sorted order of names or a dict by name, in [0, 1],
        the part of each task that is never dropped; None is 0.
      at: "gradients" of the parameters, or "features".

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. With `at="features"`, of those of :func:`mtl_optax.feature_task_grads`
      only, inside `on_shared` or not. Extra arguments of `update`: `active` `[T]` bool,
      and `uniforms=`, a tree of `[*param]` draws (like z without the batch) to use
      instead of drawing. Output scale: sum. T=1 gives the gradient itself (on features
      without the entries whose sum over the batch is 0).

    Raises:
      ValueError: if `leak` is not one number a task, or `f` no function that keeps the
        shape of P; for an unknown `at`; for gradients
        that are not stacked, or another task count; with `at="features"` for gradients
        without features (give `check_chain` some, `gradients=`), or features without a
        batch.

    Cost: T backward passes and T copies of the gradient; one key of state; one read of
    these copies, with as many random numbers as parameters, which cost about as much (a
    hash of each place, cheaper than those of `jax.random`). On features: T backward
    passes of the heads, one of the trunk, as many random numbers as entries of z.

    Invariances: none to loss scales: the larger a gradient the larger its share of the
    odds.

    Guarantee: none on conflicts: in each coordinate one sign survives, chosen at random
    with the odds of its share.

    When not to use it: if updates must be reproducible across parameter layouts, or
    where the noise of the draws hurts; nothing is known about conflicts of the result.
    On features: where other parameters than the trunk's are shared.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.graddrop(num_tasks=2, key=0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 2.0], [-3.0, 1.0]])}
      >>> tx.update(
      ...     grads, tx.init(params), params, uniforms={"w": jnp.array([0.2, 0.9])}
      ... )[0]
      {'w': Array([1., 3.], dtype=float32)}

    References:
      Chen et al., `Just Pick a Sign: Optimizing Deep Multitask Models with Gradient
      Sign Dropout <https://arxiv.org/abs/2010.06808>`_, 2020.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.one_of("at", at, ("gradients", "features"))
    odds = _odds(f)
    if leak is not None:
        leak = checks.task_vector("leak", leak, num_tasks)
    first_key = raw_key(key)

    def init(params: optax.Params) -> GradDropState:
        del params
        return GradDropState(jnp.copy(first_key))

    def draw(
        state: GradDropState, leaves: list[jax.Array], given: Any
    ) -> tuple[list[jax.Array], GradDropState]:
        use, keep = next_key(state.key)
        draws = uniforms_like(leaves, use) if given is None else jax.tree.leaves(given)
        return draws, GradDropState(keep)

    def on_gradients(
        gradients: optax.Updates,
        state: GradDropState,
        *,
        uniforms: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, GradDropState]:
        del extra
        leaves, treedef = jax.tree.flatten(gradients)
        draws, state = draw(state, leaves, uniforms)
        pairs = zip(leaves, draws, strict=True)
        kept = [drop_signs(list(leaf), u, leak, odds) for leaf, u in pairs]
        return jax.tree.unflatten(treedef, kept), state

    def on_features(
        updates: Any,
        state: GradDropState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        uniforms: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GradDropState]:
        checks.only_taken(extra_args, ())
        given = as_task_grads(updates, num_tasks, params, losses=losses, active=active)
        gradients = at_features(given)
        draws, state = draw(state, jax.tree.leaves(gradients.features), uniforms)
        trunk = gradients.pull_features(drop_features(gradients, draws, leak, odds))
        own = gradients.heads().pull(jnp.ones(num_tasks))
        return jax.tree.map(jnp.add, trunk, own), state

    if at == "gradients":
        return from_stack(num_tasks, init, on_gradients)
    return placed(init, on_features)
