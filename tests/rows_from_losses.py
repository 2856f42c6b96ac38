"""Rows of the methods in from_losses."""

import jax.numpy as jnp
import numpy as np
from method_row import Method, claims, uniform_and_not

import mtl_optax as mtl


def _weights(num_tasks):
    return jnp.linspace(1.0, 2.0, num_tasks)


def _losses(num_tasks):
    """Those of Method.extras."""
    return np.linspace(0.5, 2.0, num_tasks)


def _cosmos_sum(num_tasks):
    """Sum of the weights for a uniform preference and mu = 1."""
    losses = _losses(num_tasks)
    length = np.linalg.norm(losses)
    axis = np.full(num_tasks, num_tasks**-0.5)
    return 1 - np.sum(axis - (axis @ losses) * losses / length**2) / length


def _go4align_sum(num_tasks):
    """Sum of the weights, which groups leave as it is."""
    losses = _losses(num_tasks)
    share = np.exp(-1e-4 * losses)
    return np.sum(share / share.sum() * losses.sum() / losses)


REFERENCES = jnp.zeros(3), jnp.array([0.1, 0.2, 0.4])


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
    Method(
        name="imtl_l",
        family="losses",
        make=mtl.imtl_l,
        common=lambda num_tasks, norm: num_tasks,
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"init": (0.0, 0.5)},
        static={"optimizer": None},
    ),
    Method(
        name="scale_invariant",
        family="losses",
        make=mtl.scale_invariant,
        common=lambda num_tasks, norm: np.sum(1 / _losses(num_tasks)),
        # Losses are 1/2 and 2, here and below.
        hand={"ORTH": (2, 1), "CONF": (1.5, 0.5), "JD": (-5, 2.5, 2.5)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"min_losses": REFERENCES},
    ),
    Method(
        name="gls",
        family="losses",
        make=mtl.gls,
        common=lambda num_tasks, norm: (
            np.exp(np.mean(np.log(_losses(num_tasks))))
            * np.mean(1 / _losses(num_tasks))
        ),
        hand={"ORTH": (1, 0.5), "CONF": (0.75, 0.25), "JD": (-2.5, 1.25, 1.25)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"min_losses": REFERENCES},
    ),
    Method(
        name="uw_o",
        family="losses",
        make=mtl.uw_o,
        common=lambda num_tasks, norm: np.sum(1 / _losses(num_tasks)),
        hand={"ORTH": (2, 1), "CONF": (1.5, 0.5), "JD": (-5, 2.5, 2.5)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"eps": (1e-8, 0.1)},
    ),
    Method(
        name="uw_so",
        family="losses",
        make=mtl.uw_so,
        common=lambda num_tasks, norm: 1,
        # Weights 0.817574 and 0.182426.
        hand={
            "ORTH": (0.817574, 0.364851),
            "CONF": (0.635149, 0.182426),
            "JD": (-2.175745, 1, 1),
        },
        losses=True,
        claims=claims("permutation_equivariant", "simplex"),
        hyper={"temperature": (1.0, 10.0)},
    ),
    Method(
        name="go4align",
        family="losses",
        make=lambda num_tasks, num_groups=2, **hyper: mtl.go4align(
            num_tasks, num_groups=min(num_groups, num_tasks), **hyper
        ),
        common=lambda num_tasks, norm: _go4align_sum(num_tasks),
        # p is (0.500037, 0.499963), and two groups leave v = 5 p_1 and 5/4 p_2.
        hand={
            "ORTH": (2.500187, 1.249906),
            "CONF": (1.875234, 0.624953),
            "JD": (-6.251031, 3.125141, 3.125141),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"step_size": (1e-4, 0.5)},
        static={"num_groups": 2},
    ),
    Method(
        name="ldc",
        family="losses",
        # Initial losses are an argument of logs.
        make=lambda num_tasks, initial_losses=None, **hyper: (
            mtl.ldc(num_tasks, **hyper)
            if initial_losses is None
            else mtl.ldc(num_tasks, of="logs", initial_losses=initial_losses, **hyper)
        ),
        # What the penalty gives to some tasks it takes from the others: all sigmoids
        # are equal.
        common=lambda num_tasks, norm: 1,
        # Weights 1/2 -+ 0.1 sigmoid(1).
        hand={
            "ORTH": (0.426894, 1.146212),
            "CONF": (-0.146212, 0.573106),
            "JD": (1.731059, 1, 1),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"lam": (0.1, 0.01), "init": (1.0, 0.0)},
        static={
            "optimizer": None,
            "form": "symmetric",
            "of": "losses",
            "initial_losses": None,
            "epoch_steps": None,
        },
    ),
    Method(
        name="rlw",
        family="losses",
        make=lambda num_tasks, key=0, **options: mtl.rlw(num_tasks, key=key, **options),
        common=lambda num_tasks, norm: 1,
        # Weights 0.564104 and 0.435896, of the draws 0.125730 and -0.132105.
        hand={
            "ORTH": (0.564104, 0.871792),
            "CONF": (0.128208, 0.435896),
            "JD": (0.358960, 1, 1),
        },
        draw="normals",
        claims=claims("permutation_equivariant", "simplex"),
        static={"key": 0, "distribution": "normal"},
    ),
    Method(
        name="dwa",
        family="losses",
        make=mtl.dwa,
        common=lambda num_tasks, norm: num_tasks,
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"temperature": (2.0, 0.5)},
        static={"window": 1, "average": "epochs"},
    ),
    Method(
        name="famo",
        family="losses",
        make=mtl.famo,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.8, 0.4), "CONF": (0.6, 0.2), "JD": (-2, 1, 1)},
        losses=True,
        claims=claims("permutation_equivariant", "simplex"),
        hyper={"weight_decay": (1e-3, 0.1), "min_losses": REFERENCES},
        static={"optimizer": None},
    ),
    Method(
        name="tchebycheff",
        family="losses",
        make=mtl.tchebycheff,
        common=lambda num_tasks, norm: 1 / num_tasks,
        hand={"ORTH": (0, 1), "CONF": (-0.5, 0.5), "JD": (3, 0.5, 0.5)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"preference": uniform_and_not(), "reference": REFERENCES},
    ),
    Method(
        name="stch",
        family="losses",
        make=mtl.stch,
        common=lambda num_tasks, norm: 1 / num_tasks,
        hand={
            "ORTH": (0.160411, 0.679179),
            "CONF": (-0.179179, 0.339589),
            "JD": (1.395893, 0.5, 0.5),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={
            "mu": (1.0, 0.1),
            "preference": uniform_and_not(),
            "reference": REFERENCES,
        },
    ),
    Method(
        name="pbi",
        family="losses",
        make=mtl.pbi,
        common=lambda num_tasks, norm: num_tasks**0.5,
        # Weights (1 - 5, 1 + 5) / sqrt(2).
        hand={
            "ORTH": (-2.828427, 8.485281),
            "CONF": (-7.071068, 4.242641),
            "JD": (36.769553, 1.414214, 1.414214),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={
            "preference": uniform_and_not(),
            "theta": (0.0, 5.0),
            "reference": REFERENCES,
        },
    ),
    Method(
        name="cosmos",
        family="losses",
        make=mtl.cosmos,
        common=lambda num_tasks, norm: _cosmos_sum(num_tasks),
        hand={
            "ORTH": (0.257884, 1.121058),
            "CONF": (-0.302645, 0.560529),
            "JD": (2.331636, 0.818413, 0.818413),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={"preference": uniform_and_not(), "mu": (0.0, 2.0)},
    ),
    Method(
        name="nmt",
        family="losses",
        # One step a stage, so that tests of several steps reach the constraints.
        make=lambda num_tasks, multiplier_lr=0.5, stage_steps=1, **hyper: mtl.nmt(
            num_tasks,
            hyper.pop("priority", range(num_tasks)),
            multiplier_lr=multiplier_lr,
            stage_steps=stage_steps,
            **hyper,
        ),
        common=lambda num_tasks, norm: 1,
        # The stage of the first task.
        hand={"ORTH": (1, 0), "CONF": (1, 0), "JD": (-4, 1, 1)},
        losses=True,
        claims=claims("simplex"),
        hyper={
            "multiplier_lr": (0.1, 0.5),
            "targets": (jnp.array([0.5, jnp.nan, 1.0]), jnp.array([0.1, 0.2, 0.3])),
            "stage_steps": (1, 0),
        },
        static={"priority": (0, 1, 2)},
    ),
]
