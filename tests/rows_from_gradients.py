"""Rows of the methods in from_gradients."""

import jax
import jax.numpy as jnp
from method_row import Method, claims

import mtl_optax as mtl


def first_or_last(num_tasks):
    """Channels whose first task is 0, and in turn the last one; also without others."""

    def of_leaf(leaf):
        if not leaf.ndim:
            return None
        return (num_tasks - 1) * (jnp.arange(leaf.shape[-1], dtype=jnp.int32) % 2)

    return lambda params: jax.tree.map(of_leaf, params)


FROM_GRADIENTS = [
    Method(
        name="cso_project",
        family="gradients",
        make=lambda num_tasks, priority=None: mtl.cso_project(
            num_tasks, priority or first_or_last(num_tasks)
        ),
        common=lambda num_tasks, norm: num_tasks,
        # The first column is no channel, and nothing conflicts on the others.
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        static={"priority": first_or_last(3)},
    ),
    Method(
        name="db_mtl",
        family="gradients",
        # Without the authors' eps it does not know how long gradients are.
        make=lambda num_tasks, eps=0.0, **hyper: mtl.db_mtl(
            num_tasks, eps=eps, **hyper
        ),
        # Of the losses 1/2 ... 2 the smallest makes the longest gradient of its log;
        # a tenth of it goes into the average.
        common=lambda num_tasks, norm: 0.1 / 0.5 * num_tasks,
        hand={
            "ORTH": (0.2, 0.2),
            "CONF": (0.0585786, 0.1414214),
            "JD": (0.0258967, 0.3376494, 0.3376494),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"beta": (0.0, 0.9), "beta_sigma": (0.5, 0.0), "eps": (1e-8, 0.0)},
    ),
    Method(
        name="excess_mtl",
        family="gradients",
        make=mtl.excess_mtl,
        common=lambda num_tasks, norm: num_tasks,
        # The first step takes the baseline: the plain sum.
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        claims=claims("permutation_equivariant"),
        hyper={"step_size": (0.0, 0.5)},
        static={"warmup": 0, "normalize": "sum"},
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
        claims=claims("permutation_equivariant"),
        hyper={"leak": (jnp.zeros(3), jnp.array([0.0, 0.5, 1.0]))},
        static={"key": 0, "f": None, "at": "gradients"},
    ),
    Method(
        name="moco",
        family="gradients",
        make=mtl.moco,
        common=lambda num_tasks, norm: 0.1,
        hand={
            "ORTH": (0.050075, 0.09985),
            "CONF": (0.00005, 0.049975),
            "JD": (0.095, 0.1, 0.1),
        },
        claims=claims("permutation_equivariant"),
        homogeneous=False,
        hyper={
            "beta": (0.5, 0.1),
            "beta_sigma": (0.5, 0.0),
            "gamma": (0.0, 0.1),
            "gamma_sigma": (0.5, 0.0),
            "rho": (0.0, 0.1),
        },
        static={"projection": "simplex"},
    ),
    Method(
        name="sam_gs",
        family="gradients",
        make=mtl.sam_gs,
        # Products of gradients and momenta, coordinate by coordinate.
        common=None,
        # Squares with their sign, (1, 4), (0, 1), (20, 2, 2), shortened.
        hand={
            "ORTH": (0.2425356, 0.9701425),
            "CONF": (0, 1),
            "JD": (0.9901475, 0.0990148, 0.0990148),
        },
        claims=claims("permutation_equivariant"),
        degree=0,  # mostly shortened to norm 1
        homogeneous=False,
        hyper={
            "beta": (0.9, 0.5),
            "beta2": (0.99, 0.9),
            "gamma": (0.1, 0.9),
            "max_norm": (1.0, 2.0),
        },
        static={"variant": "code", "granularity": None},
    ),
    Method(
        name="trimmed_mean",
        family="gradients",
        # One task at either end where that leaves one, which is what `active` does.
        make=lambda num_tasks: mtl.trimmed_mean(
            num_tasks, trim_number=min(1, (num_tasks - 1) // 2)
        ),
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.5, 1), "CONF": (0, 0.5), "JD": (1, 1, 1)},
        claims=claims("permutation_equivariant"),
        static={"trim_number": 1},
    ),
]
