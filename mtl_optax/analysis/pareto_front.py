"""A whole Pareto front in one program: one run for each preference, all at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mtl_optax.analysis.pareto import hypervolume, pareto_mask, spacing
from mtl_optax.core.arguments.checks import static_int, task_vector
from mtl_optax.core.arguments.losses import losses_vector, names_of, stack_losses
from mtl_optax.core.arguments.names import Names, agreed_names, by_position
from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads
from mtl_optax.core.weighting import check_transformation

MethodOf = Callable[[Any], Any]


class ParetoFront(NamedTuple):
    """What :func:`pareto_front` trained."""

    params: Any  # leaves [N, *param], of the run for each preference
    losses: jax.Array  # [N, T] at the end
    non_dominated: jax.Array  # [N] bool
    hypervolume: jax.Array  # scalar
    spacing: jax.Array  # scalar, Schott's, among those that are not dominated
    preferences: jax.Array  # [N, T] as given
    reference: jax.Array  # [T] of the hypervolume


def pareto_front(
    method_of: MethodOf,
    preferences: Any,
    *,
    losses_fn: Callable[..., Any],
    params: Any = None,
    starts: Any = None,
    steps: int | None = None,
    batches: Any = None,
    optimizer: Any = None,
    evaluate: Callable[[Any], Any] | None = None,
    reference: Any = None,
    chunk_size: int | None = None,
) -> ParetoFront:
    r"""Trains one network for each preference, all of them in one compiled program.

    Args:
      method_of: preference `[T]` -> a method for T tasks, for example
        `lambda p: mtl.tchebycheff(T, preference=p)`. It is called on tracers. Of
        one that takes no preference all runs are the same.
      preferences: `[N, T]`, not negative, for example :func:`simplex_lattice`.
      losses_fn: `losses_fn(params) -> losses`, a dict (tasks in order of sorted names)
        or tuple of T scalars, or an array; `losses_fn(params, batch)` with `batches`.
      params: where every run starts, a tree of floating arrays.
      starts: in place of `params` a start for each run, leaves `[N, *param]`.
      steps: of each run, a Python int; with `batches` there are as many as batches.
      batches: a tree whose leaves have a leading axis of steps; every run sees the same
        ones. None where `losses_fn` takes none.
      optimizer: what follows the method; None is `optax.adam(1e-2)`.
      evaluate: params -> losses, by which the front is judged, for example on test
        data; None is `losses_fn`, which with `batches` needs one.
      reference: `[T]` or a dict by task name, of the hypervolume; None is the worst
        loss of each task among the runs, for which the ends of the front count nothing.
        Give one to compare.
      chunk_size: so many runs at a time, one group after the other, for less memory;
        None is all at once. (Runs whose `preferences` are sharded over devices are
        trained where these are; on Explicit axes call it within `jax.set_mesh`, with
        starts made there.)

    Returns:
      A :class:`ParetoFront`. Runs that end in a NaN are not among the non-dominated and
      count nothing. It may itself be jitted and vmapped, over seeds for example.

    Raises:
      ValueError: for preferences that are not `[N, T]`, negative or all zero in a row;
        for losses of another number of tasks, or with other names where they are
        judged; for a reference that is not `[T]`; for a method for another number, what
        is no method or no optimiser; for `params` and `starts` both or neither, or
        starts of another N; for `steps` that are missing or differ from the batches;
        for `batches` without `evaluate`.

    Cost: of each step N forward passes and N times the method's backward passes (one
    for methods that see the losses alone), in programs of N lanes; memory for N
    networks, their optimiser, and their activations, or those of a chunk.

    When not to use it: to find out how one trade-off generalises, where one run is
    enough; or for networks that fill the machine by themselves: N lanes of those are no
    faster than one after the other.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> front = mtl.pareto_front(
      ...     lambda p: mtl.tchebycheff(2, preference=p),
      ...     mtl.simplex_lattice(2, 4)[1:-1],
      ...     losses_fn=lambda x: (jnp.sum((x - 1) ** 2), jnp.sum((x + 1) ** 2)),
      ...     params=jnp.zeros(1),
      ...     steps=500,
      ...     reference=[4.0, 4.0],
      ... )
      >>> front.losses.round(1)[:, 0], bool(front.non_dominated.all())
      (Array([1.6, 1. , 0.5], dtype=float32), True)

    References:
      Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep Multi-Objective
      Learning <https://arxiv.org/abs/2103.13392>`_, 2021: one network in place of N.
    """
    preferences = _preferences(preferences)
    count, num_tasks = preferences.shape
    first, starts = _starts(params, starts, count)
    steps = _num_steps(steps, batches)
    evaluate = _evaluation(evaluate, losses_fn, batches)
    names = _check(method_of, losses_fn, evaluate, first, batches, num_tasks)
    if reference is not None:
        reference = task_vector(
            "reference", by_position(reference, "reference", names), num_tasks
        )
    after = optax.adam(1e-2) if optimizer is None else optimizer
    if not hasattr(after, "update"):
        raise ValueError(
            "optimizer= is what follows the method, for example optax.adam(1e-2); got "
            f"{getattr(after, '__name__', repr(after))}."
        )

    def run(given: tuple[jax.Array, Any]) -> tuple[Any, jax.Array]:
        preference, start = given
        tx = optax.chain(method_of(preference), after)
        end = _train(tx, losses_fn, start, batches, steps)
        return end, losses_vector(evaluate(end), num_tasks)

    @jax.jit
    def every(given: tuple[jax.Array, Any]) -> tuple[Any, jax.Array]:
        size = count if chunk_size is None else static_int("chunk_size", chunk_size)
        if size >= count:
            return jax.vmap(run, in_axes=((0, None if starts is None else 0),))(given)
        if starts is None:
            shared = given[1]
            return lax.map(lambda p: run((p, shared)), given[0], batch_size=size)
        return lax.map(run, given, batch_size=size)

    ends, losses = every((preferences, first if starts is None else starts))
    return judged(ends, losses, preferences, reference)


def judged(ends: Any, losses: Any, preferences: Any, reference: Any) -> ParetoFront:
    """The measures of runs that have ended."""
    kept = pareto_mask(losses)
    if reference is None:
        reference = jnp.max(
            losses, axis=0, where=jnp.isfinite(losses), initial=-jnp.inf
        )
        reference = jnp.where(jnp.isfinite(reference), reference, 0)
    reference = jnp.asarray(reference, losses.dtype)
    volume, even = hypervolume(losses, reference), spacing(losses, kept)
    return ParetoFront(ends, losses, kept, volume, even, preferences, reference)


def _train(
    tx: optax.GradientTransformationExtraArgs,
    losses_fn: Callable[..., Any],
    start: Any,
    batches: Any,
    steps: int,
) -> Any:
    def step(carry: tuple[Any, Any], batch: Any) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        at = () if batches is None else (batch,)
        _, grads = lazy_task_grads(losses_fn)(params, *at)
        again = lambda p: losses_fn(p, *at)  # noqa: E731, for methods that ask again
        updates, state = tx.update(grads, state, params, losses_fn=again)
        return (optax.apply_updates(params, updates), state), None

    length = steps if batches is None else None
    return lax.scan(step, (start, tx.init(start)), batches, length=length)[0][0]


def _preferences(given: Any) -> jax.Array:
    array = jnp.asarray(given)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            "preferences must be [N, T], one row a run and one column a task; got "
            f"shape {array.shape}. One preference is a row of its own: p[None, :]."
        )
    array = array.astype(jnp.result_type(float))
    if isinstance(array, jax.core.Tracer) or not array.is_fully_addressable:
        return array
    values = np.asarray(array)
    wrong = np.flatnonzero(
        ~(values >= 0).all(axis=1) | ~np.isfinite(values).all(axis=1)
    )
    if wrong.size:
        raise ValueError(
            "preferences must be finite and not negative: they say how much a task "
            f"matters; row {wrong[0]} is {values[wrong[0]].tolist()}."
        )
    zero = np.flatnonzero(values.sum(axis=1) == 0)
    if zero.size:
        raise ValueError(
            f"Row {zero[0]} of preferences is zero in every task, so that its run "
            "would train nothing: leave it out, or give one task a share."
        )
    return array


def _starts(params: Any, starts: Any, count: int) -> tuple[Any, Any]:
    """Parameters of one run, and those of each if they differ."""
    if (params is None) == (starts is None):
        raise ValueError(
            "pareto_front takes params=, the start of every run, or starts=, one for "
            "each with leaves [N, *param]; got "
            f"{'both' if starts is not None else 'neither'}."
        )
    if starts is None:
        return params, None
    for path, leaf in jax.tree_util.tree_leaves_with_path(starts):
        if jnp.shape(leaf)[:1] != (count,):
            raise ValueError(
                f"starts{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, but "
                f"there are {count} preferences: every leaf must be [{count}, *param]. "
                "One start for all is params=."
            )
    return jax.tree.map(lambda x: x[0], starts), starts


def _num_steps(steps: int | None, batches: Any) -> int:
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if not sizes:
        if steps is None:
            raise ValueError(
                "pareto_front needs steps=, the number of updates of a run."
            )
        return static_int("steps", steps)
    if len(sizes) > 1 or sizes == {()}:
        raise ValueError(
            "Leaves of batches must share a leading axis, one entry a step; theirs are "
            f"{sorted(sizes)}."
        )
    (length,) = sizes.pop()
    if steps is not None and static_int("steps", steps) != length:
        raise ValueError(
            f"steps={steps}, but batches have {length} along their leading axis: leave "
            "steps out, or make as many batches."
        )
    return static_int("the number of batches", length)


def _evaluation(
    evaluate: Callable[[Any], Any] | None,
    losses_fn: Callable[..., Any],
    batches: Any,
) -> Callable[[Any], Any]:
    if evaluate is None and batches is not None:
        raise ValueError(
            "With batches= pareto_front needs evaluate=, by which the runs are judged, "
            "for example evaluate=lambda params: losses_fn(params, test_data)."
        )
    return losses_fn if evaluate is None else evaluate


def _check(
    method_of: MethodOf,
    losses_fn: Callable[..., Any],
    evaluate: Callable[[Any], Any],
    params: Any,
    batches: Any,
    num_tasks: int,
) -> Names | None:
    """Raises for what would fail inside the program, without computing anything.

    Returns the names of the tasks, if they have some.
    """
    if not callable(method_of):
        raise ValueError(
            "method_of takes a preference and returns a method, for example lambda p: "
            f"mtl.tchebycheff({num_tasks}, preference=p); got "
            f"{type(method_of).__name__}. For a method without a preference write "
            "lambda p: method."
        )
    if hasattr(method_of, "weighting"):
        name = getattr(method_of, "__name__", "a method")
        raise ValueError(
            f"method_of takes a preference and returns a method; {name} takes the "
            f"number of tasks. Write lambda p: mtl.{name}({num_tasks}, preference=p)."
        )
    batch = () if batches is None else (jax.tree.map(lambda x: x[0], batches),)
    returned = {
        "losses_fn": jax.eval_shape(losses_fn, params, *batch),
        "evaluate": jax.eval_shape(evaluate, params),
    }
    names = agreed_names({what: names_of(losses) for what, losses in returned.items()})
    for name, losses in returned.items():
        found = jax.eval_shape(stack_losses, losses).shape[0]
        if found != num_tasks:
            raise ValueError(
                f"{name} returns {found} losses, but preferences have {num_tasks} "
                "columns: one preference a task."
            )
    probe = jax.ShapeDtypeStruct((num_tasks,), jnp.result_type(float))
    jax.eval_shape(lambda p: _probe(method_of, p), probe)
    return names


def _probe(method_of: MethodOf, preference: Any) -> int:
    check_transformation("pareto_front: what method_of returns", method_of(preference))
    return 0
