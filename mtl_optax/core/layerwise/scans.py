"""Last products inside a backward scan, taken out of it.

A scan over layers gives the gradients of stacked weights `[L, ...]` as one product a
step. Where rows pay, the scan gives the product's factors instead, and the products of
all layers follow behind it, side by side.
"""

from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.layerwise.forms import Rule
from mtl_optax.core.layerwise.last_products import FoundProduct, find


def products_behind(rule: Rule) -> jaxprs.Rewrite:
    """The rewriting of a scan's equation."""

    def rewrite(eqn: JaxprEqn, inputs: list[Any]) -> list[Any] | None:
        layout = jaxprs.scan_layout(eqn)
        if layout is None:
            return None
        body, carried = jaxprs.flat_body(eqn), layout[1]
        made_by = jaxprs.producers(body.jaxpr)
        found = {}
        for i, out in enumerate(body.jaxpr.outvars[carried:], carried):
            product = find(made_by, out)
            if isinstance(product, FoundProduct) and rule.rows_pay(product.sizes()):
                found[i] = product
        return _scan(eqn, layout, inputs, body, found) if found else None

    return rewrite


def _scan(
    eqn: JaxprEqn,
    layout: tuple[int, int],
    inputs: list[Any],
    body: ClosedJaxpr,
    found: dict[int, FoundProduct],
) -> list[Any]:
    num_consts, carried = layout
    consts, init = inputs[:num_consts], inputs[num_consts : num_consts + carried]
    over = inputs[num_consts + carried :]
    outs = body.jaxpr.outvars
    kept = [i for i in range(carried, len(outs)) if i not in found]
    factors = [var for product in found.values() for var in (product.d, product.x)]
    # What the body reads as it is need not be written once more, least of all what is
    # the same in all steps; of two factors one differs, or is taken to.
    names = body.jaxpr.invars
    read = dict(zip(names[num_consts + carried :], over, strict=True))
    same = dict(zip(names[:num_consts], consts, strict=True))
    for product in found.values():
        if product.d in same:
            same.pop(product.x, None)
    written = [v for v in dict.fromkeys(factors) if v not in read and v not in same]
    wanted = [*outs[:carried], *(outs[i] for i in kept), *written]

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        values = jaxprs.evaluate(body, [*consts, *carry, *xs], wanted)
        return values[:carried], values[carried:]

    params = eqn.params
    final, stacked = lax.scan(
        step,
        init,
        over,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    stacks = read | dict(zip(written, stacked[len(kept) :], strict=True))
    results: dict[int, Any] = dict(enumerate(final))
    results |= dict(zip(kept, stacked, strict=False))
    for i, product in found.items():
        results[i] = _beside_each_other(product, stacks, same)
    return [results[i] for i in range(len(outs))]


def _beside_each_other(
    product: FoundProduct, stacks: dict[Any, jax.Array], same: dict[Any, jax.Array]
) -> jax.Array:
    """The products of all steps, `[L, T, ...]`."""
    each = product.d, product.x
    of_tasks = jax.vmap(product.row, (product.axis, None))
    of_steps = jax.vmap(of_tasks, tuple(None if var in same else 0 for var in each))
    return of_steps(*(same[var] if var in same else stacks[var] for var in each))
