"""Rows of the methods in from_losses."""

import jax.numpy as jnp
from method_row import Method, claims

import mtl_optax as mtl


def _weights(num_tasks):
    return jnp.linspace(1.0, 2.0, num_tasks)


FROM_LOSSES = [
    Method(
        name="unitary",
        family="losses",
        make=mtl.unitary,
        common=lambda num_tasks, norm: num_tasks,
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        claims=claims("permutation_equivariant"),
    ),
    Method(
        name="mean",
        family="losses",
        make=mtl.mean,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.5, 1), "CONF": (0, 0.5), "JD": (1, 1, 1)},
        claims=claims("permutation_equivariant", "simplex"),
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
        claims=claims("permutation_equivariant"),
        hyper={"init": (0.0, -0.5)},
        static={"optimizer": None},
    ),
]
