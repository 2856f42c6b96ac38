"""A method that only decides T numbers: a pair of pure functions of T-sized arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mtl_optax.core.arguments import checks


class Weighting(NamedTuple):
    """A rule that turns losses and Gramian into task weights.

    Attributes:
      init: `init(num_tasks) -> state`, any pytree of arrays.
      update: `update(gramian, state, *, losses, active, **extra) -> (weights, state)`.
        `gramian` is `[T, T]`, zero in rows and columns of inactive tasks (None unless
        `uses_gramian`); `losses` is `[T]`, 1 at inactive tasks, or None; `active` is
        always an array `[T]` bool. Weights of inactive tasks are set to 0 afterwards;
        their statistics in `state` are the weighting's own to keep.
      uses_gramian: whether `update` reads the Gramian; if not, none is formed and lazy
        gradients cost a single backward pass.
      due: `due(state) -> (bool, state)`, asked first if given: where it says no, the
        last weights are applied again, and neither Gramian nor `update` is computed.
      asymmetric: whether the Gramian may be a given one of inner products `J1 J2'` of
        gradients on two independent batches, which is not symmetric, and whose diagonal
        may be negative.
      leaves: the leaves that the Gramian is taken over, as in `from_weighting`.
      names: of the tasks, sorted, where arguments were given by name; they must be
        those of the gradients.
      basis: `basis(gramian) -> [T, T]`, an orthogonal matrix V, if given. The gradients
        are then read a second time, to form the Gramian of the combinations `V'J`, and
        `update` gets `rotated=(V, that Gramian)`. With eigenvectors for V it has small
        eigenvalues that the rounding of the large ones wiped out of `J J'`. Without
        gradients to read again (`precomputed_gramian`, `cross_gramian`, the Gramian at
        features, one a leaf) `update` gets no `rotated`.
    """

    init: Callable[[int], Any]
    update: Callable[..., tuple[jax.Array, Any]]
    uses_gramian: bool = True
    due: Callable[[Any], tuple[jax.Array, Any]] | None = None
    asymmetric: bool = False
    leaves: Any = None
    names: tuple[Any, ...] | None = None
    basis: Callable[[jax.Array], jax.Array] | None = None


def no_state(**per_task: Any) -> Callable[[int], tuple[()]]:
    """`init` without state that checks values for each task: None, or `[T]`."""

    def init(num_tasks: int) -> tuple[()]:
        checks.optional_vectors(num_tasks, **per_task)
        return ()

    return init
