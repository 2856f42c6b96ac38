"""What `check_chain` says: what is wrong, the likely cause, the cure."""

from typing import Any

NO_METHOD = (
    "check_chain: the updates come out stacked on every leaf: there is no aggregator "
    "in this transformation. optax.apply_updates would broadcast every parameter to "
    "[T, ...] in silence. Put one first: "
    "optax.chain(mtl_optax.mgda(num_tasks), ...)."
)
PARAMS_DROPPED = (
    "check_chain: a wrapper around a method calls its update without params, so that "
    "the method cannot tell gradients that are not stacked where their leaves begin "
    "with an axis of length T anyway. Pass params on in the wrapper; or give "
    "check_chain the gradients of the training loop, gradients=."
)
_FREEZE = (
    "To freeze it outside the method's view: optax.chain(optax.transforms.freeze("
    "mask), method, optimiser), or, in optax.partition, "
    "optax.chain(mtl_optax.unitary(num_tasks), optax.set_to_zero()). To freeze it in "
    "the method's view: optax.chain(method, optimiser, optax.transforms.freeze(mask))"
)


def before(names: list[str]) -> str:
    """Something before a method does more than multiply entries by numbers."""
    part = f" ({', '.join(names)})" if names else ""
    call = f"{names[0]}(...)" if len(names) == 1 else "it"
    return (
        f"check_chain: what stands before the method{part} changes every task's "
        "gradient before the method sees it. It is given all tasks at once there, [T, "
        "*param]: norms are joint over tasks, what it adds (decay, noise) enters the "
        "Gramian and comes out once a task, and axes are taken for those of the "
        f"parameters. Put it behind the method, optax.chain(method, {call}, ...); "
        "or, to run it on each task's gradient, before it as "
        f"mtl_optax.per_task({call}, num_tasks)."
    )


def behind(wrapper: str, why: str) -> str:
    """Something behind a method, where it does not belong."""
    return (
        f"check_chain: inside mtl_optax.{wrapper} something stands behind the method "
        f"that does more than multiply its update by numbers of at least zero. {why}"
    )


def leaves(found: int, wanted: int) -> str:
    """The tree of updates is another one."""
    return (
        f"check_chain: the updates have {found} leaves, the parameters {wanted}, so "
        "that optax.apply_updates fails. A part of the chain gives another tree than "
        "it gets: leave it out, or wrap it so that it gives what it gets."
    )


def come_out_stacked(wrong: list[str], zero: list[str], same: list[str]) -> str:
    """Some leaves did not meet a method."""
    head = (
        f"check_chain: the updates of {', '.join(wrong)} come out stacked: these "
        "leaves met no method, and optax.apply_updates would broadcast the parameters "
        "to [T, ...] in silence. "
    )
    if len(zero) == len(wrong):
        return (
            f"{head}They come out zero: frozen by optax.set_to_zero, as in "
            "optax.partition, selective_transform or masked, beside the method, where "
            f"what it freezes is still [T, *param]. {_FREEZE}."
        )
    if len(same) == len(wrong):
        return (
            f"{head}They come out as they went in: optax.masked around the method, or "
            "optax.identity beside it in optax.partition, passes them on (that is no "
            "freezing either). To train them, use mtl_optax.on_shared(method, mask) "
            "instead; or optax.partition, with mtl_optax.unitary(num_tasks) before "
            f"their optimiser. {_FREEZE}."
        )
    return (
        f"{head}Where optax.partition or optax.masked stands around the method, each "
        "group of leaves needs one: mtl_optax.unitary(num_tasks) before the optimiser "
        "of leaves that the method should not see; or use "
        f"mtl_optax.on_shared(method, mask). {_FREEZE}."
    )


def state_grows(name: str, was: Any, now: Any) -> str:
    """Something keeps state before a method."""
    return (
        f"check_chain: the state {name} changes shape in one update, from {was} to "
        f"{now}: a stateful transformation (Adam, trace, ema, ...) stands before the "
        "aggregator and mixes the tasks' gradients by broadcasting. Put the aggregator "
        "first, optax.chain(aggregator, optax.adam(...)); to run a transformation on "
        "each task's gradient use mtl_optax.per_task."
    )


def state_changes_dtype(name: str, was: Any, now: Any) -> str:
    """The state is not that of the next step."""
    return (
        f"check_chain: the state {name} changes dtype in one update, from {was} to "
        f"{now}, so jax.lax.scan cannot carry it. Under optax.inject_hyperparams pass "
        "hyperparam_dtype=jnp.float32."
    )
