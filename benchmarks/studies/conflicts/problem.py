"""Multi-digits, which measures every few steps how gradients of its trunk conflict.

Of some samples of the batch each task has a gradient: the Gramian of all of them, and
in which share of coordinates their signs differ, are the state of the problem, which
the engine records.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax.analysis.conflict import conflict_fraction
from mtl_optax.core.products import gramian
from mtl_optax.study.data.classification import (
    CROSS_ENTROPY,
    cross_entropies,
    functions,
    owners_by_name,
)
from mtl_optax.study.data.digits import CREDITS, TASKS, Split, multi_digits
from mtl_optax.study.data.networks import MultiTaskMLP
from mtl_optax.study.engine.problem import Metric, Now, Problem
from mtl_optax.study.engine.transformations import Ingredients, among_tasks

SAMPLES = 8  # of the batch
EVERY = 5  # steps
SQUARED_ERROR = Metric("squared error", "digit²", higher_is_better=False)
SUM = "sum"  # of both digits, a number
KINDS = {
    "two": ("left", "right"),
    "four": tuple(TASKS),
    "unlike": ("left", SUM),
}
ABOUT = (
    "Trunk 144-128-64 with ReLU, a linear head for each task; only gradients of the "
    f"trunk are compared. The batch is drawn anew, so its first {SAMPLES} samples, "
    f"which are compared every {EVERY} steps, are random ones. In unlike the second "
    "task is a regression: the sum of both digits, by squared error."
)


def answers(split: Split, tasks: tuple[str, ...]) -> Split:
    """With a column for each of these tasks."""
    columns = dict(zip(TASKS, split.labels.T, strict=True))
    columns[SUM] = columns["left"] + columns["right"]
    return split._replace(labels=np.stack([columns[x] for x in tasks], axis=1))


def problem(kind: str, steps: int) -> Problem:
    """Tasks of KINDS, for runs of so many steps."""
    tasks = KINDS[kind]
    splits = {x: answers(own, tasks) for x, own in multi_digits(len(TASKS)).items()}
    classes = {task: TASKS.get(task, 1) for task in tasks}
    init, logits = functions(MultiTaskMLP, classes)
    owner = partial(owners_by_name, tasks)

    def of_each(params: Any, batch: Split) -> jax.Array:
        """Losses `[B, T]`."""
        pairs = zip(logits(params, batch.images), batch.labels.T, tasks, strict=True)
        return jnp.stack(
            [
                (z[:, 0] - y) ** 2 if task == SUM else cross_entropies(z, y)
                for z, y, task in pairs
            ],
            axis=1,
        )

    def measure(params: Any, batch: Split) -> jax.Array:
        """`[2, S T, S T]`: Gramian, and shares of opposite signs; samples first."""

        def of_one(image: Any, labels: Any) -> Any:
            one = Split(image[None], labels[None])
            grads = jax.jacrev(lambda x: of_each(x, one)[0])(params)
            pairs = zip(
                jax.tree.leaves(grads),
                jax.tree.leaves(owner(params), is_leaf=lambda x: x is None),
                strict=True,
            )
            return [own for own, whose in pairs if whose is None]

        some = jax.tree.map(lambda x: x[:SAMPLES], batch)
        grads = jax.vmap(of_one)(*some)
        stacked = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), grads)
        return jnp.stack([gramian(stacked), conflict_fraction(stacked)])

    def losses(
        params: Any, state: jax.Array, batch: Split, now: Now
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        due = jnp.round(now.progress * steps) % EVERY == EVERY - 1
        still = jax.lax.stop_gradient(params)
        state = jax.lax.cond(due, lambda: measure(still, batch), lambda: state)
        return tuple(of_each(params, batch).mean(axis=0)), state

    def start(seed: int) -> tuple[Any, jax.Array]:
        size = SAMPLES * len(tasks)
        return init(seed), jnp.zeros((2, size, size))

    leaves = jax.tree.leaves(jax.eval_shape(lambda: init(0)["trunk"]))
    return Problem(
        name=f"Multi-digits, {', '.join(tasks)}",
        tasks=tasks,
        splits=splits,
        init=start,
        losses=losses,
        metrics=(Metric("loss", "", higher_is_better=False),),
        loss=tuple(SQUARED_ERROR if x == SUM else CROSS_ENTROPY for x in tasks),
        evaluate=lambda params, state, split, key: {
            "loss": of_each(params, split).mean(axis=0)
        },
        owner=owner,
        watch=lambda params, state: state,
        about=ABOUT,
        facts={
            "samples": SAMPLES,
            "every": EVERY,
            "shared_parameters": sum(x.size for x in leaves),
        },
        credits=CREDITS,
    )


def only(task: int, of: Ingredients) -> Any:
    """Trains one task; the heads of the others stay as they were."""
    weights = (jnp.arange(of.num_tasks) == task).astype(float)
    rule = mtl.constant(of.num_tasks, weights=weights)
    return optax.chain(among_tasks(rule, of.problem, rest="weights"), of.optimizer)
