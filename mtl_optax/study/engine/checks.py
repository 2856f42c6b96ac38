"""What a new study may get wrong, told before hours of training and not after."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.study.engine.problem import Problem


def one_a_task(problem: Problem, found: Any, state: Any) -> tuple[Any, Any]:
    """What `Problem.losses` gave: T numbers, and a state like the one before."""
    name = f"losses of problem '{problem.name}'"
    losses, after = found if isinstance(found, tuple) and len(found) == 2 else (None, 0)
    wanted, shapes = [()] * len(problem.tasks), _shapes(losses)
    if shapes != wanted:
        raise ValueError(
            f"{name}: return a pair, one number a task in the order of {problem.tasks} "
            f"and the state after them; got {_shapes(found)}, and as losses {shapes}."
        )
    before, now = (_types(x) for x in (state, after))
    if before != now:
        raise ValueError(
            f"{name}: the state must keep its structure, shapes and dtypes from step "
            f"to step. Give it back as `init` makes it: {before}; got {now}."
        )
    return losses, after


def held_out(problem: Problem, method: str) -> Any:
    """The split of which a method on two batches gets its second one."""
    if problem.splits.get("train") is None:
        return None
    if problem.splits.get("val") is None:
        raise ValueError(
            f"problem '{problem.name}': {method} learns from a second batch, of split "
            f"'val', and there is none among {list(problem.splits)}. Give the problem "
            "one, or leave the method out."
        )
    return problem.splits["val"]


def _shapes(losses: Any) -> Any:
    """Of each number; of what holds no numbers in order, its type."""
    if isinstance(losses, tuple | list):
        return [
            np.shape(x) if hasattr(x, "shape") else type(x).__name__ for x in losses
        ]
    shape = getattr(losses, "shape", None)
    return [shape[1:]] * shape[0] if shape else type(losses).__name__


def _types(state: Any) -> Any:
    """Structure, and shape and dtype of each leaf."""
    leaves, structure = jax.tree.flatten(state)
    return [f"{x.dtype}{list(x.shape)}" for x in map(jnp.asarray, leaves)], structure


def metrics(problem: Problem, params: Any, state: Any) -> None:
    """Every metric is there, with a number a task."""
    name, seen = f"evaluate of problem '{problem.name}'", set()
    for split, examples in problem.splits.items():
        if split == "train":
            continue
        key = jax.random.key(0)
        found = jax.eval_shape(problem.evaluate, params, state, examples, key)
        for metric, values in found.items():
            if values.shape != (len(problem.tasks),):
                raise ValueError(
                    f"{name}: metric '{metric}' on split '{split}' must have shape "
                    f"({len(problem.tasks)},), a number a task; got {values.shape}."
                )
        seen |= set(found)
        asked = split in (problem.chosen_on, problem.reported_on)
        _named(name, (x.name for x in problem.metrics[:1] if asked), found)
    if set(problem.splits) - {"train"}:
        _named(name, (x.name for x in problem.metrics), seen)


def _named(name: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    for metric in wanted:
        if metric not in found:
            raise ValueError(
                f"{name}: metric '{metric}' is missing; it gives {sorted(found)}. "
                f"Problem.metrics must name what it gives."
            )


def fields(problem: Problem) -> None:
    """Tasks have names of their own, and splits that are asked for are there."""
    name, tasks = f"problem '{problem.name}'", problem.tasks
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"{name}: give each task a name of its own; got {tasks}.")
    for split, examples in problem.splits.items():
        lengths = {len(leaf) for leaf in jax.tree.leaves(examples)}
        if len(lengths) > 1:
            raise ValueError(
                f"{name}: arrays of split '{split}' have {sorted(lengths)} examples. "
                f"Each needs one entry an example, in its first axis."
            )
    if len(problem.loss) not in (1, len(tasks)):
        raise ValueError(
            f"{name}: loss says what losses are, once for all {len(tasks)} tasks or "
            f"once for each; got {len(problem.loss)}."
        )
    for field in ("chosen_on", "reported_on"):
        split = getattr(problem, field)
        if split not in problem.splits or split == "train":
            names = [x for x in problem.splits if x != "train"]
            raise ValueError(
                f"{name}: {field} is '{split}', which is not evaluated; name one of "
                f"its splits: {names}."
            )
