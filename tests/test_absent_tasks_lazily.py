"""The NaN of an absent task stays out of sums that are pulled back in one pass."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec
from methods import METHODS

import mtl_optax as mtl

T = 3
ACTIVE = jnp.array([True, False, True])
KEYS = jax.random.split(jax.random.key(0), T + 2)
PARAMS = {
    "trunk": 0.5 * jax.random.normal(KEYS[-1], (4, 4)),
    "head": {name: jax.random.normal(KEYS[t], (4,)) for t, name in enumerate("abc")},
}
SHARED = {"trunk": True, "head": False}
INPUTS = dict(zip("abc", jax.random.normal(KEYS[-2], (T, 8, 4)), strict=True))
BROKEN = {**INPUTS, "b": INPUTS["b"].at[2].set(jnp.nan)}
close = partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-6)


def features_fn(params, inputs):
    return {name: jnp.tanh(x @ params["trunk"]) for name, x in inputs.items()}


def heads_fn(params, features, inputs):
    del inputs
    heads = params["head"]
    return {name: jnp.mean((z @ heads[name]) ** 2) for name, z in features.items()}


def losses_fn(params, inputs):
    return heads_fn(params, features_fn(params, inputs), inputs)


def guarded(params, inputs):
    """As users try first: 0 in place of a loss that is not finite."""
    losses = losses_fn(params, inputs)
    return {name: jnp.where(jnp.isfinite(x), x, 0) for name, x in losses.items()}


lazily = mtl.lazy_task_grads(losses_fn)


def update(tx, lazy, active=ACTIVE, **extra):
    return tx.update(lazy, tx.init(PARAMS), PARAMS, active=active, **extra)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.family == "losses"], ids=lambda m: m.name
)
def test_update_and_statistics_of_methods_that_see_losses(method):
    tx = method.make(T)
    draws = {k: v for k, v in method.extras(T, PARAMS).items() if k != "losses"}

    @jax.jit
    def both(inputs, known):
        return (
            update(tx, lazily(PARAMS, inputs)[1], **draws),
            update(tx, lazily(PARAMS, known)[1].stack(), losses=known_losses, **draws),
        )

    known_losses = lazily(PARAMS, INPUTS)[0]
    got, wanted = both(BROKEN, INPUTS)
    close(got, wanted)


# --- Every way to such a sum ----------------------------------------------------------

GROUPED = {"trunk": None, "head": {name: t for t, name in enumerate("abc")}}
WAYS = {
    "guarded losses": lambda x: update(
        mtl.unitary(T), mtl.lazy_task_grads(guarded)(PARAMS, x)[1]
    )[0],
    "a tuple": lambda x: mtl.combine(
        mtl.lazy_task_grads(lambda p: tuple(losses_fn(p, x).values()))(PARAMS)[1],
        *(jnp.ones(T), ACTIVE),
    ),
    "combine": lambda x: mtl.combine(
        lazily(PARAMS, x)[1], jnp.ones(T), dict(zip("abc", ACTIVE, strict=True))
    ),
    "features": lambda x: update(
        mtl.unitary(T), mtl.feature_task_grads(features_fn, heads_fn)(PARAMS, x)[1]
    )[0],
    "the rest": lambda x: update(
        mtl.on_shared(mtl.unitary(T), SHARED), lazily(PARAMS, x)[1]
    )[0],
    "labels": lambda x: update(
        mtl.on_shared(
            mtl.unitary(T),
            labels={"trunk": ("a", "b", "c"), "head": {n: (n,) for n in "abc"}},
        ),
        lazily(PARAMS, x)[1],
    )[0],
    "in chunks": lambda x: update(
        mtl.mgda(T),
        mtl.lazy_task_grads(losses_fn, chunk_size=2)(PARAMS, x)[1],
    )[0],
    "held weights": lambda x: update(
        mtl.from_weighting(mtl.every_k(mtl.unitary.weighting(), 2), T),
        lazily(PARAMS, x)[1],
    )[0],
    "groups": lambda x: mtl.group_grads_at(losses_fn, x)(PARAMS, jnp.ones(T), ACTIVE)[
        1
    ],
    "selective_groups": lambda x: update(
        mtl.selective_groups(T, optax.sgd(0.1), owner=GROUPED, key=0),
        lazily(PARAMS, x)[1],
        losses_fn=lambda p: losses_fn(p, x),
        order=jnp.arange(T),
    )[0],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way(way):
    program = jax.jit(WAYS[way])
    close(program(BROKEN), program(INPUTS))


def test_graddrop_at_features_of_each_task():
    """Task b has features of its own, and a NaN in the trunk behind them."""
    tx = mtl.graddrop(T, key=0, at="features")
    grads_fn = mtl.feature_task_grads(features_fn, heads_fn)
    program = jax.jit(lambda x: update(tx, grads_fn(PARAMS, x)[1])[0])
    close(program(BROKEN), program(INPUTS))


def test_task_affinity_with_an_optimizer():
    tx = mtl.task_affinity(
        T, owner=GROUPED, optimizer=optax.sgd(0.1, momentum=0.9), every_k=2
    )

    def state(x):
        lazy = lazily(PARAMS, x)[1]
        known = {"losses_fn": lambda p: losses_fn(p, x)}
        new = update(tx, lazy, **known)[1]
        return new.optimizer_state

    close(jax.jit(state)(BROKEN), jax.jit(state)(INPUTS))


# --- Under transformations ------------------------------------------------------------


def pulled(inputs, active=ACTIVE, dtype=None, axis_name=None):
    params = jax.tree.map(lambda x: x.astype(dtype or x.dtype), PARAMS)
    lazy = mtl.lazy_task_grads(losses_fn, axis_name=axis_name)(params, inputs)[1]
    return mtl.combine(lazy, jnp.array([1.0, 1.0, 0.5]), active)


def stacked(*inputs):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs)


def test_lanes_and_steps():
    """One lane needs row after row; the others do the same, to the same values."""
    lanes = stacked(INPUTS, BROKEN)
    wanted = stacked(*[pulled(INPUTS)] * 2)
    close(jax.jit(jax.vmap(pulled))(lanes), wanted)
    assert "cond[" in str(jax.make_jaxpr(jax.vmap(pulled))(lanes))
    steps = jax.lax.scan(lambda _, x: (0, pulled(x)), 0, lanes)[1]
    close(steps, wanted)


def test_half_precision():
    program = jax.jit(partial(pulled, dtype=jnp.bfloat16))
    got, wanted = program(BROKEN), program(INPUTS)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, wanted)
    chex.assert_trees_all_close(got, wanted, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("averages", [False, True], ids=["plain", "batch statistics"])
def test_one_device_of_a_mesh_has_the_nan(averages, check_vma):
    """All devices go the same way, or those that wait for the others wait for ever."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def centred(params, inputs):
        z = features_fn(params, inputs)
        if averages:
            mean = jax.lax.pmean(
                jax.tree.map(lambda x: x.mean(0, keepdims=True), z), "data"
            )
            z = jax.tree.map(jnp.subtract, z, mean)
        return heads_fn(params, z, inputs)

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
        check_vma=check_vma,
    )
    def program(inputs):
        grads_fn = mtl.lazy_task_grads(centred, axis_name="data")
        return mtl.combine(grads_fn(PARAMS, inputs)[1], jnp.ones(T), ACTIVE)

    close(program(BROKEN), program(INPUTS))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_parameters(kind):
    with jax.set_mesh(jax.make_mesh((2,), ("model",), axis_types=(kind,))):
        spec = jax.P(None, "model")
        trunk = jax.device_put(
            PARAMS["trunk"], jax.NamedSharding(jax.sharding.get_mesh(), spec)
        )

        def loss(trunk, x):
            return jnp.mean(jnp.tanh(jnp.sum(x[:, :, None] * trunk[None], 1)) ** 2)

        def program(trunk, inputs):
            lazy = mtl.lazy_task_grads(
                lambda p: {name: loss(p, x) for name, x in inputs.items()}
            )(trunk)[1]
            return mtl.combine(lazy, jnp.ones(T), ACTIVE)

        got, wanted = (jax.jit(program)(trunk, x) for x in (BROKEN, INPUTS))
        assert got.sharding.spec == spec
        close(got, wanted)


# --- What it costs, and what it must not hide -----------------------------------------


def test_the_nan_of_an_active_task_stays():
    for active in (jnp.array([False, True, True]), jnp.ones(T, bool)):
        bad = jax.tree.leaves(jax.jit(pulled)(BROKEN, active))
        assert any(jnp.any(jnp.isnan(leaf)) for leaf in bad)


def outside_of_branches(program, *args):
    """The operations of a program that run whatever branch is taken."""
    return [equation.primitive.name for equation in program_of(program, *args)]


def program_of(program, *args):
    return jax.make_jaxpr(program)(*args).jaxpr.eqns


def test_one_pass_in_the_usual_case_and_nothing_at_all_without_a_mask():
    plain = outside_of_branches(partial(pulled, active=None), INPUTS)
    masked = outside_of_branches(pulled, INPUTS)
    assert plain.count("cond") == plain.count("is_finite") == 0
    assert masked.count("cond") == 1
    assert masked.count("dot_general") == plain.count("dot_general")
    assert masked.count("is_finite") == len(jax.tree.leaves(PARAMS))
