"""Lazy task gradients that are looked at where tasks part, at the representation."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments.losses import (
    differentiable,
    losses_and_aux,
    names_of,
    stack_losses,
)
from mtl_optax.core.task_grads.data_axis import local, mean_over
from mtl_optax.core.task_grads.isolated import masked_sum, unless_nonfinite
from mtl_optax.core.task_grads.leaf_products import masked_gramian
from mtl_optax.core.task_grads.linearised import LazyTaskGrads
from mtl_optax.core.task_grads.not_a_tree import not_a_tree
from mtl_optax.core.task_grads.shape_checks import check_params


@not_a_tree
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FeatureTaskGrads(LazyTaskGrads):
    """Lazy gradients whose Gramian is that at the features z; internal to the library.

    All else, `row`, `pull` and `stack`, is that of the parameters' gradients.
    """

    features: Any  # z
    cotangents: LazyTaskGrads  # of the losses with respect to z
    feature_gramian: tuple[jax.Array, jax.Array]  # [T, T], and its unit, as `measure`
    trunk: Any  # tangent of the parameters -> tangent of z
    heads_only: Any  # tangent of the parameters -> tangent of the losses, z held still

    def computed(self) -> Any:
        """These: the Gramian is there, and a weighted sum is one backward pass."""
        return self

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """The products at the features `[T, T]`; no block of parameters has one."""
        if blocks is not None:
            return super().gramian(blocks)
        gramian, unit = self.measure()
        return gramian * unit**2

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The same in a unit in which it is finite, and that unit."""
        if blocks is not None:
            return super().measure(blocks)
        gramian, unit = self.feature_gramian
        return masked_gramian(gramian, self.active), unit

    def at_parameters(self) -> LazyTaskGrads:
        """The same gradients with the Gramian of the parameters."""
        return self._as_lazy(self.pushforward)

    def heads(self) -> LazyTaskGrads:
        """The part of the gradients that does not go through the features."""
        return self._as_lazy(self.heads_only)

    def pull_features(self, cotangent: Any) -> optax.Updates:
        """Gradient for a cotangent of the features; one backward pass of the trunk.

        One more a leaf of the features where `active` leaves a task out and the sum is
        not finite: a leaf that no task asks to move then adds nothing, whatever an
        absent task left in it.
        """
        once = self._pull_through(lambda features: features, cotangent)
        leaves = jax.tree.leaves(cotangent)

        def of_leaf(i: int) -> optax.Updates:
            return self._pull_through(lambda z: jax.tree.leaves(z)[i], leaves[i])

        def apart() -> optax.Updates:
            asked = jnp.stack([jnp.any(leaf != 0) for leaf in leaves])
            return masked_sum(of_leaf, jnp.ones(len(leaves)), asked, once)

        return mean_over(unless_nonfinite(once, self.active, apart), self.axis_name)

    def _pull_through(self, part: Callable[[Any], Any], cotangent: Any) -> Any:
        through = jax.linear_transpose(lambda p: part(self.trunk(p)), self.params)
        return self._keep(through(cotangent)[0])

    def onto(self, params: optax.Params) -> "FeatureTaskGrads":
        """The same gradients as trees like `params`, whose leaves are the same."""
        return dataclasses.replace(
            self,
            pushforward=self._grown(self.pushforward),
            trunk=self._grown(self.trunk),
            heads_only=self._grown(self.heads_only),
            params=params,
        )

    def _as_lazy(self, pushforward: Any) -> LazyTaskGrads:
        fields = (field.name for field in dataclasses.fields(LazyTaskGrads))
        same = {name: getattr(self, name) for name in fields}
        return LazyTaskGrads(**{**same, "pushforward": pushforward, "again": None})


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
      features_fn: `features_fn(params, *args, **kwargs) -> z`, any tree of arrays; or
        `(z, aux)` with `has_aux`.
      heads_fn: `heads_fn(params, z, *args, **kwargs) -> losses`, a dict or tuple of
        scalars (or an array `[T]`), as in :func:`task_grads`.
      has_aux: whether `features_fn` returns auxiliary output.
      axis_name: as in :func:`task_grads`.

    Returns:
      A function `(params, *args, **kwargs) -> (losses [T], lazy)`, or `((losses, aux),
      lazy)` with `has_aux`. Wrap the method in :func:`mtl_optax.on_shared`, so that
      heads get their own plain gradient.

    Raises:
      ValueError: when called, if a task's loss is not a real floating point scalar, or
        a leaf of the parameters is no array of these.

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
      >>> lazy.gramian()
      Array([[ 2., -6.],
             [-6., 18.]], dtype=float32)

    References:
      Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, 2018.
    """

    def value_and_lazy_grads(params: optax.Params, *args: Any, **kwargs: Any) -> Any:
        check_params("feature_task_grads", params)
        params = local(params, axis_name)

        def trunk(params: optax.Params) -> Any:
            return losses_and_aux(features_fn(params, *args, **kwargs), has_aux)

        def heads(params: optax.Params, features: Any) -> Any:
            return differentiable(heads_fn(params, features, *args, **kwargs))

        features, push_trunk, aux = jax.linearize(trunk, params, has_aux=True)
        primal, push_heads = jax.linearize(heads, params, features)
        losses, names = stack_losses(primal), names_of(primal)
        cotangents = LazyTaskGrads(
            losses=losses,
            names=names,
            primal=primal,
            pushforward=partial(_from_features, push_heads, params),
            params=features,
        )
        lazy = FeatureTaskGrads(
            losses=mean_over(losses, axis_name),
            names=names,
            primal=primal,
            pushforward=partial(_through_features, push_trunk, push_heads),
            params=params,
            axis_name=axis_name,
            features=features,
            cotangents=cotangents,
            feature_gramian=_over_devices(*cotangents.measure(), axis_name),
            trunk=push_trunk,
            heads_only=partial(_past_features, push_heads, features),
        )
        return ((lazy.losses, aux) if has_aux else lazy.losses), lazy

    return value_and_lazy_grads


def _through_features(push_trunk: Any, push_heads: Any, tangent: Any) -> Any:
    return push_heads(tangent, push_trunk(tangent))


def _from_features(push_heads: Any, params: Any, tangent: Any) -> Any:
    return push_heads(jax.tree.map(jnp.zeros_like, params), tangent)


def _past_features(push_heads: Any, features: Any, tangent: Any) -> Any:
    return push_heads(tangent, jax.tree.map(jnp.zeros_like, features))


def _over_devices(
    gramian: jax.Array, unit: jax.Array, axis_name: Any
) -> tuple[jax.Array, jax.Array]:
    if axis_name is None:
        return gramian, unit
    # Losses are means over the axis, features lie side by side on it.
    largest = lax.pmax(unit, axis_name)
    gramian *= (unit / largest) ** 2 / lax.axis_size(axis_name) ** 2
    return lax.psum(gramian, axis_name), largest
