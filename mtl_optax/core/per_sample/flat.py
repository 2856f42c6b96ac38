"""Parts of a flat program, evaluated from any of its variables to any others."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from mtl_optax.core.layerwise.jaxprs import cut, is_variable


def evaluate(
    jaxpr: Any, eqns: Sequence[Any], inputs: Sequence[Any], outputs: Any, args: Any
) -> list[Any]:
    """Values of the atoms `outputs`, for those of `inputs`, by these equations."""
    pairs = zip(inputs, args, strict=True)
    given = {var: value for var, value in pairs if is_variable(var)}
    part = jaxpr.replace(
        constvars=[], invars=list(given), outvars=list(outputs), eqns=list(eqns)
    )
    return jax.core.eval_jaxpr(part, (), *given.values())


def needed(jaxpr: Any, outputs: Sequence[Any]) -> list[Any]:
    """The equations that these atoms come from, in order."""
    return cut(jaxpr, outputs).eqns


def variables(atoms: Sequence[Any]) -> Iterator[Any]:
    """Those that are no literals."""
    return filter(is_variable, atoms)


def read(values: dict[Any, Any], atom: Any) -> Any:
    """The value of a variable, or a literal's."""
    return values[atom] if is_variable(atom) else atom.val
