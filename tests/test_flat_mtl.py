"""F-MTL: the specification's examples, SAM at T=1, and the plain method at radius 0."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from toy_losses import asked_points, module_losses, wide_losses

import mtl_optax as mtl

POINT = jnp.array([1.0, 0.0])


def bowl(w):
    return 0.5 * (w[0] ** 2 + 4 * w[1] ** 2)


def valley(w):
    return 0.5 * (w[0] + w[1]) ** 2


def other_bowl(w):
    return 0.5 * ((w[0] - 2) ** 2 + 2 * (w[1] - 1) ** 2)


AGREE = lambda w: {"a": bowl(w), "b": valley(w)}  # noqa: E731
CONFLICT = lambda w: {"a": bowl(w), "b": other_bowl(w)}  # noqa: E731


def one_update(tx, losses_fn, params, state=None, **extras):
    losses, grads = mtl.task_grads(losses_fn)(params)
    state = tx.init(params) if state is None else state
    extras = {"losses": losses, "losses_fn": losses_fn, **extras}
    return tx.update(grads, state, params, **extras)


def fixed_pcgrad(num_tasks):
    return mtl.pcgrad(num_tasks, key=0, order="fixed")


@pytest.mark.parametrize(
    ("aggregator", "mode", "losses_fn", "wanted"),
    [
        (mtl.unitary, "split", AGREE, (2.2414214, 1.1414214)),
        (mtl.unitary, "direct", AGREE, (2.2414214, 1.1414214)),
        (fixed_pcgrad, "split", CONFLICT, (0.894118, -2.602415)),
        (fixed_pcgrad, "direct", CONFLICT, (0.894384, -2.607720)),
    ],
)
@pytest.mark.slow
def test_examples_of_the_specification(aggregator, mode, losses_fn, wanted):
    tx = mtl.flat_mtl(aggregator(2), rho_shared=0.1, mode=mode)
    update, _ = one_update(tx, losses_fn, POINT)
    np.testing.assert_allclose(update, wanted, atol=2e-6)


def test_adaptive_perturbation():
    params, grads = jnp.array([2.0, -1.0]), jnp.array([[1.0, 2.0]])
    tx = mtl.flat_mtl(mtl.unitary(1), rho_shared=0.1, adaptive=True)
    there = asked_points(tx, params, grads)
    np.testing.assert_allclose(there[0] - params, (0.141421, 0.070711), atol=1e-6)


PARAMS = {"trunk": jnp.ones((2, 3)), "head": {"a": jnp.ones(2), "b": -jnp.ones(2)}}
MASK = {"trunk": True, "head": False}
GRADS = {
    "trunk": jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3)), float),
    "head": {
        "a": jnp.array([[3.0, 4.0], [0.0, 0.0]]),
        "b": jnp.array([[0.0, 0.0], [0.0, 1e-4]]),
    },
}


def moves(**options):
    tx = mtl.flat_mtl(mtl.unitary(2), shared=MASK, **options)
    there = asked_points(tx, PARAMS, GRADS)
    return jax.tree.map(lambda q, p: q - p[None], there, PARAMS)


def length(*leaves):
    return np.sqrt(sum(float(jnp.sum(x**2)) for x in leaves))


@pytest.mark.parametrize("task", [0, 1])
def test_radii_of_shared_and_own_leaves(task):
    own = "ab"[task]
    apart = moves(rho_shared=0.1, rho_specific=0.3)
    np.testing.assert_allclose(length(apart["trunk"][task]), 0.1, rtol=1e-5)
    np.testing.assert_allclose(length(apart["head"][own][task]), 0.3, rtol=1e-3)
    assert not apart["head"]["ba"[task]][task].any()
    same = moves(rho_shared=0.1)
    np.testing.assert_allclose(length(same["head"][own][task]), 0.1, rtol=1e-3)
    joint = moves(rho_shared=0.1, norm="joint")
    whole = length(joint["trunk"][task], joint["head"][own][task])
    np.testing.assert_allclose(whole, 0.1, rtol=1e-3)


def heads_losses(params):
    features = jnp.tanh(params["trunk"].sum(axis=1))
    return {t: jnp.sum((features * params["head"][t] - 0.5) ** 2) for t in ("a", "b")}


@pytest.mark.slow
def test_own_leaves_take_their_perturbed_gradient():
    tx = mtl.flat_mtl(mtl.mgda(2), rho_shared=0.1, rho_specific=0.2, shared=MASK)
    _, grads = mtl.task_grads(heads_losses)(PARAMS)
    there = asked_points(tx, PARAMS, grads)
    extras = {"losses_fn": heads_losses}
    update, _ = tx.update(grads, tx.init(PARAMS), PARAMS, **extras)
    for task, name in enumerate("ab"):
        uphill = jax.tree.map(lambda p, task=task: p[task], there)
        wanted = jax.grad(lambda p, name=name: heads_losses(p)[name])(uphill)
        np.testing.assert_allclose(
            update["head"][name], wanted["head"][name], rtol=1e-4, atol=1e-6
        )


def test_one_task_is_sam():
    tx = mtl.flat_mtl(mtl.unitary(1), rho_shared=0.05)
    update, _ = one_update(tx, lambda w: {"a": other_bowl(w)}, POINT)
    adversary = optax.chain(mtl.safe_normalize(), optax.sgd(0.05))
    sam = optax.contrib.sam(optax.sgd(1.0), adversary, opaque_mode=True)
    gradient = jax.grad(other_bowl)
    wanted, _ = sam.update(
        gradient(POINT), sam.init(POINT), POINT, grad_fn=lambda p, _: gradient(p)
    )
    np.testing.assert_allclose(update, -wanted, rtol=1e-5)


AGGREGATORS = {
    "mean": mtl.mean,
    "mgda": mtl.mgda,
    "pcgrad": functools.partial(mtl.pcgrad, key=0),
    "cagrad": mtl.cagrad,
    "imtl_g": mtl.imtl_g,
    "nash_mtl": mtl.nash_mtl,
    "uw": mtl.uw,
    "graddrop": functools.partial(mtl.graddrop, key=0),
}


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.slow
def test_radius_zero_is_the_plain_method(name):
    plain = AGGREGATORS[name](2)
    tx = mtl.flat_mtl(plain, rho_shared=0.0)
    update, _ = one_update(tx, CONFLICT, POINT)
    losses, grads = mtl.task_grads(CONFLICT)(POINT)
    wanted, _ = plain.update(grads, plain.init(POINT), POINT, losses=losses)
    chex.assert_trees_all_equal(update, wanted)


@pytest.mark.parametrize("name", ["unitary", "mean"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_both_modes_are_the_same_for_linear_aggregators(name, adaptive):
    point = jnp.array([1.5, -0.5])
    both = [
        one_update(
            mtl.flat_mtl(
                getattr(mtl, name)(2), rho_shared=0.3, adaptive=adaptive, mode=mode
            ),
            CONFLICT,
            point,
        )[0]
        for mode in ("split", "direct")
    ]
    np.testing.assert_allclose(*both, rtol=1e-5)


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.slow
def test_any_aggregator_under_jit_scan_and_vmap_over_the_radius(name):
    def train(rho):
        tx = optax.chain(
            mtl.flat_mtl(AGGREGATORS[name](2), rho_shared=rho), optax.adam(1e-2)
        )

        def step(carry, _):
            params, state = carry
            updates, state = one_update(tx, CONFLICT, params, state)
            return (optax.apply_updates(params, updates), state), None

        return lax.scan(step, (POINT, tx.init(POINT)), length=5)[0][0]

    ends = jax.jit(jax.vmap(train))(jnp.array([0.0, 0.2]))
    assert np.all(np.isfinite(ends))
    assert np.any(ends[0] != ends[1])


@pytest.mark.parametrize("mode", ["split", "direct"])
@pytest.mark.parametrize("name", ["mgda", "cagrad", "uw"])
@pytest.mark.slow
def test_a_missing_task_does_no_harm(name, mode):
    """A NaN in its gradients, plain and perturbed, stays there."""
    options = {"rho_shared": 0.1, "mode": mode}
    tx = mtl.flat_mtl(AGGREGATORS[name](3), **options)
    losses, grads = mtl.task_grads(CONFLICT)(POINT)
    nan = jnp.full((1, 2), jnp.nan)

    def losses_fn(w):
        return {**CONFLICT(w), "c": jnp.nan * jnp.sum(w)}

    grads = jnp.concatenate([grads, nan])
    extras = {
        "losses": jnp.append(losses, jnp.nan),
        "active": jnp.array([True, True, False]),
    }
    there = asked_points(tx, POINT, grads, **extras)
    np.testing.assert_array_equal(there[2], POINT)
    update, state = tx.update(
        *(grads, tx.init(POINT), POINT), losses_fn=losses_fn, **extras
    )
    alone = mtl.flat_mtl(AGGREGATORS[name](2), **options)
    wanted, _ = one_update(alone, CONFLICT, POINT)
    np.testing.assert_allclose(update, wanted, rtol=1e-5)
    chex.assert_tree_all_finite(state)


def test_both_parts_keep_a_state_of_their_own():
    tx = mtl.flat_mtl(mtl.mgda(2), rho_shared=0.1)
    _, state = one_update(tx, CONFLICT, POINT)
    weights = mtl.task_weights(state.loss_part), mtl.task_weights(state.flat_part)
    assert np.any(weights[0] != weights[1])
    with pytest.raises(ValueError, match="flat_part"):
        mtl.task_weights(state)


@pytest.mark.slow
def test_statistics_of_batch_norm_come_from_the_unperturbed_pass():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.trunk = nnx.Linear(3, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.heads = nnx.Dict(
                a=nnx.Linear(4, 1, rngs=rngs), b=nnx.Linear(4, 1, rngs=rngs)
            )

        def __call__(self, x):
            z = nnx.relu(self.norm(self.trunk(x)))
            return {name: head(z)[:, 0] for name, head in self.heads.items()}

    def losses_of(net, x):
        return {name: jnp.mean((y - x[:, 0]) ** 2) for name, y in net(x).items()}

    losses_fn, params, statistics = module_losses(Net(nnx.Rngs(0)), losses_of)
    x = jax.random.normal(jax.random.key(0), (16, 3))

    def shared(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "heads" not in jax.tree_util.keystr(path), params
        )

    def step(tx, params, statistics):
        (losses, new), grads = mtl.task_grads(losses_fn, has_aux=True)(
            params, statistics, x
        )
        updates, _ = tx.update(
            *(grads, tx.init(params), params),
            losses=losses,
            losses_fn=lambda p: losses_fn(p, statistics, x)[0],
        )
        return updates, new

    flat = mtl.flat_mtl(mtl.mgda(2), rho_shared=0.5, shared=shared)
    updates, new = jax.jit(functools.partial(step, flat))(params, statistics)
    plain_updates, once = step(mtl.on_shared(mtl.mgda(2), shared), params, statistics)
    chex.assert_trees_all_close(new, once, rtol=1e-5)
    differ = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), updates, plain_updates)
    assert all(jax.tree.leaves(differ))


@pytest.mark.optimized
def test_cost_is_two_gradients_a_task():
    """Compiled FLOPs against the same aggregator without perturbation."""
    width = 64
    params = {"trunk": jnp.ones((width, width)), "a": jnp.ones(width)}
    params["b"] = jnp.ones(width)
    x = jnp.ones((32, width))

    def flops(tx):
        def step(params):
            return one_update(tx, functools.partial(wide_losses, x=x), params)[0]

        return jax.jit(step).lower(params).compile().cost_analysis()["flops"]

    ratio = flops(mtl.flat_mtl(mtl.mean(2), rho_shared=0.1)) / flops(mtl.mean(2))
    # XLA counts a loop's body once, so of the stack one forward and one backward pass,
    # 3 in forward passes; against T forward and T backward more, 6.
    assert 2.7 < ratio < 3.3


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="rho_shared must be at least 0"):
        mtl.flat_mtl(mtl.mean(2), rho_shared=-1.0)
    with pytest.raises(ValueError, match="leave rho_specific out"):
        mtl.flat_mtl(mtl.mean(2), rho_shared=1.0, rho_specific=1.0, norm="joint")
    tx = mtl.flat_mtl(mtl.mean(2), rho_shared=0.1)
    with pytest.raises(ValueError, match="losses_fn="):
        tx.update(jnp.ones((2, 2)), tx.init(POINT), POINT)
    with pytest.raises(ValueError, match="params"):
        tx.update(jnp.ones((2, 2)), tx.init(POINT))
    three = {"losses_fn": lambda w: 3 * (w[0],)}
    with pytest.raises(ValueError, match="num_tasks=2"):
        tx.update(jnp.ones((3, 2)), tx.init(POINT), POINT, **three)
    with pytest.raises(ValueError, match="losses_fn= gave 3 losses for 2 tasks"):
        tx.update(jnp.ones((2, 2)), tx.init(POINT), POINT, **three)


def test_half_precision_and_check_chain():
    params = POINT.astype(jnp.bfloat16)
    tx = optax.chain(mtl.flat_mtl(mtl.mgda(2), rho_shared=0.1), optax.adam(1e-3))
    update, _ = one_update(tx, CONFLICT, params)
    assert update.dtype == jnp.bfloat16
    mtl.check_chain(tx, params, 2, losses=jnp.ones(2), losses_fn=CONFLICT)
