"""The one door: what a user hands to `update` becomes `TaskGrads`, checked once.

Only here is it asked in which form gradients come. Shapes, dtypes and names are checked
while tracing, so that a check costs nothing in the compiled step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.losses import losses_vector, names_of
from mtl_optax.core.arguments.names import active_mask, agreed_names
from mtl_optax.core.task_grads.at_features import FeatureTaskGrads
from mtl_optax.core.task_grads.deferred import Deferred
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.linearised import LazyTaskGrads
from mtl_optax.core.task_grads.shape_checks import check_lazy, check_stacked
from mtl_optax.core.task_grads.weighed import Weighed


def as_task_grads(
    updates: Any,
    num_tasks: int | None,
    params: optax.Params | None,
    *,
    losses: Any = None,
    active: Any = None,
    names: tuple[Any, ...] | None = None,
) -> TaskGrads:
    """Stacked or lazy gradients, or what this returned before, checked.

    Args:
      updates: stacked gradients, each leaf `[T, *param]`, or lazy ones.
      num_tasks: T; None reads it from the gradients.
      params: the parameters, or None.
      losses: the extra argument, in any form of losses; lazy gradients bring theirs.
      active: the extra argument, `[T]` bool or a dict of bools by name.
      names: of the tasks, as the method's own arguments give them.

    Raises:
      ValueError: for gradients that are not stacked, or for another number of tasks or
        other names than those of the method, the losses, or `active`.
    """
    form = _form(updates, num_tasks)
    count = form.num_tasks if num_tasks is None else num_tasks
    if form is updates:  # lazy, or through this door before
        check_lazy(form.like(), form.num_tasks, count, params)
    else:
        check_stacked(updates, count, params)
        form = form.together(params)
    sources = {
        "the method's arguments": names,
        "the gradients": form.names,
        "losses=": names_of(losses),
        "active=": names_of(active),
    }
    agreed_names(sources)
    vector = form.losses if losses is None else losses_vector(losses, count)
    mask = form.active if active is None else active_mask(active, count)
    known = agreed_names(sources, count)
    if vector is not None:
        vector = vector.astype(jnp.result_type(float))
        vector = vector if mask is None else jnp.where(mask, vector, 1)
    return dataclasses.replace(form, losses=vector, active=mask, names=known)


def unchecked(task_gradients: Any, active: Any = None) -> TaskGrads:
    """The same for functions of gradients alone, which know no T and no parameters."""
    form = _form(task_gradients, None)
    form = form if form is task_gradients else form.together(None)
    if active is None:
        return form
    known = agreed_names({"the gradients": form.names, "active=": names_of(active)})
    mask = active_mask(active, form.num_tasks)
    return dataclasses.replace(form, active=mask, names=known)


def is_lazy(task_gradients: Any) -> bool:
    """Whether gradients are still to be pulled back."""
    return isinstance(task_gradients, LazyTaskGrads)


def at_features(gradients: Any) -> FeatureTaskGrads:
    """The same, which must be those of `feature_task_grads` on a batch of features."""
    if not isinstance(gradients, FeatureTaskGrads):
        raise ValueError(
            'graddrop(at="features") needs gradients at the representation: make them '
            "with mtl_optax.feature_task_grads(features_fn, heads_fn), or leave "
            'at="gradients".'
        )
    if any(jnp.ndim(z) == 0 for z in jax.tree.leaves(gradients.features)):
        raise ValueError(
            'graddrop(at="features"): a leaf of the features is a scalar, but the '
            "first axis of each must be the batch."
        )
    cotangents = dataclasses.replace(gradients.cotangents, active=gradients.active)
    return dataclasses.replace(gradients, cotangents=cotangents)


def _form(task_gradients: Any, num_tasks: int | None) -> Any:
    if isinstance(task_gradients, LazyTaskGrads | Deferred | Weighed):
        return task_gradients
    return Deferred.stacked(task_gradients, num_tasks)
