"""SAMO: its equations in NumPy, SAM at beta 0, exact losses, and what must not move."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from toy_losses import linear_losses, losses_fn, parameters, wide_losses

import mtl_optax as mtl

T = 3
SHARED = {"trunk": True, "neck": True, "head": False}


def quadratics(seed, num_tasks=T):
    """Centres and curvatures of losses of two shared leaves and a head a task."""
    rng = np.random.default_rng(seed)
    shapes = {"trunk": (2, 3), "neck": (4,), "head": (2,)}
    draw = lambda: {k: rng.normal(size=(num_tasks, *s)) for k, s in shapes.items()}  # noqa: E731
    params = {k: rng.normal(size=s) for k, s in shapes.items() if k != "head"}
    params["head"] = {name: rng.normal(size=2) for name in "abc"[:num_tasks]}
    return params, draw(), {k: x**2 + 0.1 for k, x in draw().items()}, draw()


def losses_of(params, centres, curves):
    """In either NumPy or JAX: one leaf of each kind a task."""
    losses = {}
    for t, name in enumerate(params["head"]):
        own = {**params, "head": params["head"][name]}
        terms = [
            (curves[k][t] * (own[k] - centres[k][t]) ** 2).sum() / 2 for k in centres
        ]
        losses[name] = terms[0] + terms[1] + terms[2]
    return losses


def by_definition(params, centres, curves, normals, rho, beta, step, variant):
    """The rows, in float64, written out: no sign, no common code."""
    names, shared = list(params["head"]), ("trunk", "neck")
    count = len(names)

    def gradient(point, t):
        own = {**point, "head": point["head"][names[t]]}
        return {k: curves[k][t] * (own[k] - centres[k][t]) for k in centres}

    plain = [gradient(params, t) for t in range(count)]
    mean = {k: sum(g[k] for g in plain) / count for k in shared}
    rows = []
    for t, name in enumerate(names):
        z = {k: normals[k][t] for k in shared}
        plus, minus = (
            losses_of(
                {**params, **{k: params[k] + sign * step * z[k] for k in shared}},
                *(centres, curves),
            )[name]
            for sign in (1, -1)
        )
        estimate = {k: (plus - minus) / (2 * step) * z[k] for k in shared}
        uphill = {}
        for k in shared:
            own = estimate[k]
            if variant == "layerwise":
                own = own * np.sqrt((mean[k] ** 2).sum()) / np.sqrt((own**2).sum())
            uphill[k] = (1 - beta) * mean[k] + beta * own
        length = np.sqrt(sum((x**2).sum() for x in uphill.values()))
        head = plain[t]["head"]
        there = {k: params[k] + rho * uphill[k] / length for k in shared}
        moved = params["head"][name] + rho * head / np.sqrt((head**2).sum())
        there["head"] = {**params["head"], name: moved}
        rows.append(gradient(there, t))
    return rows


@pytest.mark.parametrize("variant", ["layerwise", "unmatched"])
@pytest.mark.parametrize("lazy", [True, False])
def test_equations(variant, lazy):
    grads_of = mtl.lazy_task_grads if lazy else mtl.task_grads

    @jax.jit
    def update_of(params, centres, curves, normals, rho, beta, step):
        tx = mtl.samo(
            *(mtl.mean(T),),
            **{"rho": rho, "beta": beta, "step": step, "variant": variant},
            shared=SHARED,
            key=0,
        )
        at = lambda p: losses_of(p, centres, curves)  # noqa: E731
        normals = {
            **normals,
            "head": jax.tree.map(lambda p: jnp.ones((T, *p.shape)), params["head"]),
        }
        _, grads = grads_of(at)(params)
        extra = {"losses_fn": at, "normals": normals}
        return tx.update(grads, tx.init(params), params, **extra)[0]

    for seed in range(4):
        params, centres, curves, normals = quadratics(seed)
        numbers = (0.3 + seed, (0.1, 0.5, 0.9, 1.0)[seed], 0.01 * (1 + seed))
        rows = by_definition(params, centres, curves, normals, *numbers, variant)
        single = jax.tree.map(jnp.float32, (params, centres, curves, normals))
        found = update_of(*single, *numbers)
        for k in ("trunk", "neck"):
            wanted = sum(row[k] for row in rows) / T
            np.testing.assert_allclose(found[k], wanted, rtol=2e-4, atol=2e-5)
        for row, head in zip(rows, found["head"].values(), strict=True):
            np.testing.assert_allclose(head, row["head"], rtol=2e-4, atol=2e-5)
