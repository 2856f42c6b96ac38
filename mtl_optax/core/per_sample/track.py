"""Follows the batch through a backward pass, and shows that no sample meets another.

The pass is linear in the cotangent of the losses, `[B]`. A value is still, or it lies
in rows: what belongs to sample b depends on its entry of the cotangent alone; or it is
a total, a sum over samples, as the gradient of a parameter is. A total that meets
data of the batch again is how one sample reaches another (BatchNorm's statistics, a
mean before the loss, negatives in a contrastive loss): this raises, as does whatever
has no rule. Residuals may be anything, for the pass is linear whatever they hold.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.per_sample import flat
from mtl_optax.core.per_sample.rules import EITHER, FIRST, RULES, TOGETHER
from mtl_optax.core.per_sample.states import (
    Row,
    State,
    Still,
    Total,
    mixed,
    name_of,
    nonlinear,
    shape_of,
)
from mtl_optax.core.per_sample.sums import Sum, sum_of


class Tracker:
    """States of the variables of one flat program."""

    def __init__(self, closed: Any, batch: int, states: dict[Any, State]):
        self.closed = closed
        self.jaxpr = closed.jaxpr
        self.batch = batch
        self.states = states
        self.sums: dict[Any, Sum] = {}  # by the variable that holds the sum
        self.made = jaxprs.producers(self.jaxpr)
        self._consts = dict(zip(self.jaxpr.constvars, closed.consts, strict=True))
        for var in self.jaxpr.constvars:
            self.states.setdefault(var, Still())
        for eqn in self.jaxpr.eqns:
            if not self.states.keys() & set(eqn.outvars):
                results = self._step(eqn, [self.state(atom) for atom in eqn.invars])
                self.states.update(zip(eqn.outvars, results, strict=True))

    def state(self, atom: Any) -> State:
        """Of a variable or a literal."""
        if isinstance(atom, core.Literal):
            return Still(zero=bool(np.all(np.asarray(atom.val) == 0)))
        return self.states[atom]

    @property
    def inputs(self) -> list[State]:
        """States of the program's inputs."""
        return [self.state(var) for var in self.jaxpr.invars]

    def outputs(self) -> list[State]:
        """States of what it returns."""
        return [self.state(atom) for atom in self.jaxpr.outvars]

    def _step(self, eqn: Any, inputs: list[State]) -> list[State]:
        name = eqn.primitive.name
        if all(isinstance(state, Still) for state in inputs):
            return [_still(name, inputs)] * len(eqn.outvars)
        if name == "optimization_barrier":
            return inputs
        if name == "scan":
            return scanned(eqn, inputs, self.batch)[0]
        if name == "cond":
            return self._cond(eqn, inputs)
        if name not in RULES:
            mixed(eqn, "has no rule here that would say where the batch is")
        _check_linear(eqn, inputs)
        totals = [state for state in inputs if isinstance(state, Total)]
        rows = [state if isinstance(state, Row) else None for state in inputs]
        if totals:
            if any(rows) or any(s == Still(of_batch=True) for s in inputs):
                _back(eqn, totals[0])
            return [totals[0]] * len(eqn.outvars)
        row = RULES[name](eqn, rows, self)
        if row is None:
            self.sums[eqn.outvars[0]] = sum_of(eqn, rows, self.batch)
            return [Total(name_of(eqn))]
        return [row] * len(eqn.outvars)

    def _cond(self, eqn: Any, inputs: list[State]) -> list[State]:
        if not isinstance(inputs[0], Still):
            nonlinear(eqn)
        found: list[State] = [Still(zero=True)] * len(eqn.outvars)
        for branch in eqn.params["branches"]:
            flat_branch = jaxprs.flattened(branch)
            states = inside(flat_branch, inputs[1:], self.batch).outputs()
            if any(isinstance(state, Total) for state in states):
                mixed(eqn, "sums over the batch in one of its branches")
            found = [join(eqn, *pair) for pair in zip(found, states, strict=True)]
        return found

    def column(self, atom: Any, number: int) -> np.ndarray[Any, Any] | None:
        """Indices `atom[..., number]` where no input of the program decides on them."""
        value = self._static(atom)
        if value is not None:
            return value[..., number]
        eqn = self.made.get(atom)
        if eqn is None or eqn.primitive.name != "concatenate":
            return None
        if eqn.params["dimension"] != len(shape_of(atom)) - 1:
            return None
        for part in eqn.invars:
            width = shape_of(part)[-1]
            if number < width:
                return self.column(part, number)
            number -= width
        return None

    def _static(self, atom: Any) -> np.ndarray[Any, Any] | None:
        if isinstance(atom, core.Literal):
            return np.asarray(atom.val)
        if isinstance(self._consts.get(atom), np.ndarray):
            return self._consts[atom]
        eqns = flat.needed(self.jaxpr, [atom])
        made = {var for eqn in eqns for var in eqn.outvars}
        inputs = {v for eqn in eqns for v in flat.variables(eqn.invars)} - made
        if not eqns or inputs:
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(flat.evaluate(self.jaxpr, eqns, [], [atom], [])[0])


def inside(closed: Any, states: Sequence[State], batch: int) -> Tracker:
    """What is known in a flat body whose inputs are in these states."""
    return Tracker(closed, batch, dict(zip(closed.jaxpr.invars, states, strict=True)))


def scanned(
    eqn: Any, inputs: Sequence[State], batch: int
) -> tuple[list[State], Tracker]:
    """States of what a scan returns, and those inside its body."""
    layout = jaxprs.scan_layout(eqn)
    if layout is None:
        mixed(eqn, "has parameters that are not known here")
    first, carried = layout
    consts, carry = inputs[:first], list(inputs[first : first + carried])
    over = [_one_step(eqn, state) for state in inputs[first + carried :]]
    body = jaxprs.flat_body(eqn)
    while True:
        tracker = inside(body, [*consts, *carry, *over], batch)
        outputs = tracker.outputs()
        pairs = zip(carry, outputs[:carried], strict=True)
        joined = [join(eqn, *pair) for pair in pairs]
        if joined == carry:
            break
        carry = joined
    stacked = [
        Row(state.axis + 1, state.inner) if isinstance(state, Row) else state
        for state in outputs[carried:]
    ]
    return [*carry, *stacked], tracker


def _one_step(eqn: Any, state: State) -> State:
    if not isinstance(state, Row):
        return state
    if state.axis == 0:
        mixed(eqn, "runs along the batch (take jax.vmap in place of jax.lax.map)")
    return Row(state.axis - 1, state.inner)


def join(eqn: Any, one: State, other: State) -> State:
    """What is known of a value that is in either of two states."""
    if isinstance(one, Still) and isinstance(other, Still):
        return Still(one.of_batch or other.of_batch, one.zero and other.zero)
    for this, that in ((one, other), (other, one)):
        if isinstance(this, Still) and this.zero:
            return that
    if isinstance(one, Total) and isinstance(other, Total):
        return one
    if one != other:
        mixed(eqn, "brings the batch to another axis, step by step or by branch")
    return one


def _back(eqn: Any, total: Total) -> NoReturn:
    how = f"brings a sum over the batch, made by {total.where}, back to single samples"
    mixed(eqn, how)


def _still(name: str, inputs: Sequence[Any]) -> Still:
    moves = ("broadcast_in_dim", "convert_element_type", "copy", "pvary", "pcast")
    zero = name in (*moves, "reshape", "transpose") and all(s.zero for s in inputs)
    return Still(of_batch=any(s.of_batch for s in inputs) and not zero, zero=zero)


def _check_linear(eqn: Any, inputs: Sequence[State]) -> None:
    name, count = eqn.primitive.name, len(inputs)
    moving = [i for i, state in enumerate(inputs) if not isinstance(state, Still)]
    if not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
        nonlinear(eqn)  # rounded to whole numbers
    if name in EITHER | FIRST:
        alone = len(moving) == 1 and (name in EITHER or moving == [0])
        if not alone:
            nonlinear(eqn)
        return
    places = TOGETHER.get(name, lambda n: tuple(range(n)))(count)
    others = [inputs[i] for i in places if i not in moving]
    if not set(moving) <= set(places):
        nonlinear(eqn)
    if any(isinstance(state, Still) and not state.zero for state in others):
        nonlinear(eqn)
