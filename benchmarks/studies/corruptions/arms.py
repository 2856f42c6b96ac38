"""Methods of the engine whose rate falls to 0 in each half of the training."""

from typing import Any

import jax
import optax

from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.transformations import Ingredients, Method


def in_halves(method: Method) -> Method:
    """Multiplies the steps of a method by the rate that the problem's state has."""

    def made(of: Ingredients, **settings: Any) -> optax.GradientTransformationExtraArgs:
        inner = optax.with_extra_args_support(method(of, **settings))

        def update(
            updates: Any, state: Any, params: Any = None, **extra: Any
        ) -> tuple[Any, Any]:
            updates, state = inner.update(updates, state, params, **extra)
            rate = getattr(extra.get("statistics"), "rate", 1.0)
            return jax.tree.map(lambda x: rate * x, updates), state

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return made


# The study's own, and some to try in place of the sum; others go at a constant rate.
ARMS: dict[str, Method] = {
    name: in_halves(METHODS[name])
    for name in ("unitary", "single_task", "pcgrad", "cagrad", "mgda", "imtl_g")
}
