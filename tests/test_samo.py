"""SAMO: its equations in NumPy, SAM at beta 0, exact losses, and what must not move."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from toy_losses import asked_points, linear_losses, losses_fn, parameters, wide_losses

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


# --- What is known exactly ------------------------------------------------------------


def one_update(tx, losses_at, params, state=None, lazy=True, **extras):
    grads_of = mtl.lazy_task_grads if lazy else mtl.task_grads
    losses, grads = grads_of(losses_at)(params)
    state = tx.init(params) if state is None else state
    extras = {"losses": losses, "losses_fn": losses_at, **extras}
    return tx.update(grads, state, params, **extras)


BOWL = lambda w: {"a": 0.5 * jnp.sum(w**2)}  # noqa: E731


def test_a_quadratic_and_linear_losses():
    point = jnp.array([3.0, 4.0])
    rows = jnp.array([[1.0, -2.0], [0.5, 4.0]])
    linear = functools.partial(linear_losses, stacked=rows, offsets=jnp.zeros(2))

    def update(losses_at, num_tasks, rho, beta):
        tx = mtl.samo(mtl.mean(num_tasks), rho=rho, beta=beta, key=0)
        return one_update(tx, losses_at, point)[0]

    bowl = jax.jit(lambda rho: update(BOWL, 1, rho, 0))(1.0)
    np.testing.assert_allclose(bowl, (3.6, 4.8), rtol=1e-6)
    for rho, beta in ((0.1, 0.0), (30.0, 0.7)):
        found = jax.jit(functools.partial(update, linear, 2))(rho, beta)
        np.testing.assert_allclose(found, (0.75, 1.0), rtol=1e-6)


PARAMS = parameters()
MASK = {"trunk": True, "head": False}


def moves(**options):
    tx = mtl.samo(mtl.unitary(T), key=0, shared=MASK, **options)
    _, grads = mtl.task_grads(losses_fn)(PARAMS)
    there = asked_points(tx, PARAMS, grads)
    return grads, jax.tree.map(lambda q, p: q - p[None], there, PARAMS)


@pytest.mark.slow
def test_beta_zero_is_sam_along_the_mean_gradient():
    """And asks for no more than T gradients; a traced 0 is the same."""
    grads, moved = moves(rho=0.2, beta=0)
    mean = grads["trunk"].mean(axis=0)
    wanted = 0.2 * mean / jnp.linalg.norm(mean)
    for t, name in enumerate("abc"):
        np.testing.assert_allclose(moved["trunk"][t], wanted, atol=1e-6)
        for other, head in moved["head"].items():
            own = grads["head"][name][t]
            along = 0.2 * own / jnp.linalg.norm(own) * (other == name)
            np.testing.assert_allclose(head[t], along, atol=1e-6)
    chex.assert_trees_all_close(moves(rho=0.2, beta=jnp.array(0.0))[1], moved)
    chex.assert_trees_all_close(moves(rho=0.2, beta=lambda step: 0.0)[1], moved)


def test_how_often_the_losses_are_asked():
    for beta, calls in ((0, T), (0.1, 3 * T)):
        asked = []
        tx = mtl.samo(mtl.mean(T), rho=0.1, beta=beta, key=0)

        def counting(params, asked=asked):
            asked.append(params)
            return losses_fn(params)

        _, grads = mtl.lazy_task_grads(losses_fn)(PARAMS)
        state = tx.init(PARAMS)
        jax.eval_shape(
            lambda g=grads, s=state, tx=tx, f=counting: tx.update(
                g, s, PARAMS, losses_fn=f
            )
        )
        assert len(asked) == calls


LAYERS = {"w": jnp.ones((3, 2)), "v": jnp.ones(4), "still": jnp.ones(2)}


def layer_rows(seed=0):
    rng = np.random.default_rng(seed)
    rows = {k: rng.normal(size=(T, *p.shape)) for k, p in LAYERS.items()}
    scaled = {"w": 100 * rows["w"], "v": rows["v"], "still": 0 * rows["still"]}
    return jax.tree.map(jnp.float32, scaled)


def test_the_own_part_has_the_mean_gradients_length_on_each_leaf():
    """On one whose mean gradient is zero there is none; the whole is as long as rho."""
    rows, sizes = layer_rows(), {}
    tx = mtl.samo(mtl.mean(T), rho=0.3, beta=1, key=0)
    there = asked_points(tx, LAYERS, rows)
    for k, x in jax.tree.map(lambda q, p: q - p[None], there, LAYERS).items():
        sizes[k] = np.linalg.norm(np.asarray(x).reshape(T, -1), axis=1)
    wanted = {k: np.linalg.norm(x.mean(axis=0)) for k, x in rows.items()}
    whole = np.linalg.norm(list(wanted.values()))
    for k, size in sizes.items():
        np.testing.assert_allclose(size, 0.3 * wanted[k] / whole, rtol=1e-3, atol=1e-7)
    assert not np.allclose(there["w"][0], there["w"][1])  # a draw of its own each


@pytest.mark.parametrize("variant", ["layerwise", "unmatched"])
def test_what_cannot_be_normalised_is_left_out(variant):
    """Zero gradients, losses that do not change along the draw, and infinite ones."""
    tx = mtl.samo(mtl.mean(2), rho=0.5, beta=0.5, variant=variant, key=0)
    point, rows = jnp.ones(2), jnp.array([[3.0, 4.0], [3.0, 4.0]])
    ask = jax.jit(
        lambda rows, size: tx.update(
            *(rows, tx.init(point), point), losses_fn=lambda w: (w[0] ** 2 * size, size)
        )[0]
    )
    np.testing.assert_array_equal(ask(0 * rows, 0.0), [0.0, 0.0])
    for size in (0.0, 1e38, jnp.inf, jnp.nan):  # of the second task, which is flat
        found = ask(rows, size)
        if jnp.isfinite(size):
            assert np.isfinite(found).all()
    flat = lambda w: (0 * w[0] + 1.0, jnp.sum(w**2))  # noqa: E731
    _, still = tx.update(rows, tx.init(point), point, losses_fn=flat)
    assert np.all(np.isfinite(still.key))


# --- Missing tasks, keys, forms -------------------------------------------------------


@pytest.mark.parametrize("variant", ["layerwise", "unmatched"])
@pytest.mark.slow
def test_a_missing_task_does_no_harm(variant):
    """Its NaN stays there; the others get what they get alone, of the same draws."""
    params, centres, curves, _ = jax.tree.map(jnp.float32, quadratics(0))
    options = {"rho": 0.3, "beta": 0.5, "key": 3, "variant": variant}

    def losses_at(p, num_tasks=T):
        losses = losses_of(p, centres, curves)
        losses["c"] = losses["c"] * jnp.nan
        return dict(list(losses.items())[:num_tasks])

    tx = mtl.samo(mtl.mean(T), shared=SHARED, **options)
    extras = {"active": {"a": True, "b": True, "c": False}}
    got = jax.jit(lambda p: one_update(tx, losses_at, p, **extras))(params)
    stacked, _ = jax.jit(lambda p: one_update(tx, losses_at, p, lazy=False, **extras))(
        params
    )
    two = mtl.samo(mtl.mean(2), shared=SHARED, **options)
    few = {**params, "head": {n: params["head"][n] for n in "ab"}}
    wanted, _ = jax.jit(
        lambda p: one_update(two, lambda p: losses_of(p, centres, curves), p)
    )(few)
    assert not got[0]["head"].pop("c").any()
    stacked["head"].pop("c")
    chex.assert_trees_all_close(got[0], wanted, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(stacked, wanted, rtol=1e-4, atol=1e-6)
    chex.assert_tree_all_finite(got[1])


@pytest.mark.slow
def test_keys_seeds_steps_and_schedules():
    """Under vmap over seeds, scan over steps; the radius by the count of steps."""

    def train(key, beta):
        method = mtl.samo(
            *(mtl.pcgrad(T, key=1),), rho=lambda count: 0.1, beta=beta, key=key
        )
        tx = optax.chain(method, optax.adam(1e-2))

        def step(carry, _):
            params, state = carry
            updates, state = one_update(tx, losses_fn, params, state)
            return (optax.apply_updates(params, updates), state), None

        return lax.scan(step, (PARAMS, tx.init(PARAMS)), length=3)[0]

    seeds, betas = jnp.array([0, 1, 0, 0]), jnp.array([0.5, 0.5, 0.5, 0.1])
    params, state = jax.jit(jax.vmap(train))(seeds, betas)
    trunk = params["trunk"]
    np.testing.assert_array_equal(trunk[0], trunk[2])
    assert np.any(trunk[0] != trunk[1])
    assert np.any(trunk[0] != trunk[3])
    key = state[0].inner.key
    first = mtl.samo(mtl.mean(T), key=0).init(PARAMS).key
    assert key.shape == (4, *first.shape)
    assert np.any(np.asarray(key[0]) != np.asarray(first))


@pytest.mark.parametrize(
    "axis_type",
    [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)],
    ids=str,
)
def test_sharded_parameters_stay_where_they_are(axis_type):
    params = {"w": jnp.ones((16, 8)), "b": jnp.ones(8)}
    rows = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), params)
    tx = mtl.samo(mtl.mean(2), rho=0.1, beta=0.5, key=0)

    def losses_at(p):
        total = jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 4)
        return {"a": total, "b": 0.5 * total**2}

    def update(rows, state, params):
        return tx.update(rows, state, params, losses_fn=losses_at)[0]

    wanted = jax.jit(update)(rows, tx.init(params), params)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        over = NamedSharding(mesh, PartitionSpec("data"))
        params = jax.tree.map(lambda x: jax.device_put(x, over), params)
        behind = NamedSharding(mesh, PartitionSpec(None, "data"))
        rows = jax.tree.map(lambda x: jax.device_put(x, behind), rows)
        state = jax.jit(tx.init)(params)
        program = jax.jit(update).lower(rows, state, params).compile()
        got = program(rows, state, params)
    chex.assert_trees_all_close(jax.device_get(got), wanted, rtol=1e-5)
    for mine, given in zip(*map(jax.tree.leaves, (got, params)), strict=True):
        assert mine.sharding.is_equivalent_to(given.sharding, mine.ndim)
    text = program.as_text()
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)


def test_half_precision_and_check_chain():
    params = jnp.array([1.0, -2.0], jnp.bfloat16)
    at = lambda w: {"a": jnp.sum(w**2), "b": jnp.sum((w - 1) ** 2)}  # noqa: E731
    tx = optax.chain(mtl.samo(mtl.mean(2), rho=0.1, key=0), optax.adam(1e-3))
    update, _ = jax.jit(lambda p: one_update(tx, at, p))(params)
    assert update.dtype == jnp.bfloat16
    mtl.check_chain(tx, params, 2, losses=jnp.ones(2), losses_fn=at)


def test_errors_name_the_cure():
    method = mtl.mean(2)
    with pytest.raises(ValueError, match="rho must be at least 0"):
        mtl.samo(method, rho=-1.0, key=0)
    with pytest.raises(ValueError, match="beta must be at most 1"):
        mtl.samo(method, beta=1.5, key=0)
    with pytest.raises(ValueError, match="step must be positive"):
        mtl.samo(method, step=0, key=0)
    with pytest.raises(ValueError, match="variant must be one of 'layerwise'"):
        mtl.samo(method, variant="layer", key=0)
    ask = functools.partial(one_update, losses_at=lambda w: (w[0], w[1]))
    for given in (jnp.ones(2), {"w": jnp.ones((2, 2))}):
        shapes = r"normals= must be a tree like the parameters.*\[\(2, 2\)\]"
        with pytest.raises(ValueError, match=shapes):
            ask(mtl.samo(method, key=0), params=jnp.ones(2), normals=given)
    tx, normals = mtl.samo(method, beta=0, key=0), jnp.ones((2, 2))
    with pytest.raises(ValueError, match="normals= has no effect with beta=0"):
        ask(tx, params=jnp.ones(2), normals=normals)


@pytest.mark.optimized
@pytest.mark.slow
def test_cost():
    """Compiled FLOPs, in forward passes of two layers; heads are narrow.

    A gradient costs 1.5 beside its forward pass, for the lower layer hands none down.
    """
    width, tasks, layers = 64, "abcd", 2
    params = {name: jnp.ones(width) for name in tasks}
    params["trunk"] = jnp.ones((width, width))
    mask = {name: name == "trunk" for name in params}
    at = functools.partial(wide_losses, x=jnp.ones((256, width)))

    def one_by_one(params):  # in a loop's body XLA would count one task for all
        every = jax.tree.map(lambda p: jnp.broadcast_to(p, (4, *p.shape)), params)
        return mtl.task_grads_at(at)(every)

    def lazily(params):
        return mtl.lazy_task_grads(at)(params)[1]

    def passes(method, grads_of, **options):
        tx = method(mtl.mean(4), shared=mask, **options)

        def step(params):
            extras = {"losses_fn": at}
            return tx.update(grads_of(params), tx.init(params), params, **extras)[0]

        program = jax.jit(step).lower(params).compile()
        return program.cost_analysis()["flops"] / (2 * layers * 256 * width**2)

    samo = passes(mtl.samo, lazily, key=0)
    assert 2.5 + 4 * (2 + 2.5) < samo < 21.5
    # All tasks look from one point, which XLA sees: one forward pass.
    sam = passes(mtl.samo, lazily, key=0, beta=0)
    assert 2.5 + 1 + 4 * 1.5 < sam < 10
    flat = passes(mtl.flat_mtl, one_by_one, rho_shared=0.1)
    assert 1 + 4 * (1.5 + 2.5) < flat < 18
    assert 1.15 < samo / flat < 1.25  # dearer, and not cheaper
