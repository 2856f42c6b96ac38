"""Methods that ask for more than gradients, or contain the optimiser.

Each is a function of `Parts` and of its settings, and gives the whole transformation.
They are known to the command line by these names, but are no part of "all": a step of
them costs several of the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

import mtl_optax as mtl
from mtl_optax.study.group_methods import GROUPS
from mtl_optax.study.parts import Parts, among_tasks, keyed
from mtl_optax.study.priority_methods import ORDERED


def _flat(
    method: Callable[..., optax.GradientTransformation],
    parts: Parts,
    rho_shared: Any = 0.05,
) -> optax.GradientTransformation:
    """F- and the method: radius 0.05 is the default of the authors' Multi-MNIST."""
    aggregator = keyed(method, parts.key)(parts.num_tasks)
    rule = mtl.flat_mtl(aggregator, rho_shared=rho_shared, shared=parts.shared)
    return optax.chain(rule, parts.optimizer)


def _sam(parts: Parts, rho_shared: Any = 0.05) -> optax.GradientTransformation:
    """One perturbation, along the gradient of the sum, for all tasks: the control."""
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(rho_shared))
    sam = optax.contrib.sam(parts.optimizer, uphill, opaque_mode=True)

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: Any, **extra: Any
    ) -> tuple[Any, Any]:
        del extra  # optax's sam takes no other
        return sam.update(updates, state, params, grad_fn=grad_fn)

    only_grad_fn = optax.GradientTransformationExtraArgs(sam.init, update)
    joint = among_tasks(mtl.unitary(parts.num_tasks), parts.shared)
    return optax.chain(joint, only_grad_fn)


ASKING: dict[str, Callable[..., optax.GradientTransformation]] = {
    "f_mean": partial(_flat, mtl.mean),
    "f_mgda": partial(_flat, mtl.mgda),
    "f_pcgrad": partial(_flat, mtl.pcgrad),
    "f_cagrad": partial(_flat, mtl.cagrad),
    "f_imtl_g": partial(_flat, mtl.imtl_g),
    "sam": _sam,
    **GROUPS,
    **ORDERED,
}


def functions(losses_fn: Callable[[Any], tuple[jax.Array, ...]]) -> dict[str, Any]:
    """The extra arguments with which they ask, `sam` with the second."""
    return {
        "losses_fn": losses_fn,
        "grad_fn": jax.grad(lambda params, _: sum(losses_fn(params))),
    }
