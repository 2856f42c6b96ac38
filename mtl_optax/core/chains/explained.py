"""An error while a chain is traced, as one that names the misplaced part and the cure.

Which part it was, and where it stands, is read from the traceback: its frame holds the
method (around), or no method had its turn yet (before), or one had (behind).
"""

import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from mtl_optax.core.chains.tracing import Tracing, is_ours, part_of
from mtl_optax.core.task_grads.not_a_tree import MESSAGE as LAZY_IS_NO_TREE

# Wrappers with a cure of their own.
_CURES = {
    "MultiSteps": (
        "optax.MultiSteps around the method accumulates gradients of the parameters' "
        "shapes. Use mtl_optax.accumulate_tasks(chain, num_tasks, every_k) around the "
        "whole chain instead; or put optax.MultiSteps behind the method, which then "
        "aggregates every micro-batch."
    ),
    "apply_if_finite": (
        "optax.apply_if_finite around the method selects between stacked gradients and "
        "an update. Use mtl_optax.skip_nonfinite_tasks, which drops only the task that "
        "is not finite; or put apply_if_finite behind the method."
    ),
}


def explained(error: Exception, tracing: Tracing) -> str | None:
    """What to say of the error; None where it says all itself, as ours do."""
    text = str(error).strip().split("\n")[0][:300]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [i for i, frame in enumerate(frames) if is_ours(frame.f_code)]
    parts = [i for i, frame in enumerate(frames) if part_of(frame.f_code)]
    if isinstance(error, TypeError) and "keyword" in text and not parts:
        cure = _MISSING if "missing" in text else _KEYWORD
        return f"a part of the chain raised {_quoted(error, text)}. {cure}"
    if str(error) == LAZY_IS_NO_TREE and not tracing.methods:
        return f"{_name(frames[parts[-1]])} {_LAZY}" if parts else f"a part {_LAZY}"
    if ours and (not parts or ours[-1] > parts[-1]):
        outside = [i for i in parts if i < ours[0]]
        if not isinstance(error, ValueError):
            return None
        if outside:
            return _hands_over(frames[outside[-1]], text)
        if tracing.second:
            return f"{_SECOND} {text}"
        return f"{text} {_RESHAPED}" if tracing.reshaped else None
    if not parts:
        return _UNNAMED.format(_quoted(error, text))
    part = frames[parts[-1]]
    around = [frames[i] for i in parts if _holds(frames[i], tracing)]
    if around and around[-1] is part:
        return _around(part, error, text)
    if any(_name(frames[i]) == "per_task" for i in ours):
        return _inside(part, error, text)
    if not tracing.methods:
        return _before(part, error, text)
    if around:
        return _around(around[-1], error, text)
    return _behind(part, error, text)


_KEYWORD = (
    "It takes no extra arguments but its own: put it into "
    "mtl_optax.drop_extra_args(...), or give lazy gradients, which bring their losses "
    "along and need none."
)
_UNNAMED = (
    "a part of the chain raised {}. If it stands before the method it gets gradients "
    "stacked over tasks, [T, *param]: put it behind, optax.chain(method, ...), or into "
    "mtl_optax.per_task before the method."
)
_MISSING = (
    "Hand the extra arguments that it needs to check_chain, by name, as to tx.update."
)
_SECOND = (
    "a method stands behind another one, and gets its update instead of gradients of "
    "tasks. Keep one of them; or give each its leaves, mtl_optax.on_shared(method, "
    "mask) or optax.partition."
)
_LAZY = (
    "stands before the method. The gradients are lazy, and nothing but "
    "mtl_optax.task_affinity and watch_conflicts can stand between them and a method: "
    "stack them, with mtl_optax.task_grads, or put it behind the method, "
    "optax.chain(method, ...)."
)
_RESHAPED = (
    "What stands before the method handed it leaves of other shapes than the gradients "
    "have: put it behind the method, optax.chain(method, ...)."
)


def _name(frame: FrameType) -> str:
    return part_of(frame.f_code) or frame.f_code.co_qualname.split(".")[0]


def _holds(frame: FrameType, tracing: Tracing) -> bool:
    return any(frame is other for other in tracing.around)


def _quoted(error: Exception, text: str) -> str:
    return f"{type(error).__name__} ({text})"


def _around(frame: FrameType, error: Exception, text: str) -> str:
    name = _name(frame)
    if name in _CURES:
        return _CURES[name]
    return (
        f"{name} around the method raised {_quoted(error, text)}. What goes into it is "
        "stacked over tasks, [T, *param], what comes out of it is not, and it compares "
        "or reshapes the two. Put it behind the method, around the optimiser only: "
        f"optax.chain(method, {name}(optimiser, ...))."
    )


def _hands_over(frame: FrameType, text: str) -> str:
    name = _name(frame)
    return _CURES.get(name) or (
        f"{name} around the method hands it something else than gradients stacked "
        f"over tasks ({text.split('. ')[0]}). Put it behind the method, around the "
        f"optimiser only: optax.chain(method, {name}(optimiser, ...))."
    )


def _before(frame: FrameType, error: Exception, text: str) -> str:
    name = _name(frame)
    return (
        f"{name} before the method raised {_quoted(error, text)}. It gets gradients "
        "stacked over tasks there, [T, *param], and is made for those of the "
        f"parameters. Put it behind the method, optax.chain(method, {name}(...)); to "
        "run it on each task's gradient, mtl_optax.per_task("
        f"{name}(...), num_tasks) before the method."
    )


def _inside(frame: FrameType, error: Exception, text: str) -> str:
    name = _name(frame)
    return (
        f"{name} inside mtl_optax.per_task raised {_quoted(error, text)}. It gets one "
        "task's gradient there, under jax.vmap, and the same extra arguments for each. "
        f"Put it behind the method, optax.chain(method, {name}(...))."
    )


def _behind(frame: FrameType, error: Exception, text: str) -> str:
    name = _name(frame)
    return (
        f"{name} behind the method raised {_quoted(error, text)}. It got one gradient "
        "like the parameters there, so that it is not about tasks: if it needs an "
        f"extra argument, hand it to check_chain as to tx.update; or see what {name} "
        "asks of the parameters."
    )


def parts_that_ran(run: Callable[[Callable[[], None]], Any]) -> list[str]:
    """Names of the parts that ran before the first method that something ran before.

    `run(at_method)` traces the chain, and calls back at each method.
    """
    ran: list[str] = []
    found: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = part_of(frame.f_code) if event == "return" else None
        if name is not None and name not in ran:
            ran.append(name)

    def at_method() -> None:
        found.extend([] if found else ran)
        ran.clear()

    profile = sys.getprofile()
    sys.setprofile(note)
    try:
        run(at_method)
    finally:
        sys.setprofile(profile)
    return found
