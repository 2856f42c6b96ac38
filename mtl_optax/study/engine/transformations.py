"""What a method of a study is made of, and how: aggregator, own gradients, optimiser.

Methods act on what tasks share; each head gets its own gradient.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

import mtl_optax as mtl
from mtl_optax.study.engine.problem import Problem


class Ingredients(NamedTuple):
    """What a method of a study is made of, beside its settings."""

    problem: Problem  # whose tasks and shared parameters they are
    optimizer: optax.GradientTransformation  # what follows the aggregator
    key: jax.Array  # for the methods that draw
    trained: (
        ArrayLike  # [T], 1 for the tasks that a run of `single_task` trains, else 0
    )
    rate: Any = (
        None  # the optimiser's, a number or a schedule; for those with their own
    )

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self.problem.tasks)


Method = Callable[..., optax.GradientTransformation]  # (Ingredients, **settings)


def among_tasks(
    rule: optax.GradientTransformation, problem: Problem, rest: str = "sum"
) -> optax.GradientTransformationExtraArgs:
    """`on_shared`, or the rule itself where the tasks share every leaf."""
    joint = mtl.on_shared(rule, problem.shared, rest=rest)
    alone = optax.with_extra_args_support(rule)

    def chosen(params: Any) -> optax.GradientTransformationExtraArgs:
        return alone if all(jax.tree.leaves(problem.shared(params))) else joint

    def init(params: Any) -> Any:
        return chosen(params).init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return chosen(params).update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)


def keyed(factory: Callable[..., Any], key: jax.Array) -> Callable[..., Any]:
    """The factory, with the key if it is of a method that draws."""
    draws = "key" in inspect.signature(factory).parameters
    return partial(factory, key=key) if draws else factory


def on_trunk(
    factory: Callable[..., Any], rest: str = "sum"
) -> Callable[..., optax.GradientTransformation]:
    """A public method on shared parameters, each head's own gradient, the optimiser."""

    def method(of: Ingredients, **settings: Any) -> optax.GradientTransformation:
        aggregator = keyed(factory, of.key)(of.num_tasks, **settings)
        return optax.chain(among_tasks(aggregator, of.problem, rest), of.optimizer)

    return method


def single_task(of: Ingredients) -> optax.GradientTransformation:
    """Trains some tasks; the heads of the others stay as they were."""
    rule = mtl.constant(of.num_tasks, weights=of.trained)
    return optax.chain(among_tasks(rule, of.problem, rest="weights"), of.optimizer)


def weighted(of: Ingredients, later: Any = 1.0) -> optax.GradientTransformation:
    """The sum, with this weight for the second half of the tasks."""
    is_later = jnp.arange(of.num_tasks) >= of.num_tasks / 2
    rule = mtl.constant(of.num_tasks, weights=jnp.where(is_later, later, 1.0))
    return optax.chain(among_tasks(rule, of.problem), of.optimizer)


def decayed(method: Method) -> Method:
    """The same with L2: `l2` times the parameters, added to the gradient.

    The optimiser scales both: with Adam this is no decoupled weight decay.
    """

    def with_l2(
        of: Ingredients, l2: Any = 0.0, **settings: Any
    ) -> optax.GradientTransformation:
        optimizer = optax.chain(optax.add_decayed_weights(l2), of.optimizer)
        return method(of._replace(optimizer=optimizer), **settings)

    return with_l2


def nmt(
    of: Ingredients, multiplier_lr: Any = 1e-3, stage_steps: Any = 250.0
) -> optax.GradientTransformation:
    """In the order of the tasks; heads move with the weights of their losses."""
    rule = mtl.nmt(
        *(of.num_tasks, range(of.num_tasks)),
        multiplier_lr=multiplier_lr,
        stage_steps=stage_steps,
    )
    return optax.chain(among_tasks(rule, of.problem, rest="weights"), of.optimizer)


@dataclasses.dataclass(frozen=True)
class OnTwoBatches:
    """A method that the engine hands `validation_losses_fn=` too, of split "val"."""

    make: Method

    def __call__(self, of: Ingredients, **settings: Any) -> Any:
        """The transformation."""
        return self.make(of, **settings)


def bilevel(factory: Callable[..., Any], **fixed: Any) -> OnTwoBatches:
    """A method that learns weights from a second batch, and the optimiser.

    It weighs the whole loss: each head's gradient has its task's weight, too. `outer`
    is the rate of Adam on what is learned.
    """

    def method(
        of: Ingredients, outer: Any = None, **settings: Any
    ) -> optax.GradientTransformation:
        optimizer = None if outer is None else optax.adam(outer)
        rule = factory(of.num_tasks, optimizer=optimizer, **{**fixed, **settings})
        return optax.chain(rule, of.optimizer)

    return OnTwoBatches(method)


def selective_groups(of: Ingredients, **settings: Any) -> optax.GradientTransformation:
    """It contains its optimiser."""
    owner, key = of.problem.owner, of.key
    return mtl.selective_groups(
        of.num_tasks, of.optimizer, owner=owner, key=key, **settings
    )


def tag(
    of: Ingredients, ahead: Any = None, every_k: int = 10
) -> optax.GradientTransformation:
    """The plain sum, watched by TAG.

    It looks ahead with plain steps of the rate `ahead`, or with None with the steps of
    the training.
    """
    watch = mtl.task_affinity(
        of.num_tasks,
        owner=of.problem.owner,
        learning_rate=ahead,
        optimizer=of.optimizer if ahead is None else None,
        every_k=every_k,
    )
    joint = among_tasks(mtl.unitary(of.num_tasks), of.problem)
    return optax.chain(watch, joint, of.optimizer)


def at_rate(method: Method, factor: float) -> Method:
    """A method at the rate of the run, times a factor.

    Its steps are multiplied, which is the same for SGD, with momentum or without, and
    for Adam.
    """

    def faster(of: Ingredients, **settings: Any) -> optax.GradientTransformation:
        return optax.chain(method(of, **settings), optax.scale(factor))

    return faster
