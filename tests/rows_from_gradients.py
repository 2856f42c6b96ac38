"""Rows of the methods in from_gradients."""

import jax.numpy as jnp
from method_row import Method, claims

import mtl_optax as mtl

FROM_GRADIENTS = [
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
        claims=claims("permutation_equivariant"),
        hyper={"leak": (jnp.zeros(3), jnp.array([0.0, 0.5, 1.0]))},
        static={"key": 0},
    ),
]
