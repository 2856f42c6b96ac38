"""one_of: several methods in one program, one of them at work in each lane."""

import operator
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.task_grads.as_task_grads import as_task_grads, is_lazy


class OneOfState(NamedTuple):
    """State of one_of."""

    states: tuple[Any, ...]  # of every transformation; only the chosen one's moves


def one_of(
    transformations: Sequence[optax.GradientTransformation], which: Any
) -> optax.GradientTransformationExtraArgs:
    """Does what one of the transformations does, chosen by a number that may be traced.

    With it methods become lanes of one program: a whole training run is written,
    compiled and started once, and `jax.vmap` takes it over methods as over seeds.

    Args:
      transformations: methods of this library or chains of them, for the same
        parameters. Their updates must agree in shapes and dtypes.
      which: index of the one at work, an int or an int array `[]`, the same at each
        step.

    Returns:
      A transformation with the extra arguments of all of them: each takes its own and
      ignores the others'.

    Raises:
      ValueError: without transformations; for an index beyond them, if it is not
        traced (a traced one is clipped); in `update` if their updates do not agree.

    Cost: that of the chosen one where `which` is the same in all lanes, as without
    `jax.vmap`; of all of them in every lane where it differs between lanes. Gradients,
    and the Gramian that several methods read, are computed once a lane all the same, so
    the price is their T x T problems and one sum of gradients each. States of all are
    kept.

    When not to use it: for methods that ask for more gradients (`from_grad_fn`), or on
    large networks: every lane pays for all of them. A loop over methods around a
    program over seeds has the price of each alone, and compiles for each.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl
      >>> from mtl_optax.rl.one_of import one_of
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[4.0, 0.0], [0.0, 1.0]])}
      >>> def direction(which):
      ...     tx = one_of([mtl.unitary(2), mtl.imtl_g(2)], which)
      ...     return tx.update(grads, tx.init(params), params)[0]["w"]
      >>> jax.vmap(direction)(jnp.arange(2))
      Array([[4. , 1. ],
             [0.8, 0.8]], dtype=float32)
    """
    parts = tuple(inside(tx) for tx in transformations)
    if not parts:
        raise ValueError("one_of needs one transformation or more; got none.")
    if not isinstance(which, jax.core.Tracer):
        which = operator.index(which)
        if not 0 <= which < len(parts):
            raise ValueError(
                f"one_of: which={which} is no index of {len(parts)} transformations: "
                f"it must be from 0 to {len(parts) - 1}."
            )

    def init(params: optax.Params) -> OneOfState:
        return OneOfState(tuple(part.init(params) for part in parts))

    def update(
        updates: Any,
        state: OneOfState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, OneOfState]:
        if is_lazy(updates):  # once for all: what is in a branch stays in it
            about = {name: extra_args.get(name) for name in ("losses", "active")}
            updates = as_task_grads(updates, None, params, **about).computed()
        like: list[Any] = []  # of the updates of each

        def run(at: int) -> tuple[optax.Updates, OneOfState]:
            states = list(state.states)
            new, states[at] = parts[at].update(
                updates, states[at], params, **extra_args
            )
            like.append(jax.eval_shape(lambda: new))
            _check_alike(like[0], like[-1], at)
            return new, OneOfState(tuple(states))

        branches = [lambda at=at: run(at) for at in range(len(parts))]
        return jax.lax.switch(jnp.asarray(which, jnp.int32), branches)

    return placed(init, update, WRAPPER)


def _check_alike(first: Any, other: Any, at: int) -> None:
    one, two = (jax.tree_util.tree_flatten_with_path(x)[0] for x in (first, other))
    unlike = [f"{a} and {b}" for a, b in zip_longest(one, two) if a != b]
    if unlike:
        raise ValueError(
            f"one_of: the updates of transformations 0 and {at} must agree; got "
            f"{unlike[0]}. Probably one of them holds no method, so that gradients "
            "come out stacked: let each be a method or begin with one, as in "
            "optax.chain(mtl_optax.cagrad(num_tasks), ...)."
        )
