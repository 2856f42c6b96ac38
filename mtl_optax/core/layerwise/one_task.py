"""The gradient of one task that is known in the compiled step only.

What serves all tasks is pulled back once, whichever task it is. What does not is a
branch for each task, of which one runs: heads, layers of its own, inputs of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var

from mtl_optax.core.layerwise.jaxprs import (
    CONVOLUTION,
    PRODUCT,
    SCAN,
    names_in,
)
from mtl_optax.core.layerwise.regions import (
    cut_out,
    depends_on_inputs,
    inputs_of,
    served,
)

_WORK = {PRODUCT, CONVOLUTION, SCAN}


class Split(NamedTuple):
    """A linear function of T outputs, by what serves all of them and what does not."""

    linear: ClosedJaxpr
    depends: set[Var]
    shared: list[JaxprEqn]
    own: list[list[JaxprEqn]]  # for each task, in order

    @property
    def shares_work(self) -> bool:
        """Whether what serves all tasks is worth pulling back once."""
        return bool(names_in(self.shared) & _WORK)

    @property
    def own_convolutions(self) -> bool:
        """Whether a branch convolves, which XLA's CPU does naively there."""
        return any(CONVOLUTION in names_in(eqns) for eqns in self.own)


def split(linear: ClosedJaxpr) -> Split:
    """Sorts the equations of a linear function of T scalars."""
    depends = depends_on_inputs(linear)
    shared: list[JaxprEqn] = []
    own: list[list[JaxprEqn]] = [[] for _ in linear.jaxpr.outvars]
    last_first, _ = served(linear, depends)
    for eqn, tasks in reversed(last_first):
        for eqns in [shared] if len(tasks) == len(own) else [own[t] for t in tasks]:
            eqns.append(eqn)
    return Split(linear, depends, shared, own)


def pull_back_one(
    parts: Split, task: jax.Array, ones: Sequence[Any], params: Sequence[Any]
) -> list[jax.Array]:
    """The cotangents of the inputs for one output, whose index may be traced.

    Args:
      parts: the function.
      task: index of the output.
      ones: T cotangents, each for its own output.
      params: the inputs' leaves, whose types the results have.
    """
    jaxpr = parts.linear.jaxpr
    inputs = [
        _own_inputs(parts, own, out)
        for own, out in zip(parts.own, jaxpr.outvars, strict=True)
    ]
    known = dict(zip(jaxpr.invars, params, strict=True))
    reached = list(dict.fromkeys(var for some in inputs for var in some))
    border = [var for var in reached if var not in known]
    known |= _values(parts, border, known)  # for their types only

    def branch(t: int) -> Callable[[], list[jax.Array]]:
        def pull() -> list[jax.Array]:
            found = dict(
                zip(inputs[t], _pull_own(parts, t, inputs[t], ones[t]), strict=True)
            )
            return [found.get(var, jnp.zeros_like(known[var])) for var in reached]

        return pull

    pulled = lax.switch(task, [branch(t) for t in range(len(inputs))])
    total = dict(zip(reached, pulled, strict=True))
    for var, value in _pull_shared(parts, border, [total[var] for var in border]):
        total[var] = total[var] + value if var in total else value
    return [total.get(var, jnp.zeros_like(known[var])) for var in jaxpr.invars]


def _own_inputs(parts: Split, eqns: list[JaxprEqn], out: Var | Literal) -> list[Var]:
    if isinstance(out, Literal):  # a loss that depends on nothing
        return []
    return inputs_of(eqns, [out], parts.depends) if eqns else [out]


def _pull_own(parts: Split, task: int, inputs: list[Var], one: Any) -> Sequence[Any]:
    if not inputs:
        return []
    out = parts.linear.jaxpr.outvars[task]
    function = cut_out(parts.linear, parts.own[task], inputs, [out], parts.depends)
    return jax.linear_transpose(function, *(var.aval for var in inputs))([one])


def _pull_shared(
    parts: Split, border: list[Var], cotangents: list[jax.Array]
) -> list[tuple[Var, jax.Array]]:
    if not border:
        return []
    inputs, function = _up_to(parts, border)
    types = [var.aval for var in inputs]
    pulled = jax.linear_transpose(function, *types)(cotangents)
    return list(zip(inputs, pulled, strict=True))


def _values(parts: Split, border: list[Var], known: dict[Var, Any]) -> dict[Var, Any]:
    if not border:
        return {}
    inputs, function = _up_to(parts, border)
    values = function(*(known[var] for var in inputs))
    return dict(zip(border, values, strict=True))


def _up_to(
    parts: Split, border: list[Var]
) -> tuple[list[Var], Callable[..., list[Any]]]:
    """What all tasks share, from its inputs to where they part."""
    inputs = inputs_of(parts.shared, border, parts.depends)
    return inputs, cut_out(parts.linear, parts.shared, inputs, border, parts.depends)
