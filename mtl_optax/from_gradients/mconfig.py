"""M-ConFIG: ConFIG on momenta, one task's gradient a step (Liu, Chu and Thuerey 2024).

The authors' code has both variants; "separate" there reads attributes that its base
class does not define, so that it is implemented here from its equations.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import transformation_method
from mtl_optax.core.stacked import moved, zero_stack
from mtl_optax.core.stale_rows import (
    Averages,
    StaleState,
    momenta,
    on_stale_rows,
    rate_of,
)
from mtl_optax.core.turns import Turns
from mtl_optax.from_gramian.conflictfree import conflictfree


class PseudoAdamState(NamedTuple):
    """State of the Adam behind ConFIG."""

    steps: jax.Array  # [] int32, since every task was seen
    first_moment: optax.Params  # [*param], the last direction; both bias-corrected
    second_moment: optax.Params  # [*param]


class MConFIGState(NamedTuple):
    """State of M-ConFIG."""

    stale: StaleState  # momenta, counts, turns, and ConFIG on them
    adam: PseudoAdamState | None  # of the variant "shared"

    @property
    def contains_optimizer(self) -> bool:
        """Tells check_chain that no second optimiser may follow."""
        return True


@transformation_method
def mconfig(
    num_tasks: int,
    beta1: ScalarOrSchedule = 0.9,
    beta2: ScalarOrSchedule = 0.999,
    *,
    eps: ScalarOrSchedule = 1e-8,
    variant: str = "shared",
    refresh: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""ConFIG on the tasks' momenta, of which one is renewed a step, with its own Adam.

    .. math::
      d_k = \text{ConFIG}(\hat m_1, \ldots, \hat m_T), \quad
      \tilde g = \frac{f_k - \beta_1 f_{k-1}}{1 - \beta_1}, \;
      f_k = (1 - \beta_1^k) d_k,
      \quad s \leftarrow \beta_2 s + (1 - \beta_2) \tilde g^2, \quad
      \text{update} = \frac{d_k}{\sqrt{s / (1 - \beta_2^k)} + \epsilon}

    where :math:`\hat m_t` is the bias-corrected momentum of task t. With
    `variant="separate"` each task has a second moment of its own, :math:`\text{update}
    = \text{ConFIG}(\hat m_t / (\sqrt{\hat s_t} + \epsilon))`; with `refresh=num_tasks`
    this is `optax.chain(mtl.per_task(optax.scale_by_adam(), T), mtl.conflictfree(T))`.

    Args:
      num_tasks: T, a Python int.
      beta1: of the momenta.
      beta2: of the second moments.
      eps: added to their roots.
      variant: "shared" has one second moment, of the gradient that would have made the
        directions so far; "separate" one for each task.
      refresh: how many tasks are renewed in a step, in turn, a Python int.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, of which
      only those of the tasks that are renewed are computed. It contains its Adam: only
      what scales may follow, `optax.scale_by_learning_rate(1e-3)`, and no second
      optimiser (:func:`mtl_optax.check_chain` tells). Updates are zero until every task
      was seen once. Missing tasks, turns and `due` are those of
      :func:`mtl_optax.stale`. Output scale: that of Adam, about 1 an entry ("shared"),
      or ConFIG's sum of projections of such rows ("separate").

    Raises:
      ValueError: for an unknown `variant`, a `refresh` that is not from 1 to T, a
        `beta1` or `beta2` outside [0, 1]; for gradients that are not stacked, another
        task count, or a state of another one.

    Cost: one backward pass a step (`refresh` of them); state of T copies and two of the
    parameters ("separate": 2 T copies), in float32; ConFIG's solver.

    Invariances: the direction of ConFIG does not depend on the scale of any loss once
    its momentum does not hold gradients of another scale; with "separate" the update
    depends on none but for eps.

    Guarantee: none for a single step: ConFIG's, for momenta that are up to T steps old,
    before Adam's division by roots.

    When not to use it: with many tasks, each of which is seen once in T steps: the
    authors, too, report that it falls behind ConFIG as T grows; and where
    :func:`mtl_optax.stale` says.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = optax.chain(mtl.mconfig(2), optax.scale_by_learning_rate(0.1))
      >>> params = {"w": jnp.zeros(1)}
      >>> state = tx.init(params)
      >>> grads = {"w": jnp.array([[2.0], [4.0]])}
      >>> for step in range(2):  # task 0, then task 1
      ...     update, state = tx.update(grads, state, params)
      ...     print(update["w"].round(4))
      [-0.]
      [-0.1]

    References:
      Liu, Chu and Thuerey, `ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024, algorithm 1.
    """
    checks.one_of("variant", variant, ("shared", "separate"))
    for name, value in {"beta1": beta1, "beta2": beta2}.items():
        checks.at_least(name, value, 0)
        checks.at_most(name, value, 1)
    turns = Turns(num_tasks, refresh, "cyclic", 0)
    if variant == "shared":
        kept = momenta(beta1)
    else:
        kept = Averages(
            of=(lambda g: g, jnp.square),
            decays=(beta1, beta2),
            row=lambda m, s: m / (jnp.sqrt(s) + jnp.asarray(eps, s.dtype)),
        )
    inner = on_stale_rows(conflictfree(num_tasks), kept, turns)

    def init(params: optax.Params) -> MConFIGState:
        adam = _no_moments(params) if variant == "shared" else None
        return MConFIGState(inner.init(params), adam)

    def update(
        updates: Any,
        state: MConFIGState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MConFIGState]:
        new, stale = inner.update(updates, state.stale, params, **extra_args)
        if state.adam is None:
            return new, MConFIGState(stale, None)
        every = jnp.all(stale.rows.counts > 0)
        steps = state.adam.steps + every.astype(jnp.int32)
        # Through a branch, so that XLA sums the rows once and not for each reader.
        new = lax.cond(every, lambda d: d, partial(jax.tree.map, jnp.zeros_like), new)
        new, moments = _divided(new, state.adam, steps, (beta1, beta2, eps))
        return new, MConFIGState(stale, moments)

    return optax.GradientTransformationExtraArgs(init, update)


def _no_moments(params: optax.Params) -> PseudoAdamState:
    zeros = [jax.tree.map(lambda x: x[0], zero_stack(params, 1)) for _ in range(2)]
    return PseudoAdamState(jnp.zeros((), jnp.int32), *zeros)


def _divided(
    directions: optax.Updates, old: PseudoAdamState, steps: jax.Array, numbers: Any
) -> tuple[optax.Updates, PseudoAdamState]:
    """Adam that is given its bias-corrected first moment in place of a gradient.

    Nothing moves before the first step: directions are zero until then.
    """
    beta1, beta2, eps = numbers
    rate1, rate2 = (rate_of(beta, jnp.maximum(steps, 1)) for beta in (beta1, beta2))

    def follows(s: jax.Array, before: jax.Array, d: jax.Array) -> jax.Array:
        # What, as a gradient, would have moved the first moment to where it is.
        gradient = d + (d - before) * (1 / rate1 - 1).astype(s.dtype)
        return moved(s, gradient**2, rate2)

    def divided(d: jax.Array, s: jax.Array) -> jax.Array:
        return (d / (jnp.sqrt(s) + jnp.asarray(eps, s.dtype))).astype(d.dtype)

    first = jax.tree.map(lambda d, f: d.astype(f.dtype), directions, old.first_moment)
    second = jax.tree.map(follows, old.second_moment, old.first_moment, first)
    new = jax.tree.map(divided, directions, second)
    return new, PseudoAdamState(steps, first, second)
