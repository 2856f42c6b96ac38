"""Losses and the backward pass of one batch as one flat program, cut in three.

Forward: what does not depend on the losses' cotangent. Backward: from there to the
operands of the sums over the batch. Behind these the parameters' gradients follow.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.per_sample import flat
from mtl_optax.core.per_sample.hoist import hoisted, tracked
from mtl_optax.core.per_sample.leaves import Recipe, own_rows, recipe, samples
from mtl_optax.core.per_sample.states import Row, Still, Total, shape_of
from mtl_optax.core.task_grads.leaf_values import Part


@dataclasses.dataclass(frozen=True, eq=False)
class Backward:
    """One batch's backward pass, still to be run."""

    jaxpr: Any
    eqns: Sequence[Any]
    residuals: dict[Any, jax.Array]
    cotangent: Any  # variable [B]
    gradients: Sequence[Recipe | tuple[Any, Row] | None]  # one a leaf

    def run(self) -> list[Part | None]:
        """For each parameter what is kept of its gradients by sample."""
        wanted = [x for g in self.gradients if g is not None for x in _wanted(g)]
        aval = self.cotangent.aval
        inputs = [*self.residuals, self.cotangent]
        args = [*self.residuals.values(), jnp.ones(aval.shape, aval.dtype)]
        distinct = list(dict.fromkeys(flat.variables(wanted)))
        values = flat.evaluate(self.jaxpr, self.eqns, inputs, distinct, args)
        known = dict(zip(distinct, values, strict=True))
        return [self._part(g, known) for g in self.gradients]

    def _part(self, gradient: Any, known: Any) -> Part | None:
        if gradient is None:
            return None
        values = [flat.read(known, x) for x in _wanted(gradient)]
        if isinstance(gradient, Recipe):
            return samples(gradient, values)
        return own_rows(values[0], gradient[1], self.cotangent.aval.shape[0])


def _wanted(gradient: Recipe | tuple[Any, Row]) -> list[Any]:
    return gradient.wanted if isinstance(gradient, Recipe) else [gradient[0]]


def forward(
    losses_fn: Callable[..., Any], params: Sequence[Any], data: Sequence[Any]
) -> tuple[jax.Array, list[Any], Backward]:
    """Losses `[B]`, auxiliary output, and the backward pass.

    Args:
      losses_fn: `losses_fn(params, data) -> (losses [B], aux)`, lists of arrays all.
      params: its first argument.
      data: its second one.
    """

    def both(one: jax.Array, *leaves: Any) -> list[Any]:
        params_, data_ = list(leaves[: len(params)]), list(leaves[len(params) :])
        losses, pull, aux = jax.vjp(
            lambda p: losses_fn(p, data_), params_, has_aux=True
        )
        cotangent = jnp.broadcast_to(one.astype(losses.dtype), losses.shape)
        return [cotangent, losses, *aux, *pull(cotangent)[0]]

    args = [jnp.ones(()), *params, *data]
    closed = jaxprs.trace_backward(both, *args, scan=lambda eqn, values: None)
    batch = shape_of(closed.jaxpr.outvars[1])[0]
    inputs = [Still()] * (1 + len(params))
    inputs += [Still(of_batch=jnp.shape(x)[:1] == (batch,)) for x in data]
    alone = batch == 1  # Then each gradient is that of the one sample.
    if not alone:
        closed = hoisted(closed, batch, inputs, 0)
        tracker = tracked(closed, batch, inputs, 0)
    jaxpr = closed.jaxpr
    split = len(jaxpr.outvars) - len(params)
    gradients = [
        (x, Row(0)) if alone else _gradient(tracker, x) for x in jaxpr.outvars[split:]
    ]
    cotangent, *outputs = jaxpr.outvars[:split]
    wanted = [x for g in gradients if g is not None for x in _wanted(g)]
    after = _after(jaxpr.eqns, cotangent)
    needed = flat.needed(jaxpr, wanted)
    backward = [eqn for eqn in needed if after.intersection(eqn.outvars)]
    read = [x for eqn in backward for x in eqn.invars] + wanted
    kept = [x for x in dict.fromkeys(flat.variables(read)) if x not in after]
    eqns = flat.needed(jaxpr, [*outputs, *kept])
    sources = [*jaxpr.constvars, *jaxpr.invars]
    values = flat.evaluate(
        jaxpr, eqns, sources, [*outputs, *kept], [*closed.consts, *args]
    )
    residuals = dict(zip(kept, values[len(outputs) :], strict=True))
    rest = Backward(jaxpr, backward, residuals, cotangent, gradients)
    return values[0], values[1 : len(outputs)], rest


def _after(eqns: Sequence[Any], start: Any) -> set[Any]:
    """The variables that come from one, itself included."""
    found = {start}
    for eqn in eqns:
        if found.intersection(flat.variables(eqn.invars)):
            found.update(eqn.outvars)
    return found


def _gradient(tracker: Any, var: Any) -> Recipe | tuple[Any, Row] | None:
    state = tracker.state(var)
    if isinstance(state, Total):
        return recipe(tracker, var)
    return (var, state) if isinstance(state, Row) else None
