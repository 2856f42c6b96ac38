"""Methods that ask for more than gradients, or contain the optimiser.

Each is a function of `Parts` and of its settings, and gives the whole transformation.
They are known to the command line by these names, but are no part of "all": a step of
them costs several of the others.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from mtl_optax.study.halves import joint_against_halves

UPDATES_AN_EPOCH = 4000 // 64  # of Multi-digits
LOOK_AHEAD = 0.01  # of the studies, see benchmarks/groups_tuning.py


class Parts(NamedTuple):
    """What such a method is made of."""

    num_tasks: int
    owner: Callable[[Any], Any]  # Problem.owner
    shared: Callable[[Any], Any]  # Problem.shared
    optimizer: optax.GradientTransformation
    key: jax.Array
    strength_fn: Callable[[Any, Any], Any] | None  # Problem.strength_fn


def keyed(method: Callable[..., Any], key: jax.Array) -> Callable[..., Any]:
    """The method, with the key if it is one that draws."""
    draws = "key" in inspect.signature(method).parameters
    return partial(method, key=key) if draws else method


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
    joint = mtl.on_shared(mtl.unitary(parts.num_tasks), parts.shared)
    return optax.chain(joint, only_grad_fn)


def _selective_groups(parts: Parts, **settings: Any) -> optax.GradientTransformation:
    return mtl.selective_groups(
        parts.num_tasks,
        parts.optimizer,
        owner=parts.owner,
        key=parts.key,
        **settings,
    )


def _watch(
    parts: Parts, ahead: Any, every_k: int
) -> optax.GradientTransformationExtraArgs:
    """TAG: plain steps of the rate `ahead`, or with None the steps of the training."""
    return mtl.task_affinity(
        parts.num_tasks,
        owner=parts.owner,
        learning_rate=ahead,
        optimizer=parts.optimizer if ahead is None else None,
        every_k=every_k,
    )


def tag(
    parts: Parts, ahead: Any = None, every_k: int = 10
) -> optax.GradientTransformation:
    """The plain sum, watched by TAG."""
    joint = mtl.on_shared(mtl.unitary(parts.num_tasks), parts.shared)
    return optax.chain(_watch(parts, ahead, every_k), joint, parts.optimizer)


def _nmt(
    parts: Parts, multiplier_lr: Any = 1e-3, stage_steps: Any = 250.0
) -> optax.GradientTransformation:
    """In the order of the tasks; heads move with the weights of their losses."""
    rule = mtl.nmt(
        parts.num_tasks,
        range(parts.num_tasks),
        multiplier_lr=multiplier_lr,
        stage_steps=stage_steps,
    )
    rule = mtl.on_shared(rule, parts.shared, rest="weights")
    return optax.chain(rule, parts.optimizer)


def _weighted(parts: Parts, later: Any = 1.0) -> optax.GradientTransformation:
    """The sum, with this weight for the second half of the tasks."""
    is_later = jnp.arange(parts.num_tasks) >= parts.num_tasks / 2
    rule = mtl.constant(parts.num_tasks, weights=jnp.where(is_later, later, 1.0))
    return optax.chain(mtl.on_shared(rule, parts.shared), parts.optimizer)


def _cso(
    parts: Parts, total_epochs: Any = 1.0, uniform: float | None = None
) -> optax.GradientTransformation:
    """CSO, which counts its epochs itself; `uniform` in place of its draws."""
    if parts.strength_fn is None:
        raise ValueError("cso needs a problem with connection strengths.")
    method = mtl.cso(
        parts.num_tasks,
        parts.optimizer,
        strength_fn=parts.strength_fn,
        total_epochs=total_epochs,
        key=parts.key,
        owner=parts.owner,
    )

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), method.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        step, inner = state
        epoch = step // UPDATES_AN_EPOCH
        updates, inner = method.update(
            *(updates, inner, params), epoch=epoch, uniform=uniform, **extra
        )
        return updates, (step + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _joint(parts: Parts, ahead: Any = LOOK_AHEAD) -> optax.GradientTransformation:
    """`tag`, measured at every step, and what steps of halves would have done.

    Under `jax.vmap` over runs a step that is not measured costs as much.
    """
    step = joint_against_halves(parts.num_tasks, parts.optimizer, parts.owner)
    return optax.chain(_watch(parts, ahead, every_k=1), step)


ASKING: dict[str, Callable[..., optax.GradientTransformation]] = {
    "f_mean": partial(_flat, mtl.mean),
    "f_mgda": partial(_flat, mtl.mgda),
    "f_pcgrad": partial(_flat, mtl.pcgrad),
    "f_cagrad": partial(_flat, mtl.cagrad),
    "f_imtl_g": partial(_flat, mtl.imtl_g),
    "sam": _sam,
    "selective_groups": _selective_groups,
    # The same with a preference that is a number, not the median.
    "selective_preference": partial(_selective_groups, preference=0.0),
    "joint": _joint,
    "nmt": _nmt,
    "weighted": _weighted,
    "tag": tag,
}

# Those of a problem with connection strengths, known to its study only.
OF_CHANNELS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "cso": _cso,
    "cso_phase_1": partial(_cso, uniform=1.0),
    "cso_phase_2": partial(_cso, uniform=-1.0),
}


def functions(losses_fn: Callable[[Any], tuple[jax.Array, ...]]) -> dict[str, Any]:
    """The extra arguments with which they ask, one each; unused ones cost nothing."""
    return {
        "task_grad_fn": mtl.task_grads_at(losses_fn),
        "group_grad_fn": mtl.group_grads_at(losses_fn),
        "losses_fn": losses_fn,
        "grad_fn": jax.grad(lambda params, _: sum(losses_fn(params))),
    }
