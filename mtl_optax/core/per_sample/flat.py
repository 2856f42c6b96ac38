"""Programs without calls: what `jit` and `checkpoint` wrap is written out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

# By name, for JAX has moved the primitives themselves more than once.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}


def trace(fn: Callable[..., Any], *args: jax.Array) -> Any:
    """The program of a function of arrays, in one list of equations."""
    return jax.make_jaxpr(lambda *args: run(jax.make_jaxpr(fn)(*args), args))(*args)


def flatten(closed: Any) -> Any:
    """The same program in one list of equations."""
    types = [var.aval for var in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *args: run(closed, args))(*types)


def run(closed: Any, args: Sequence[Any]) -> list[Any]:
    """The results, with calls written out."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(values, atom) for atom in eqn.invars]
        inner = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
        if inner is None:
            results = evaluate(jaxpr, [eqn], eqn.invars, eqn.outvars, inputs)
        else:
            if eqn.params.get("prevent_cse"):  # a recomputation must remain one
                inputs = list(lax.optimization_barrier(tuple(inputs)))
            results = run(as_closed(inner), inputs)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(values, atom) for atom in jaxpr.outvars]


def evaluate(
    jaxpr: Any, eqns: Sequence[Any], inputs: Sequence[Any], outputs: Any, args: Any
) -> list[Any]:
    """Values of the variables `outputs`, for those of the variables `inputs`."""
    pairs = zip(inputs, args, strict=True)
    given = {var: value for var, value in pairs if is_variable(var)}
    part = jaxpr.replace(
        constvars=[], invars=list(given), outvars=list(outputs), eqns=list(eqns)
    )
    return jax.core.eval_jaxpr(part, (), *given.values())


def needed(eqns: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """The equations that these variables come from, in order."""
    wanted = set(variables(outputs))
    kept = []
    for eqn in reversed(eqns):
        if wanted.intersection(eqn.outvars):
            kept.append(eqn)
            wanted.update(variables(eqn.invars))
    return kept[::-1]


def variables(atoms: Sequence[Any]) -> Iterator[Any]:
    return filter(is_variable, atoms)


def is_variable(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def read(values: dict[Any, Any], atom: Any) -> Any:
    return values[atom] if is_variable(atom) else atom.val


def as_closed(jaxpr: Any) -> Any:
    return jaxpr if hasattr(jaxpr, "consts") else core.ClosedJaxpr(jaxpr, ())
