"""What a row of the table of methods holds, and the draws that a test can give."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtl_optax as mtl


@dataclass(frozen=True, eq=False)
class Method:
    """A row.

    Attributes:
      name: of the public factory.
      family: folder it lives in, "losses", "gramian" or "gradients".
      make: `make(num_tasks, **hyper)` builds it, with arguments of the row's choice.
      common: `common(num_tasks, norm)` is the factor f in `f * g` for T equal rows g of
        this norm; with T=1 it is the scale that the docstring promises. None where the
        update is no multiple of g.
      hand: direction for the matrices of problems.HAND.
      losses: whether it needs losses.
      draw: name of the extra argument that stands in for its random draws, a key of
        `DRAWS`; None for a deterministic method.
      claims: names of the properties that test_properties checks.
      degree: d(s G) = s^degree d(G).
      homogeneous: whether it has such a degree.
      hyper: numeric hyper-parameters that may be tracers, with two values each.
      static: arguments that `inject_hyperparams` must leave alone.
      min_tasks: the least T.
      tolerance: relative accuracy on well-conditioned float32 problems.
      outside: the public factory itself, of a method that is not in mtl_optax.
    """

    name: str
    family: str
    make: Callable[..., Any]
    common: Callable[[int, float], float] | None
    hand: Mapping[str, tuple[float, ...]]
    losses: bool = False
    draw: str | None = None
    claims: frozenset[str] = frozenset()
    degree: float = 1
    homogeneous: bool = True
    hyper: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    static: Mapping[str, Any] = field(default_factory=dict)
    min_tasks: int = 1
    tolerance: float = 2e-5
    outside: Callable[..., Any] | None = None

    @property
    def factory(self):
        return self.outside or getattr(mtl, self.name)

    def extras(self, num_tasks, params, seed=0):
        """The extra arguments that make one step of this method reproducible."""
        extras = {}
        if self.losses:
            extras["losses"] = jnp.linspace(0.5, 2.0, num_tasks) ** (1 + seed)
        if self.draw:
            extras[self.draw] = DRAWS[self.draw][0](num_tasks, params, seed)
        return extras

    def restrict(self, extras, active):
        """The same extra arguments for the active tasks alone."""
        extras = dict(extras)
        if "losses" in extras:
            extras["losses"] = extras["losses"][active]
        if self.draw:
            extras[self.draw] = DRAWS[self.draw][1](extras[self.draw], active)
        return extras


def _orders(num_tasks, params, seed):
    rng = np.random.default_rng(seed)
    others = [np.delete(np.arange(num_tasks), t) for t in range(num_tasks)]
    return jnp.asarray(np.array([rng.permutation(row) for row in others]), jnp.int32)


def _orders_among(orders, active):
    new = np.cumsum(active) - 1
    rows = [[new[j] for j in row if active[j]] for row in np.asarray(orders)[active]]
    return jnp.asarray(rows, jnp.int32).reshape(len(rows), len(rows) - 1)


def _uniforms(num_tasks, params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.uniform(size=p.shape)), params)


def _normals(num_tasks, params, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(num_tasks))


# Random draws that a test can give: how to make them, how to restrict them.
DRAWS = {
    "order": (_orders, _orders_among),
    "uniforms": (_uniforms, lambda uniforms, active: uniforms),
    "normals": (_normals, lambda normals, active: normals[active]),
}


def uniform_and_not(num_tasks=3):
    """Two preferences, for `hyper`."""
    return jnp.ones(num_tasks) / num_tasks, jnp.arange(1.0, num_tasks + 1) / 4


def claims(*names):
    return frozenset(names)
