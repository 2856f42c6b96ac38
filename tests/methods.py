"""One row a method: what it is called, what it needs, what it claims.

A row buys its method every check of test_contracts, test_properties and
test_optax_common; test_contracts checks that rows and public factories agree.
"""

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
        this norm; with T=1 it is the scale that the docstring promises.
      hand: direction for the matrices of problems.HAND.
      losses: whether it needs losses.
      draw: name of the extra argument that stands in for its random draws, a key of
        `DRAWS`; None for a deterministic method.
      claims: names of the properties that test_properties checks.
      degree: d(s G) = s^degree d(G).
      hyper: numeric hyper-parameters that may be tracers, with two values each.
      static: arguments that `inject_hyperparams` must leave alone.
      min_tasks: the least T.
      tolerance: relative accuracy on well-conditioned float32 problems.
    """

    name: str
    family: str
    make: Callable[..., Any]
    common: Callable[[int, float], float]
    hand: Mapping[str, tuple[float, ...]]
    losses: bool = False
    draw: str | None = None
    claims: frozenset[str] = frozenset()
    degree: int = 1
    hyper: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    static: Mapping[str, Any] = field(default_factory=dict)
    min_tasks: int = 1
    tolerance: float = 2e-5

    @property
    def factory(self):
        return getattr(mtl, self.name)

    def extras(self, num_tasks, params, seed=0):
        """The extra arguments that make one step of this method reproducible."""
        extras = {}
        if self.losses:
            extras["losses"] = jnp.linspace(0.5, 2.0, num_tasks)
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


def _weights(num_tasks):
    return jnp.linspace(1.0, 2.0, num_tasks)


def _uniform_and_not(num_tasks=3):
    return jnp.ones(num_tasks) / num_tasks, jnp.arange(1.0, num_tasks + 1) / 4


def _claims(*names):
    return frozenset(names)


METHODS = [
    Method(
        name="unitary",
        family="losses",
        make=mtl.unitary,
        common=lambda num_tasks, norm: num_tasks,
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        claims=_claims("permutation_equivariant"),
    ),
    Method(
        name="mean",
        family="losses",
        make=mtl.mean,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.5, 1), "CONF": (0, 0.5), "JD": (1, 1, 1)},
        claims=_claims("permutation_equivariant", "simplex"),
    ),
    Method(
        name="constant",
        family="losses",
        make=lambda num_tasks, weights=None: mtl.constant(
            num_tasks, weights=_weights(num_tasks) if weights is None else weights
        ),
        common=lambda num_tasks, norm: float(jnp.sum(_weights(num_tasks))),
        hand={"ORTH": (1, 4), "CONF": (-1, 2), "JD": (8, 3, 3)},
        hyper={"weights": (jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.0, -1.0]))},
    ),
    Method(
        name="uw",
        family="losses",
        make=mtl.uw,
        common=lambda num_tasks, norm: num_tasks / 2,
        hand={"ORTH": (0.5, 1), "CONF": (0, 0.5), "JD": (1, 1, 1)},
        losses=True,
        claims=_claims("permutation_equivariant"),
        hyper={"init": (0.0, -0.5)},
        static={"optimizer": None},
    ),
    Method(
        name="mgda",
        family="gramian",
        make=mtl.mgda,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.8, 0.4), "CONF": (0.2, 0.4), "JD": (0, 1, 1)},
        claims=_claims("permutation_equivariant", "simplex", "zero_at_stationary"),
        static={"normalization": "none", "apply_to": "raw"},
    ),
    Method(
        name="cagrad",
        family="gramian",
        make=lambda num_tasks, c=0.5, **hyper: mtl.cagrad(num_tasks, c=c, **hyper),
        common=lambda num_tasks, norm: 1.5 / 1.25,
        hand={
            "ORTH": (0.847214, 0.8),
            "CONF": (0.2, 0.4),
            "JD": (0.146803, 0.963299, 0.963299),
        },
        claims=_claims("permutation_equivariant"),
        hyper={"c": (0.0, 0.8), "preference": _uniform_and_not()},
        static={"rescale": 1},
    ),
    Method(
        name="pcgrad",
        family="gramian",
        make=lambda num_tasks, key=0, **options: mtl.pcgrad(
            num_tasks, key=key, **options
        ),
        common=lambda num_tasks, norm: num_tasks,
        hand={
            "ORTH": (1, 2),
            "CONF": (0.5, 1.5),
            "JD": (0.584795, 3.801170, 3.801170),
        },
        draw="order",
        claims=_claims("permutation_equivariant", "zero_at_opposite"),
        static={
            "key": 0,
            "order": "random",
            "reduction": "sum",
            "granularity": "tree",
        },
    ),
    Method(
        name="imtl_g",
        family="gramian",
        make=mtl.imtl_g,
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (2 / 3, 2 / 3),
            "CONF": (0.171573, 0.414214),
            "JD": (0.076697, 1, 1),
        },
        claims=_claims(
            "permutation_equivariant",
            "row_scale_invariant_direction",
            "zero_at_opposite",
        ),
    ),
    Method(
        name="nash_mtl",
        family="gramian",
        make=mtl.nash_mtl,
        common=lambda num_tasks, norm: num_tasks**0.5 / norm,
        hand={
            "ORTH": (1, 1),
            "CONF": (0.541196, 1.306563),
            "JD": (0.076584, 0.998533, 0.998533),
        },
        claims=_claims(
            "permutation_equivariant",
            "row_scale_invariant_direction",
            "zero_at_stationary",
        ),
        degree=0,
        hyper={"max_norm": (1.0, jnp.inf)},
    ),
    Method(
        name="upgrad",
        family="gramian",
        make=mtl.upgrad,
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (0.5, 1),
            "CONF": (0.25, 0.75),
            "JD": (0.292398, 1.900585, 1.900585),
        },
        claims=_claims(
            "permutation_equivariant", "non_conflicting", "zero_at_stationary"
        ),
        hyper={"reg_eps": (0.0, 1e-4), "preference": _uniform_and_not()},
    ),
    Method(
        name="aligned_mtl",
        family="gramian",
        make=mtl.aligned_mtl,
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (0.5, 0.5),
            "CONF": (0.138197, 0.414590),
            "JD": (0.213279, 0.967333, 0.967333),
        },
        claims=_claims("permutation_equivariant"),
        hyper={"preference": _uniform_and_not()},
        static={"scale_mode": "min"},
    ),
    Method(
        name="graddrop",
        family="gradients",
        make=lambda num_tasks, key=0, **hyper: mtl.graddrop(
            num_tasks, key=key, **hyper
        ),
        common=lambda num_tasks, norm: num_tasks,
        # Draws of 1/4 keep the positive entries where purity is above, else the others.
        hand={"ORTH": (1, 2), "CONF": (1, 1), "JD": (6, 2, 2)},
        draw="uniforms",
        claims=_claims("permutation_equivariant"),
        hyper={"leak": (jnp.zeros(3), jnp.array([0.0, 0.5, 1.0]))},
        static={"key": 0},
    ),
]

BY_NAME = {method.name: method for method in METHODS}
