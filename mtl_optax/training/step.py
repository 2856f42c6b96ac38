"""One training step and one evaluation step, compiled: what the loop calls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import mtl_optax as mtl
from mtl_optax.data.dataset import Task
from mtl_optax.training import kinds
from mtl_optax.training.networks import forward


class State(NamedTuple):
    """All that a run is; every leaf is an array."""

    params: Any
    rest: Any  # batch statistics and counters of the network
    opt_state: Any
    step: jax.Array  # [] int32, steps done
    broken: jax.Array  # [T] int32, steps in which the task's loss was not finite


class Program(NamedTuple):
    """What is trained: the network's structure, the tasks, the method."""

    graph: Any  # of the network
    tasks: tuple[Task, ...]
    tx: optax.GradientTransformationExtraArgs
    seed: int
    steps_an_epoch: int
    epochs: int
    with_active: bool  # whether a batch may lack a task
    convention: str  # of metrics


def start(program: Program, net: nnx.Module) -> State:
    """Of a new run."""
    parts: Any = nnx.split(net, nnx.Param, ...)
    _, params, rest = parts
    zeros = jnp.zeros(len(program.tasks), jnp.int32)
    return State(params, rest, program.tx.init(params), jnp.zeros((), jnp.int32), zeros)


def train_step(
    program: Program, state: State, batch: Any, second: Any = None
) -> tuple[State, dict[str, jax.Array]]:
    """A step on a batch; `second` is one of validation data, for bilevel methods.

    Returns the new state and, as a flat dict for a logger, each task's loss and what
    the method did.
    """
    names = [task.name for task in program.tasks]
    key = jax.random.fold_in(jax.random.key(program.seed), state.step)
    epoch = state.step // program.steps_an_epoch
    ask = _losses_fn(program, state.rest, key, epoch)

    def losses_fn(params: Any) -> Any:
        return ask(params, batch)

    (losses, rest), grads = mtl.lazy_task_grads(losses_fn, has_aux=True)(state.params)
    extra: dict[str, Any] = {
        "losses_fn": lambda params: losses_fn(params)[0],
    }
    if program.with_active:
        extra["active"] = kinds.active(program.tasks, batch["targets"])
    if second is not None:
        extra["validation_losses_fn"] = lambda params: ask(params, second)[0]
        if program.with_active:
            extra["validation_active"] = kinds.active(program.tasks, second["targets"])
    updates, opt_state = program.tx.update(
        grads, state.opt_state, state.params, **extra
    )
    params = optax.apply_updates(state.params, updates)
    broken = state.broken + ~jnp.isfinite(losses)
    report = {f"loss/{name}": losses[t] for t, name in enumerate(names)}
    report |= _of_method(opt_state, names)
    return State(params, rest, opt_state, state.step + 1, broken), report


def eval_step(program: Program, params: Any, rest: Any, batch: Any) -> Any:
    """Counts of every task over a batch, which add up over batches."""
    net = nnx.merge(program.graph, params, rest, copy=True)
    net.eval()
    outputs, _ = forward(net, batch["inputs"], key=None, epoch=0, epochs=1)
    outputs = kinds.entire_space(program.tasks, outputs)
    return {
        task.name: kinds.counts(
            *(task, outputs[task.name], batch["targets"][task.name]),
            program.convention,
        )
        for task in program.tasks
    }


def read(program: Program, counts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, of counts that were added over a split."""
    found = {
        task.name: kinds.scores(task, counts[task.name], program.convention)
        for task in program.tasks
    }
    return jax.tree.map(float, jax.device_get(found))


def _losses_fn(
    program: Program, rest: Any, key: jax.Array, epoch: jax.Array
) -> Callable[[Any, Any], tuple[dict[str, jax.Array], Any]]:
    """(params, batch) -> losses of the tasks, and the network's state after it."""

    def losses_fn(params: Any, batch: Any) -> tuple[dict[str, jax.Array], Any]:
        net = nnx.merge(program.graph, params, rest, copy=True)
        targets = batch["targets"]

        def losses_of(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            whole = kinds.entire_space(program.tasks, outputs)
            return {
                task.name: kinds.loss(task, whole[task.name], targets[task.name])
                for task in program.tasks
            }

        outputs, terms = forward(
            *(net, batch["inputs"]),
            key=key,
            epoch=epoch,
            epochs=program.epochs,
            losses_of=losses_of,
        )
        losses = losses_of(outputs)
        losses = {name: loss + terms.get(name, 0.0) for name, loss in losses.items()}
        return losses, nnx.state(net, nnx.Not(nnx.Param))

    return losses_fn


def _of_method(opt_state: Any, names: Sequence[str]) -> dict[str, jax.Array]:
    """What `mtl.metrics` reads; nothing of a method that keeps nothing."""
    try:
        return mtl.metrics(opt_state, names)
    except ValueError:
        return {}
