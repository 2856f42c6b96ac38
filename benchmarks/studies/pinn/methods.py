"""Methods with an optimiser of their own: M-ConFIG, and L-BFGS on the plain sum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

import mtl_optax as mtl
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.engine.transformations import Ingredients

MCONFIG, LBFGS = "mconfig", "lbfgs"


def mconfig(of: Ingredients) -> optax.GradientTransformation:
    """It contains its Adam; the rate follows."""
    own = mtl.mconfig(of.num_tasks)
    return optax.chain(own, optax.scale_by_learning_rate(of.rate))


class LBFGSState(NamedTuple):
    """Of L-BFGS, with what its line searches have cost."""

    passes: jax.Array  # [] int32, gradients of the sum so far
    optimizer: Any


def lbfgs(of: Ingredients) -> optax.GradientTransformationExtraArgs:
    """Optax's, whose line search finds the rate: that of the engine is not used."""
    optimizer = optax.lbfgs()
    total = mtl.unitary(of.num_tasks)

    def init(params: Any) -> Any:
        return LBFGSState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(
        updates: Any, state: LBFGSState, params: Any = None, *, losses_fn: Any, **_: Any
    ) -> tuple[Any, LBFGSState]:
        def value_fn(params: Any) -> jax.Array:
            return jnp.sum(jnp.stack(losses_fn(params)))

        grads, _ = total.update(updates, total.init(params), params)
        updates, own = optimizer.update(
            *(grads, state.optimizer, params),
            value=value_fn(params),
            grad=grads,
            value_fn=value_fn,
        )
        tried = optax.tree.get(own, "num_linesearch_steps").astype(jnp.int32)
        return updates, LBFGSState(state.passes + 1 + tried, own)

    return optax.GradientTransformationExtraArgs(init, update)


METHODS = {MCONFIG: mconfig, LBFGS: lbfgs}
ONE_PASS = ("unitary", MCONFIG)  # a step; of T tasks the others take T


def passes(method: str, own: MethodResult, records: int, steps: int) -> NDArray:
    """Backward passes up to each record, mean over seeds, `[records]`.

    Args:
      method: its name.
      own: what it did.
      records: how many there are.
      steps: of the whole training.
    """
    if "passes" in own.readings:
        return own.readings["passes"][:, 0].mean(axis=1)
    each = 1 if method in ONE_PASS else own.score.shape[-1]
    return each * steps * np.arange(1, records + 1) / records
