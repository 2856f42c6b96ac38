"""Task weights that a chain will use, where they can be told before the gradients.

A method's weights may depend on the gradients, on the losses, or on its state alone. A
chain does not say which, but its trace does: it is run on gradients that only note what
is pulled, and what the weights there are made of is read from the program.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr

from mtl_optax.core.arguments.names import named
from mtl_optax.core.chains.places import unwatched
from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.weighed import NeedsRows, Pull, Weighed
from mtl_optax.core.trees.branches import zeros_of


class KnownWeights(NamedTuple):
    """Weights `[T]` as a function of what an update is given beside gradients."""

    program: ClosedJaxpr  # (leaves of the state, active, the rest) -> weights
    rest: list[Any]  # losses, parameters and extra arguments, flat
    pulls: list[Pull]  # which leaves each is for; the weights there are spent tracers
    by_state: bool  # whether nothing but the state and `active` tells them

    def weighed(
        self, gradients: TaskGrads, state: Any, active: jax.Array, counts: Any = 1
    ) -> Any:
        """The sum of the gradients `[*param]`, weighted and divided by counts `[T]`."""
        args = (*jax.tree.leaves(state), active, *self.rest)
        weights = jax.core.eval_jaxpr(self.program.jaxpr, self.program.consts, *args)
        like = gradients.like()
        leaves: list[Any] = [None] * len(jax.tree.leaves(like))
        for (kept, _, blocks), mine in zip(self.pulls, weights, strict=True):
            part = gradients if all(kept) else gradients.select(kept)
            mine = mine / jnp.broadcast_to(counts, mine.shape)
            new = iter(jax.tree.leaves(part.pull(mine, blocks)))
            leaves = [
                next(new) if keep else leaf
                for keep, leaf in zip(kept, leaves, strict=True)
            ]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)


def known_weights(
    inner: optax.GradientTransformationExtraArgs,
    state: Any,
    like: optax.Params,
    num_tasks: int,
    *,
    losses: jax.Array | None,
    params: optax.Params | None,
    names: tuple[Any, ...] | None = None,
    extra_args: Mapping[str, Any] = MappingProxyType({}),
) -> KnownWeights | None:
    """The weights that `inner` gives each leaf of gradients `like` one.

    None if it looks at single gradients, pulls a leaf twice or in a branch, or takes
    gradients for a tree.
    """
    pulls: list[Pull] = []
    arrays, with_arrays = _arrays_in(extra_args)
    rest = losses, params, arrays

    def ask(state: Any, active: jax.Array, rest: Any) -> list[jax.Array]:
        losses, params, arrays = rest
        asked = Weighed.of(zeros_of(like), num_tasks)
        about = {"losses": named(losses, names), "active": named(active, names)}
        try:
            inner.update(asked, state, params, **about, **with_arrays(arrays))
        except Exception as error:
            # What follows a method may miss an argument, which `tx.init` has not got.
            if isinstance(error, NeedsRows) or not asked.once_each():
                raise
        if not asked.once_each():
            raise NeedsRows
        pulls[:] = asked.pulls
        return [pull.weights for pull in asked.pulls]

    try:
        with unwatched():
            traced = jaxprs.trace(ask, state, jnp.ones(num_tasks, bool), rest)
    except Exception:  # a true one comes again, when the chain is run
        return None
    by_state = _needs_only(traced, len(jax.tree.leaves(state)) + 1)
    jaxpr = jaxprs.cut(traced.jaxpr, traced.jaxpr.outvars)
    program = ClosedJaxpr(jaxpr, traced.consts)
    return KnownWeights(program, jax.tree.leaves(rest), pulls, by_state)


def _needs_only(closed: ClosedJaxpr, count: int) -> bool:
    """Whether the program needs only its first inputs.

    Nor a tracer that the chain was made of: it may be another one at the next call.
    """
    jaxpr = closed.jaxpr
    part = jaxprs.cut(jaxpr, jaxpr.outvars)
    atoms = [*part.outvars, *(x for eqn in part.eqns for x in eqn.invars)]
    needed = {x for x in atoms if jaxprs.is_variable(x)}
    pairs = zip(jaxpr.constvars, closed.consts, strict=True)
    traced = {var for var, value in pairs if isinstance(value, jax.core.Tracer)}
    return not needed & (traced | {*jaxpr.invars[count:]})


def _arrays_in(extra_args: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The numbers among extra arguments, and what puts others in their place."""
    leaves, treedef = jax.tree.flatten(dict(extra_args))
    places = [at for at, leaf in enumerate(leaves) if _is_number(leaf)]

    def with_arrays(arrays: list[Any]) -> Any:
        new = dict(zip(places, arrays, strict=True))
        return jax.tree.unflatten(
            treedef, [new.get(at, leaf) for at, leaf in enumerate(leaves)]
        )

    return [leaves[at] for at in places], with_arrays


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, (int, float)) or hasattr(leaf, "dtype")
