"""Rows of the methods in from_gramian."""

import jax.numpy as jnp
from method_row import Method, claims, uniform_and_not

import mtl_optax as mtl

FROM_GRAMIAN = [
    Method(
        name="mgda",
        family="gramian",
        make=mtl.mgda,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.8, 0.4), "CONF": (0.2, 0.4), "JD": (0, 1, 1)},
        claims=claims("permutation_equivariant", "simplex", "zero_at_stationary"),
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
        claims=claims("permutation_equivariant"),
        hyper={"c": (0.0, 0.8), "preference": uniform_and_not()},
        static={"rescale": 1},
    ),
    Method(
        name="cdtt",
        family="gramian",
        # The first update, before any tension, is the bisector; with the shortest
        # window tension begins with the second, which tests of several steps reach.
        make=lambda num_tasks, window=1, **hyper: mtl.cdtt(
            num_tasks, window=window, **hyper
        ),
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (2 / 3, 2 / 3),
            "CONF": (0.171573, 0.414214),
            "JD": (0.076697, 1, 1),
        },
        losses=True,
        claims=claims("permutation_equivariant", "zero_at_stationary"),
        hyper={"alpha": (0.3, 0.0)},
        static={"window": 1},
    ),
    Method(
        name="modo",
        family="gramian",
        make=mtl.modo,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.50075, 0.9985), "CONF": (0.0005, 0.49975), "JD": (0.95, 1, 1)},
        claims=claims("permutation_equivariant", "simplex"),
        homogeneous=False,
        hyper={"gamma": (1e-3, 1e-2), "rho": (0.1, 0.0)},
    ),
    Method(
        name="metabalance",
        family="gramian",
        # Over all leaves, as the other rows.
        make=lambda num_tasks, granularity=None, **hyper: mtl.metabalance(
            num_tasks, granularity=granularity, **hyper
        ),
        common=lambda num_tasks, norm: num_tasks,
        hand={
            "ORTH": (1, 1.3),
            "CONF": (0.205025, 0.794975),
            "JD": (0.690638, 1.781773, 1.781773),
        },
        hyper={"r": (0.7, 0.2), "beta": (0.9, 0.5)},
        static={"primary": 0, "variant": "both", "granularity": None},
    ),
    Method(
        name="pcd",
        family="gramian",
        make=mtl.pcd,
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (0.999800, 0.019996),
            "CONF": (0.686832, 0.726816),
            "JD": (-0.820033, 2.943429, 2.943429),
        },
        hyper={"tau": (0.02, 0.1), "beta": (0.999, 0.5), "eps": (0.0, 0.5)},
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
        claims=claims("permutation_equivariant", "zero_at_opposite"),
        static={
            "key": 0,
            "order": "random",
            "reduction": "sum",
            "granularity": "tree",
        },
    ),
    Method(
        name="gradnorm",
        family="gramian",
        make=mtl.gradnorm,
        common=lambda num_tasks, norm: num_tasks,
        hand={"ORTH": (1, 2), "CONF": (0, 1), "JD": (2, 2, 2)},
        losses=True,
        claims=claims("permutation_equivariant"),
        hyper={
            "alpha": (1.5, 0.12),
            "initial_losses": (jnp.array([1.0, 2.0, 1.5]), jnp.array([0.3, 1.0, 4.0])),
        },
        static={"optimizer": None, "variant": "paper", "leaves": None},
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
        claims=claims(
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
        claims=claims(
            "permutation_equivariant",
            "row_scale_invariant_direction",
            "zero_at_stationary",
        ),
        degree=0,
        hyper={"max_norm": (1.0, jnp.inf)},
    ),
    Method(
        name="sdmgrad",
        family="gramian",
        # At the published 5 the weights jump, and rounding decides where to.
        make=lambda num_tasks, learning_rate=0.2, **hyper: mtl.sdmgrad(
            num_tasks, learning_rate=learning_rate, **hyper
        ),
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (0.800175, 0.399650),
            "CONF": (0.199825, 0.400087),
            "JD": (0.000974, 1, 1),
        },
        claims=claims("permutation_equivariant", "simplex"),
        hyper={
            "lam": (0.3, 0.6),
            "learning_rate": (0.2, 0.1),
            "momentum": (0.5, 0.0),
            "preference": uniform_and_not(),
        },
        static={"num_iters": 20},
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
        claims=claims(
            "permutation_equivariant", "non_conflicting", "zero_at_stationary"
        ),
        hyper={"reg_eps": (0.0, 1e-4), "preference": uniform_and_not()},
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
        claims=claims("permutation_equivariant"),
        hyper={"preference": uniform_and_not()},
        static={"scale_mode": "min"},
    ),
    Method(
        name="fairgrad",
        family="gramian",
        make=lambda num_tasks, alpha=2.0, **options: mtl.fairgrad(
            num_tasks, alpha=alpha, **options
        ),
        common=lambda num_tasks, norm: num_tasks ** (1 / 3) / norm ** (4 / 3),
        hand={
            "ORTH": (1, 0.793701),
            "CONF": (0.678211, 1.495842),
            "JD": (0.031274, 0.790817, 0.790817),
        },
        claims=claims("permutation_equivariant", "zero_at_stationary"),
        degree=-1 / 3,
        hyper={"alpha": (0.5, 0.0)},
    ),
    Method(
        name="dualproj",
        family="gramian",
        make=mtl.dualproj,
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.5, 1), "CONF": (0, 0.5), "JD": (5 / 9, 10 / 9, 10 / 9)},
        claims=claims(
            "permutation_equivariant", "non_conflicting", "zero_at_stationary"
        ),
        hyper={"reg_eps": (0.0, 1e-4), "preference": uniform_and_not()},
    ),
    Method(
        name="conflictfree",
        family="gramian",
        make=mtl.conflictfree,
        common=lambda num_tasks, norm: num_tasks,
        hand={
            "ORTH": (1.5, 1.5),
            "CONF": (0.353553, 0.853553),
            "JD": (0.158809, 2.070607, 2.070607),
        },
        claims=claims(
            "permutation_equivariant",
            "row_scale_invariant_direction",
            "zero_at_stationary",
        ),
        hyper={"preference": uniform_and_not()},
        static={"length": "projection"},
    ),
    Method(
        # From fresh targets, where it is PCGrad.
        name="gradvac",
        family="gramian",
        make=lambda num_tasks, key=0, eps=0.0, **options: mtl.gradvac(
            num_tasks, key=key, eps=eps, **options
        ),
        common=lambda num_tasks, norm: num_tasks,
        hand={
            "ORTH": (1, 2),
            "CONF": (0.5, 1.5),
            "JD": (0.584795, 3.801170, 3.801170),
        },
        draw="order",
        claims=claims("permutation_equivariant", "zero_at_opposite"),
        hyper={"beta": (0.0, 0.9), "eps": (0.0, 1e-8)},
        static={"key": 0, "granularity": "tree"},
    ),
    Method(
        # Two selected: with one, the nearest two of three tasks always tie.
        name="krum",
        family="gramian",
        make=lambda num_tasks, **options: mtl.krum(
            num_tasks, num_byzantine=0, num_selected=min(2, num_tasks), **options
        ),
        common=lambda num_tasks, norm: 1,
        hand={"ORTH": (0.5, 1), "CONF": (0, 0.5), "JD": (1, 1, 1)},
        claims=claims("permutation_equivariant", "simplex"),
        static={"num_byzantine": 0, "num_selected": 2},
    ),
    Method(
        # Hand values by a scan of both duals in float64, as those of conic.
        name="imgrad",
        family="gramian",
        make=mtl.imgrad,
        common=lambda num_tasks, norm: 1.8 / 1.64,
        hand={
            "ORTH": (0.850260, 0.609756),
            "CONF": (0.183529, 0.465519),
            "JD": (0.099319, 1.085841, 1.085841),
        },
        claims=claims("permutation_equivariant"),
        hyper={"alpha": (0.8, 0.0)},
        static={"rescale": 1},
    ),
    Method(
        # At this angle the cone binds in all three; where not, see test_conic.py.
        name="conic",
        family="gramian",
        make=lambda num_tasks, cosine=0.9, **hyper: mtl.conic(
            num_tasks, cosine=cosine, **hyper
        ),
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (0.885890, 0.682055),
            "CONF": (0.217945, 0.45),
            "JD": (0.283559, 1.208221, 1.208221),
        },
        claims=claims("permutation_equivariant"),
        hyper={"cosine": (0.5, 0.95), "preference": uniform_and_not()},
    ),
    Method(
        # The first update, by its own norms; with eps 0 no length is special.
        name="balancer",
        family="gramian",
        make=lambda num_tasks, eps=0.0, **hyper: mtl.balancer(
            num_tasks, eps=eps, **hyper
        ),
        common=lambda num_tasks, norm: 1 / norm,
        hand={
            "ORTH": (0.5, 0.5),
            "CONF": (0.146447, 0.353553),
            "JD": (0.015260, 0.198962, 0.198962),
        },
        claims=claims("permutation_equivariant"),
        degree=0,
        hyper={
            "weights": uniform_and_not(),
            "total_norm": (1.0, 3.0),
            "decay": (0.999, 0.0),
            "eps": (0.0, 1e-2),
        },
    ),
    Method(
        # Worked out in float64: the second task is ahead by far, so the weights are at
        # its corner, or as near as its ascent of the first may be.
        name="epo",
        family="gramian",
        make=mtl.epo,
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (0, 2),
            "CONF": (-0.693147, 0.846574),
            "JD": (3.757792, 1, 1),
        },
        losses=True,
        claims=claims("permutation_equivariant", "simplex"),
        hyper={"eps": (1e-4, 10.0), "preference": uniform_and_not()},
        static={"relax": False},
    ),
    Method(
        # By a linear program in float64. Off the ray it is of norm 1 or less, but for
        # equal gradients, where its distance from the ray has no gradient.
        name="pmgda",
        family="gramian",
        make=mtl.pmgda,
        common=lambda num_tasks, norm: 1,
        hand={
            "ORTH": (-0.235410, 0.944427),
            "CONF": (-0.711913, 0.700438),
            "JD": (0.95, 0.163116, 0.163116),
        },
        losses=True,
        claims=claims("permutation_equivariant"),
        degree=0,
        hyper={
            "eps": (0.01, 10.0),
            "sigma": (0.95, 0.3),
            "preference": uniform_and_not(),
        },
        static={"predict": "mgda"},
    ),
]
