"""Methods of the engine, told when the trunk stands still and how the rate falls."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.transformations import Ingredients, Method, OnTwoBatches


def in_halves(method: Method) -> Method:
    """Multiplies the steps of a method by the rate of the problem; frozen ones by 0."""
    if isinstance(method, OnTwoBatches):
        return OnTwoBatches(in_halves(method.make))

    def made(of: Ingredients, **settings: Any) -> optax.GradientTransformationExtraArgs:
        inner = optax.with_extra_args_support(method(of, **settings))

        def update(
            updates: Any, state: Any, params: Any = None, **extra: Any
        ) -> tuple[Any, Any]:
            updates, state = inner.update(updates, state, params, **extra)
            half = extra["statistics"]
            of_trunk = jnp.where(half.frozen, 0, half.rate)
            updates = jax.tree.map(
                lambda x, shared: x * (of_trunk if shared else half.rate),
                *(updates, of.problem.shared(params)),
            )
            return updates, state

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return made


ARMS: dict[str, Callable[..., Any]] = {
    name: in_halves(method) for name, method in METHODS.items()
}
