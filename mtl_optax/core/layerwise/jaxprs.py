"""Linear functions as flat jaxprs, and jaxprs cut at the variables that are wanted.

The one file that knows names and parameters of JAX's primitives, and nothing of JAX
beyond them. A primitive that is not named here is evaluated as it stands.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

CALLS = {"jit", "pjit", "closed_call", "core_call"}
CHECKPOINTS = {"checkpoint", "remat", "remat2"}
SCAN, PRODUCT, SUM, SCATTER_ADD = "scan", "dot_general", "add_any", "scatter-add"
TRANSPOSE, RESHAPE, CONVERT = "transpose", "reshape", "convert_element_type"
BROADCAST, CONVOLUTION = "broadcast_in_dim", "conv_general_dilated"
CONSTRAIN, RESHARD = "sharding_constraint", "reshard"

# What else may be done to an equation: outputs for its inputs, or None for no.
Rewrite = Callable[[JaxprEqn, list[Any]], list[Any] | None]


def trace(fun: Callable[..., Any], *args: Any) -> ClosedJaxpr:
    """The jaxpr of a function of arrays (or of their types); calls in it inlined."""
    closed = jax.make_jaxpr(fun)(*args)
    return _inlined(closed, _call)


def trace_backward(fun: Callable[..., Any], *args: Any, scan: Rewrite) -> ClosedJaxpr:
    """The same of a backward pass, in which checkpoints are computed again."""
    closed = jax.make_jaxpr(fun)(*args)
    return _inlined(closed, partial(_backward, scan=scan))


def evaluate(closed: ClosedJaxpr, args: Sequence[Any], wanted: Sequence[Any]) -> Any:
    """Values of the wanted variables or literals, and nothing that they do not need."""
    part = cut(closed.jaxpr, wanted)
    return jax.core.eval_jaxpr(part, closed.consts, *args)


def cut(jaxpr: Jaxpr, wanted: Sequence[Any], eqns: Any = None) -> Jaxpr:
    """The jaxpr with the wanted outputs, and only the equations that they need."""
    needed = {x for x in wanted if is_variable(x)}
    kept = []
    for eqn in reversed(jaxpr.eqns if eqns is None else eqns):
        if needed.intersection(eqn.outvars):
            needed.update(filter(is_variable, eqn.invars))
            kept.append(eqn)
    return jaxpr.replace(eqns=kept[::-1], outvars=list(wanted))


def is_variable(atom: Any) -> bool:
    """Whether it is no literal."""
    return not isinstance(atom, Literal)


def producers(jaxpr: Jaxpr) -> dict[Var, JaxprEqn]:
    """The equation that each variable comes from."""
    return {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}


def name(eqn: JaxprEqn) -> str:
    """That of its primitive."""
    return eqn.primitive.name


def names_in(eqns: Iterable[JaxprEqn]) -> set[str]:
    """Those of all primitives, also of the jaxprs inside."""
    found = set()
    for eqn in eqns:
        found.add(name(eqn))
        for value in jax.tree.leaves(list(eqn.params.values())):
            if isinstance(value, ClosedJaxpr):
                found |= names_in(value.jaxpr.eqns)
            elif isinstance(value, Jaxpr):
                found |= names_in(value.eqns)
    return found


def placed_by(eqn: JaxprEqn) -> Any:
    """The sharding that an equation gives its input; None: it gives none."""
    key = {CONSTRAIN: "sharding", RESHARD: "dst_sharding"}.get(name(eqn))
    return None if key is None else eqn.params[key]


def body_of(eqn: JaxprEqn) -> ClosedJaxpr:
    """What a call, a checkpoint or a scan evaluates."""
    inner: Any = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return ClosedJaxpr(inner, ()) if isinstance(inner, Jaxpr) else inner


def scan_layout(eqn: JaxprEqn) -> tuple[int, int] | None:
    """How many constants and carried values a scan has; None where it does not say."""
    params: Any = eqn.params
    if "num_carry" in params:
        consts, carried = params["num_consts"], params["num_carry"]
    elif "ft_in" in params:  # from JAX 0.12 on
        consts, carried, _ = map(len, params["ft_in"].unpack())
    else:
        return None
    alike = len(body_of(eqn).jaxpr.outvars) == len(eqn.outvars)
    return (consts, carried) if alike else None


def flat_body(eqn: JaxprEqn) -> ClosedJaxpr:
    """That of a scan in a backward pass."""
    return flattened(body_of(eqn))


def flattened(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Part of a backward pass without calls, its scans as they are."""
    return _inlined(closed, partial(_backward, scan=lambda eqn, values: None))


def _inlined(closed: ClosedJaxpr, rewrite: Rewrite) -> ClosedJaxpr:
    types = [var.aval for var in closed.jaxpr.invars]
    return jax.make_jaxpr(partial(_run, closed, rewrite))(*types)


def _run(closed: ClosedJaxpr, rewrite: Rewrite, *args: Any) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atoms: Iterable[Any]) -> list[Any]:
        return [values[x] if is_variable(x) else x.val for x in atoms]

    for eqn in jaxpr.eqns:
        inputs = read(eqn.invars)
        outputs = rewrite(eqn, inputs)
        if outputs is None:
            outputs = _alone(jaxpr, eqn, inputs)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return read(jaxpr.outvars)


def _alone(jaxpr: Jaxpr, eqn: JaxprEqn, inputs: list[Any]) -> list[Any]:
    variables = {
        x: v for x, v in zip(eqn.invars, inputs, strict=True) if is_variable(x)
    }
    one = jaxpr.replace(
        constvars=[], invars=list(variables), outvars=eqn.outvars, eqns=[eqn]
    )
    return jax.core.eval_jaxpr(one, (), *variables.values())


def _call(eqn: JaxprEqn, inputs: list[Any]) -> list[Any] | None:
    return _run(body_of(eqn), _call, *inputs) if name(eqn) in CALLS else None


def _backward(eqn: JaxprEqn, inputs: list[Any], scan: Rewrite) -> list[Any] | None:
    again = partial(_backward, scan=scan)
    if name(eqn) in CHECKPOINTS:
        # As JAX does: behind the barrier nothing is computed before the cotangent is
        # there, nor shared with the forward pass.
        if eqn.params["prevent_cse"] not in (False, ()):
            inputs = lax.optimization_barrier(inputs)
        return _run(body_of(eqn), again, *inputs)
    if name(eqn) in CALLS:
        return _run(body_of(eqn), again, *inputs)
    return scan(eqn, inputs) if name(eqn) == SCAN else None
