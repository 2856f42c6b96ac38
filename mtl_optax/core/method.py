"""What makes a method of its rule: names, schedules, and the form that optax takes.

A method's file has one public factory, its rule, without the number of tasks. The
decorator adds that, and `.weighting`, which gives the rule itself to wrappers.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, cast, overload

import jax
import optax

from mtl_optax.core.aggregation import from_weighting
from mtl_optax.core.arguments import checks, names, schedules
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import (
    NumbersOrSchedule,
    ScalarOrSchedule,
    ScheduledState,
)
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.weighting import Weighting, for_tasks_only

P = ParamSpec("P")
_Marks = dict[str, inspect.Parameter]


class LossesMethod(Protocol[P]):
    """A factory that sees the losses."""

    weighting: Callable[P, Weighting]

    def __call__(
        self, num_tasks: int, *args: P.args, **kwargs: P.kwargs
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation for so many tasks."""


class GramianMethod(Protocol[P]):
    """A factory that sees the Gramian, of all leaves or of each block of them."""

    weighting: Callable[P, Weighting]

    @overload
    def __call__(
        self, num_tasks: int, *args: P.args, **kwargs: P.kwargs
    ) -> optax.GradientTransformationExtraArgs: ...

    @overload
    def __call__(
        self, num_tasks: int, *args: Any, granularity: Any, **kwargs: Any
    ) -> optax.GradientTransformationExtraArgs: ...


def losses_method(rule: Callable[P, Weighting]) -> LossesMethod[P]:
    """Makes a method of a rule that returns a weighting of losses."""
    return cast(LossesMethod[P], _method(rule, []))


def gramian_method(rule: Callable[P, Weighting]) -> GramianMethod[P]:
    """Makes a method of a rule that returns a weighting; adds `granularity=`."""
    return cast(GramianMethod[P], _method(rule, [_granularity(None)]))


def leafwise_method(rule: Callable[P, Weighting]) -> GramianMethod[P]:
    """The same where each leaf is a block, unless `granularity=` says otherwise."""
    return cast(GramianMethod[P], _method(rule, [_granularity("leaf")]))


def _granularity(default: str | None) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("granularity", kind, default=default, annotation=Any)


def transformation_method(
    factory: Callable[P, optax.GradientTransformationExtraArgs],
) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """Lets a factory of a transformation take values by name and by schedule."""
    marks, signature = _marks(factory), inspect.signature(factory)

    @functools.wraps(factory)
    def method(
        *args: P.args, **kwargs: P.kwargs
    ) -> optax.GradientTransformationExtraArgs:
        make = cast(Callable[..., Any], factory)

        def at(count: jax.Array | None) -> optax.GradientTransformationExtraArgs:
            values, own = _read(kwargs, marks, count)
            if own is None:
                return make(*args, **values)
            num_tasks = signature.bind(*args, **kwargs).arguments["num_tasks"]
            given = {f"The values of {factory.__name__}": own}
            names.agreed_names(given, num_tasks)
            return _comparing(make(*args, **values), own)

        return _rescheduled(at) if _changes(kwargs, marks) else at(None)

    return method


def weighting_wrapper(factory: Callable[P, Weighting]) -> Callable[P, Weighting]:
    """Lets a wrapper of a weighting take values by name and by schedule."""
    return cast(Callable[P, Weighting], _weighting(factory, wraps=True))


def _method(
    rule: Callable[..., Weighting], more: list[inspect.Parameter]
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    weighting = _weighting(rule)
    weighting.__qualname__ = f"{rule.__name__}.weighting"
    weighting.__doc__ = (
        f"The weighting of :func:`mtl_optax.{rule.__name__}`, with the same arguments "
        "but for the number of tasks."
    )

    @functools.wraps(rule)
    def method(
        num_tasks: int, *args: Any, **kwargs: Any
    ) -> optax.GradientTransformationExtraArgs:
        options = {p.name: kwargs.pop(p.name, p.default) for p in more}
        return from_weighting(weighting(*args, **kwargs), num_tasks, **options)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first = inspect.Parameter("num_tasks", kind, annotation=int)
    signature = inspect.signature(rule)
    parameters = [first, *signature.parameters.values(), *more]
    cast(Any, method).__signature__ = signature.replace(
        parameters=parameters, return_annotation=optax.GradientTransformationExtraArgs
    )
    method.__annotations__ = {p.name: p.annotation for p in parameters}
    method.__annotations__["return"] = optax.GradientTransformationExtraArgs
    cast(Any, method).weighting = weighting
    return method


def _weighting(
    rule: Callable[..., Weighting], wraps: bool = False
) -> Callable[..., Weighting]:
    """The rule, with arguments by name and by schedule."""
    name, marks = rule.__name__, _marks(rule)

    @functools.wraps(rule)
    def weighting(*args: Any, **kwargs: Any) -> Weighting:
        def at(count: jax.Array | None) -> Weighting:
            values, own = _read(kwargs, marks, count)
            made = rule(*args, **values)
            if not wraps:  # a wrapper hands on what its weighting takes
                made = made._replace(takes=checks.keywords(made.update))
            return _named(name, made, own)

        made = _scheduled(at) if _changes(kwargs, marks) else at(None)
        return for_tasks_only(made)

    return weighting


def _marks(factory: Callable[..., Any]) -> _Marks:
    """The arguments that are numbers, or have one value for each task."""
    parameters = inspect.signature(factory).parameters.values()
    kinds = PerTask, ScalarOrSchedule, NumbersOrSchedule
    return {p.name: p for p in parameters if p.annotation in kinds}


def _changes(kwargs: dict[str, Any], marks: _Marks) -> bool:
    return schedules.changes({key: kwargs[key] for key in marks.keys() & kwargs})


def _read(
    kwargs: dict[str, Any], marks: _Marks, count: jax.Array | None
) -> tuple[dict[str, Any], names.Names | None]:
    """The values at a step, dicts by name made vectors, and the names of these."""
    marked = {key: value for key, value in kwargs.items() if key in marks}
    if count is not None:
        marked = schedules.at_step(marked, count)
    for key, value in marked.items():
        optional = marks[key].default is None and value is None
        if marks[key].annotation == ScalarOrSchedule and not optional:
            checks.scalar(key, value)
    per_task = {k: v for k, v in marked.items() if marks[k].annotation == PerTask}
    vectors, own = names.read_all(per_task)
    return {**kwargs, **marked, **vectors}, own


def _named(name: str, made: Weighting, own: names.Names | None) -> Weighting:
    """The weighting that knows the names by which its arguments were given."""
    sources = {"The order or weighting": made.names, f"the values of {name}": own}
    known = names.agreed_names(sources)
    if known is None:
        return made

    def init(num_tasks: int) -> Any:
        names.agreed_names({f"The values of {name}": known}, num_tasks)
        return made.init(num_tasks)

    return made._replace(init=init, names=known)


def _scheduled(at: Callable[[jax.Array], Weighting]) -> Weighting:
    """The weighting that is made anew at each step."""
    first = at(schedules.first_step())

    def init(num_tasks: int) -> ScheduledState:
        return ScheduledState(schedules.first_step(), first.init(num_tasks))

    def update(
        gramian: jax.Array | None,
        state: ScheduledState,
        *,
        active: jax.Array,
        **extra: Any,
    ) -> tuple[jax.Array, ScheduledState]:
        now = at(state.count)
        weights, inner = now.update(gramian, state.inner, active=active, **extra)
        count = schedules.next_step(state.count, active)
        return weights, ScheduledState(count, inner)

    def due(state: ScheduledState) -> tuple[jax.Array, ScheduledState]:
        assert first.due is not None
        yes, inner = first.due(state.inner)
        return yes, state._replace(inner=inner)

    asked = None if first.due is None else due
    return first._replace(init=init, update=update, due=asked)


def _rescheduled(
    at: Callable[[jax.Array], optax.GradientTransformationExtraArgs],
) -> optax.GradientTransformationExtraArgs:
    """The transformation that is made anew at each step."""
    first = at(schedules.first_step())

    def init(params: optax.Params) -> ScheduledState:
        return ScheduledState(schedules.first_step(), first.init(params))

    def update(
        updates: Any,
        state: ScheduledState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[Any, ScheduledState]:
        now = at(state.count)
        new, inner = now.update(updates, state.inner, params, **extra_args)
        count = schedules.next_step(state.count, extra_args.get("active"))
        return new, ScheduledState(count, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _comparing(
    tx: optax.GradientTransformationExtraArgs, own: names.Names
) -> optax.GradientTransformationExtraArgs:
    """The transformation that compares its names with those of the gradients."""

    def update(
        updates: Any, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        about = {key: extra_args.get(key) for key in ("losses", "active")}
        # Names travel inside.
        named = as_task_grads(updates, len(own), params, names=own, **about)
        return tx.update(named, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)
