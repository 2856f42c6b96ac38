"""Sums over the batch inside a backward scan, taken out of it.

A scan over layers makes one sum a step, for the weights of one layer; a scan over time
adds one a step to the gradient that it carries. In its place the scan gives the
operands of the sum, and the sums of all steps follow behind it: side by side, or over
batch and steps at once.
"""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.per_sample import flat
from mtl_optax.core.per_sample.leaves import Recipe, recipe
from mtl_optax.core.per_sample.states import Row, State, Still, Total, mixed
from mtl_optax.core.per_sample.track import Tracker, scanned


def hoisted(
    closed: Any, batch: int, inputs: Sequence[State], cotangent: Any = None
) -> Any:
    """The same program, flat, without sums over the batch inside scans.

    `inputs` are the states of its inputs; `cotangent` is the place among its outputs of
    the one from which the batch is followed.
    """
    tracker = tracked(closed, batch, inputs, cotangent)
    if not any(_sums_inside(tracker, eqn) for eqn in closed.jaxpr.eqns):
        return closed

    def without(*args: Any) -> list[Any]:
        values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(closed.jaxpr.invars, args, strict=True))
        for eqn in closed.jaxpr.eqns:
            read = [flat.read(values, atom) for atom in eqn.invars]
            if _sums_inside(tracker, eqn):
                results = _apart(tracker, eqn, read)
            else:
                results = flat.evaluate(
                    closed.jaxpr, [eqn], eqn.invars, eqn.outvars, read
                )
            values.update(zip(eqn.outvars, results, strict=True))
        return [flat.read(values, atom) for atom in closed.jaxpr.outvars]

    types = [var.aval for var in closed.jaxpr.invars]
    return jaxprs.trace(without, *types)


def tracked(
    closed: Any, batch: int, inputs: Sequence[State], cotangent: Any = None
) -> Tracker:
    """The states of a program's variables."""
    states = dict(zip(closed.jaxpr.invars, inputs, strict=True))
    if cotangent is not None:
        states[closed.jaxpr.outvars[cotangent]] = Row(0)
    return Tracker(closed, batch, states)


def _sums_inside(tracker: Tracker, eqn: Any) -> bool:
    made_here = eqn.primitive.name == "scan"
    return made_here and any(isinstance(tracker.state(v), Total) for v in eqn.outvars)


def _apart(outer: Tracker, eqn: Any, values: list[Any]) -> list[Any]:
    """What the scan returns, its sums made behind it."""
    layout = cast(tuple[int, int], jaxprs.scan_layout(eqn))
    first, carried = layout
    if any(isinstance(outer.state(x), Total) for x in eqn.invars):
        mixed(eqn, "carries on a sum over the batch from before")
    inputs = [outer.state(atom) for atom in eqn.invars]
    _, inner = scanned(eqn, inputs, outer.batch)
    body = hoisted(inner.closed, outer.batch, inner.inputs)
    inner = tracked(body, outer.batch, inner.inputs)
    outs, ins = inner.jaxpr.outvars, inner.jaxpr.invars
    recipes = {}
    for i, out in enumerate(outs):
        if isinstance(inner.state(out), Total):
            grown = _increment(inner, eqn, ins[first + i], out) if i < carried else out
            recipes[i] = grown and recipe(inner, grown)
    zero = [state == Still(zero=True) for state in inputs[first : first + carried]]
    return _scan(eqn, layout, values, inner, recipes, zero)


def _increment(inner: Tracker, eqn: Any, before: Any, after: Any) -> Any:
    """What one step adds to a carried sum; None for nothing."""
    if after is before:
        return None
    made = inner.made.get(after)
    if made is not None and made.primitive.name in ("add_any", "add"):
        one, other = made.invars
        for this, that in ((one, other), (other, one)):
            if this is before:
                return that
    return mixed(eqn, "carries a sum over the batch and does more than add to it")


def _scan(
    eqn: Any,
    layout: tuple[int, int],
    values: list[Any],
    inner: Tracker,
    recipes: dict[int, Recipe | None],
    zero: list[bool],
) -> list[Any]:
    first, carried = layout
    consts, init = values[:first], values[first : first + carried]
    over = values[first + carried :]
    ins, outs = inner.jaxpr.invars, inner.jaxpr.outvars
    kept = [i for i in range(len(outs)) if i not in recipes]
    kept_carry = [i for i in kept if i < carried]
    known = dict(zip(ins[:first], consts, strict=True))
    known.update(zip(inner.jaxpr.constvars, inner.closed.consts, strict=True))
    stacks = dict(zip(ins[first + carried :], over, strict=True))
    wanted = [x for r in recipes.values() if r is not None for x in r.wanted]
    written = [
        x
        for x in dict.fromkeys(flat.variables(wanted))
        if x not in known and x not in stacks
    ]
    for i in recipes:  # inside, the sum is nowhere
        if i < carried and (ins[first + i] in written):
            mixed(eqn, "carries a sum over the batch and does more than add to it")
    kept_ins = [ins[first + i] for i in kept_carry]
    targets = [outs[i] for i in kept] + written
    eqns = flat.needed(inner.jaxpr, targets)
    sources = [*known, *kept_ins, *stacks]

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        args = [*known.values(), *carry, *xs]
        found = flat.evaluate(inner.jaxpr, eqns, sources, targets, args)
        return found[: len(kept_carry)], found[len(kept_carry) :]

    final, stacked = lax.scan(
        step,
        [init[i] for i in kept_carry],
        over,
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    results = dict(zip(kept, [*final, *stacked], strict=False))
    stacks.update(zip(written, stacked[len(kept) - len(kept_carry) :], strict=True))
    for i, made in recipes.items():
        if made is None:
            results[i] = init[i]
        elif i < carried:
            grown = _over_steps(made, known, stacks)
            results[i] = grown if zero[i] else init[i] + grown
        else:
            results[i] = _side_by_side(made, known, stacks)
    return [results[i] for i in range(len(outs))]


def _side_by_side(made: Recipe, known: Any, stacks: Any) -> jax.Array:
    operands = [x for total in made.sums for x in total.eqn.invars]
    args = [*operands, *made.extras]
    values = [_value(x, known, stacks) for x in args]
    axes = [0 if _is_stacked(x, stacks) else None for x in args]

    def one(*values: Any) -> jax.Array:
        totals, start = [], 0
        for total in made.sums:
            end = start + len(total.eqn.invars)
            totals.append(total.whole(made.jaxpr, values[start:end]))
            start = end
        return made.behind(totals, values[start:])

    return jax.vmap(one, in_axes=axes)(*values)


def _over_steps(made: Recipe, known: Any, stacks: Any) -> jax.Array:
    if any(_is_stacked(x, stacks) for x in made.extras):
        return jnp.sum(_side_by_side(made, known, stacks), axis=0)
    totals = []
    for total in made.sums:
        atoms = total.eqn.invars
        values = [_value(x, known, stacks) for x in atoms]
        steps = [_is_stacked(x, stacks) for x in atoms]
        totals.append(total.over_steps(made.jaxpr, values, steps))
    extras = [_value(x, known, stacks) for x in made.extras]
    return made.behind(totals, extras)


def _value(atom: Any, known: Any, stacks: Any) -> Any:
    if _is_stacked(atom, stacks):
        return stacks[atom]
    return flat.read(known, atom)


def _is_stacked(atom: Any, stacks: Any) -> bool:
    return jaxprs.is_variable(atom) and atom in stacks
