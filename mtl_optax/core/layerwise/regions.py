"""Which equations of linearised losses serve which tasks, and their transposition.

An equation serves the tasks that its outputs reach. Equations that serve the same set
of tasks are a region: a head serves one, a trunk all. Regions are transposed from
small sets to large: what serves one task plainly, so that no other task costs in it or
leaves a NaN in it; what serves several at once, with their cotangents stacked.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var

from mtl_optax.core.layerwise.jaxprs import (
    CONVOLUTION,
    SCAN,
    cut,
    is_variable,
    name,
    names_in,
)

_APART = "tasks leave one equation by outputs of their own"

Tasks = tuple[int, ...]
# What was pulled back to a variable: for some tasks a stack `[tasks, ...]`; for one
# task its cotangent as it is. With it, why it is in the form that it has.
Pieces = list[tuple[Tasks, Any, str]]
# (linear function, its inputs' types, tasks, stacked cotangents, which of the inputs
# are parameters, of each that no other region reaches the place among the parameters)
# -> for each input the pieces that are pulled back to it
Together = Callable[..., Sequence[Pieces]]


def pull_back(
    linear: ClosedJaxpr, ones: Sequence[Any], together: Together
) -> list[Pieces]:
    """For each input of a linear function of T outputs, what its outputs pull back.

    Args:
      linear: from tangents of the parameters to T scalars, flat.
      ones: T cotangents, each for its own output.
      together: transposes for a region of several tasks.
    """
    jaxpr = linear.jaxpr
    parameters = {var: at for at, var in enumerate(jaxpr.invars)}
    pieces: dict[Var, Pieces] = defaultdict(list)
    for task, (out, one) in enumerate(zip(jaxpr.outvars, ones, strict=True)):
        if is_variable(out):
            pieces[out].append(((task,), one, ""))
    depends = depends_on_inputs(linear)
    regions = _regions(linear, depends)
    elsewhere = _read_twice(regions).union(filter(is_variable, jaxpr.outvars))
    for served, eqns, apart in regions:
        made = [var for eqn in eqns for var in eqn.outvars if var in pieces]
        groups = _alike(served, made, pieces) if apart else [(served, made)]
        for tasks, outs in groups:
            inputs = inputs_of(eqns, outs, depends)
            function = cut_out(linear, eqns, inputs, outs, depends)
            types = [var.aval for var in inputs]
            cotangents = [_for_tasks(pieces[out], tasks) for out in outs]
            if len(tasks) == 1:
                why = "one task reaches it" if len(served) == 1 else _APART
                values = jax.linear_transpose(function, *types)(cotangents)
                pulled: Sequence[Pieces] = [[(tasks, value, why)] for value in values]
            else:
                leaves = [var in parameters for var in inputs]
                places = [
                    None if apart or var in elsewhere else parameters.get(var)
                    for var in inputs
                ]
                pulled = together(function, types, tasks, cotangents, leaves, places)
            for var, found in zip(inputs, pulled, strict=True):
                pieces[var].extend(found)
    return [pieces[var] for var in jaxpr.invars]


def _read_twice(regions: Sequence[tuple[Tasks, list[JaxprEqn], bool]]) -> set[Var]:
    """Variables that several regions read."""
    reads = Counter[Var]()
    for _, eqns, _ in regions:
        atoms: set[Any] = {x for eqn in eqns for x in eqn.invars if is_variable(x)}
        reads.update(atoms)
    return {var for var, times in reads.items() if times > 1}


def depends_on_inputs(linear: ClosedJaxpr) -> set[Var]:
    """Variables that depend on an input; the others are constants."""
    found = set(linear.jaxpr.invars)
    for eqn in linear.jaxpr.eqns:
        if found.intersection(filter(is_variable, eqn.invars)):
            found.update(eqn.outvars)
    return found


def served(
    linear: ClosedJaxpr, depends: set[Var]
) -> tuple[list[tuple[JaxprEqn, Tasks]], dict[Var, set[int]]]:
    """The tasks that each equation serves, the last equation first, and each variable.

    Without equations that serve none or do not depend on an input.
    """
    serves: dict[Var, set[int]] = defaultdict(set)
    for task, out in enumerate(linear.jaxpr.outvars):
        if is_variable(out):
            serves[out].add(task)
    found = []
    for eqn in reversed(linear.jaxpr.eqns):
        tasks = set().union(*(serves[var] for var in eqn.outvars))
        inputs = [x for x in eqn.invars if is_variable(x) and x in depends]
        if tasks and inputs:
            found.append((eqn, tuple(sorted(tasks))))
            for var in inputs:
                serves[var] |= tasks
    return found, serves


def _regions(
    linear: ClosedJaxpr, depends: set[Var]
) -> list[tuple[Tasks, list[JaxprEqn], bool]]:
    """Equations by the set of tasks that they serve, small sets first.

    What an equation reads serves its tasks and perhaps more: so in this order all
    cotangents of a region's outputs are there when it comes. With each whether its
    tasks go apart.
    """
    last_first, serves = served(linear, depends)
    found: dict[Tasks, list[JaxprEqn]] = defaultdict(list)
    for eqn, tasks in last_first:
        found[tasks].append(eqn)
    return [
        (tasks, eqns, apart)
        for tasks in sorted(found, key=len)
        for part, apart in _at_forks(found[tasks], serves)
        for eqns in _behind_convolutions(part)
    ]


def _at_forks(
    eqns: list[JaxprEqn], serves: dict[Var, set[int]]
) -> list[tuple[list[JaxprEqn], bool]]:
    """From the last equation to the first, those alone by whose outputs tasks part.

    There tasks go apart, for it may hold their heads; what lies before it, and scans,
    through which a zero goes like any other cotangent, serve all of them alike.
    """
    parts: list[tuple[list[JaxprEqn], bool]] = [([], False)]
    for eqn in eqns:
        outputs = {frozenset(serves[var]) for var in eqn.outvars if serves[var]}
        if len(outputs) > 1 and name(eqn) != SCAN:
            parts += [([eqn], True), ([], False)]
        else:
            parts[-1][0].append(eqn)
    return [(part[::-1], apart) for part, apart in parts if part]


def _behind_convolutions(eqns: list[JaxprEqn]) -> list[list[JaxprEqn]]:
    """First what follows the last convolution, then the rest.

    Tasks are pulled back through convolutions one by one, for together they are slower:
    what does not need to go with them should not.
    """
    last = max(
        (i for i, eqn in enumerate(eqns) if CONVOLUTION in names_in([eqn])), default=-1
    )
    return [part for part in (eqns[last + 1 :], eqns[: last + 1]) if part]


def _alike(
    served: Tasks, made: list[Var], pieces: dict[Var, Pieces]
) -> list[tuple[Tasks, list[Var]]]:
    """The region's tasks, those together that come in by the same outputs."""
    found: dict[tuple[Var, ...], list[int]] = defaultdict(list)
    for task in served:
        outs = (out for out in made if any(task in tasks for tasks, *_ in pieces[out]))
        found[tuple(outs)].append(task)
    return [(tuple(tasks), list(outs)) for outs, tasks in found.items()]


def inputs_of(eqns: list[JaxprEqn], outs: list[Var], depends: set[Var]) -> list[Var]:
    """What equations read from outside on the way to some of their outputs."""
    needed = set(outs)
    made: set[Var] = set()
    for eqn in reversed(eqns):
        if needed.intersection(eqn.outvars):
            made.update(eqn.outvars)
            needed.update(x for x in eqn.invars if is_variable(x) and x in depends)
    read = (x for eqn in eqns for x in eqn.invars if is_variable(x) and x in needed)
    return [x for x in dict.fromkeys(read) if x not in made]


def cut_out(
    linear: ClosedJaxpr,
    eqns: list[JaxprEqn],
    inputs: list[Var],
    outs: list[Var],
    depends: set[Var],
) -> Callable[..., list[Any]]:
    """From the region's inputs to some of its outputs, constants computed inside."""
    jaxpr = linear.jaxpr
    free = [e for e in jaxpr.eqns if not depends.intersection(e.outvars)]
    part = cut(jaxpr, outs, free + eqns).replace(invars=inputs)

    def function(*values: Any) -> list[Any]:
        return jax.core.eval_jaxpr(part, linear.consts, *values)

    return function


def _for_tasks(pieces: Pieces, tasks: Tasks) -> Any:
    """The sum of the pieces, for one task as it is, for several stacked.

    Zero for a task without a piece, which comes in by other outputs.
    """
    if len(tasks) == 1:
        return _row(pieces, tasks[0])
    whole = [value for among, value, _ in pieces if among == tasks]
    if len(whole) == 1 and all(a == tasks or not {*a} & {*tasks} for a, *_ in pieces):
        return whole[0]
    known = {task for among, *_ in pieces for task in among}
    rows = {task: _row(pieces, task) for task in tasks if task in known}
    zero = jnp.zeros_like(next(iter(rows.values())))
    return jnp.stack([rows.get(task, zero) for task in tasks])


def _row(pieces: Pieces, task: int) -> Any:
    rows = [
        value if len(among) == 1 else value[among.index(task)]
        for among, value, _ in pieces
        if task in among
    ]
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total
