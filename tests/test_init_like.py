"""`init_like`: every array of a state lies where its parameters lie."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
from methods import METHODS

import mtl_optax as mtl

T = 3
P = PartitionSpec
SPECS = {"kernel": P(("a", "b")), "bias": P("a"), "scale": P()}
SHAPES = {"kernel": (8, 2), "bias": (8,), "scale": ()}
KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)


def mesh_of(kind):
    return jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind,) * 2)


def places(mesh):
    """As JAX itself writes them on either mesh."""
    specs = dict(SPECS)
    if AxisType.Explicit in mesh.axis_types:
        specs["kernel"] = P(("a", "b"), None)
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def absent(mesh):
    """Parameters that are not there yet."""
    return {
        name: jax.ShapeDtypeStruct(SHAPES[name], jnp.float32, sharding=at)
        for name, at in places(mesh).items()
    }


def placed(mesh):
    ones = {name: np.full(shape, 0.5, np.float32) for name, shape in SHAPES.items()}
    return jax.device_put(ones, places(mesh))


def cut(sharding):
    """The axes of a spec, without those at its end that cut nothing."""
    spec = tuple(sharding.spec) if sharding else ()
    while spec and spec[-1] is None:
        spec = spec[:-1]
    return spec


def specs(state):
    return [cut(leaf.sharding) for leaf in jax.tree.leaves(state)]


LABELS = {"kernel": ("a", "b", "c"), "bias": ("a", "b"), "scale": ("a",)}
WRAPPED = {
    "accumulate_tasks": lambda: mtl.accumulate_tasks(mtl.moco(T), T, every_k=2),
    "cr_mogm": lambda: mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting()), T),
    "flat_mtl": lambda: mtl.flat_mtl(mtl.upgrad(T), rho_shared=0.1),
    "labels": lambda: mtl.on_shared(mtl.moco(T), labels=LABELS),
    "samo": lambda: mtl.samo(mtl.moco(T), key=0),
    "stale": lambda: mtl.stale(mtl.graddrop(T, key=0), T, order="random"),
}
EVERY = {method.name: lambda method=method: method.make(T) for method in METHODS}


@pytest.mark.parametrize("make", (EVERY | WRAPPED).values(), ids=(EVERY | WRAPPED))
def test_every_method_is_placed_as_on_explicit_axes(make):
    """Where JAX's types say it by themselves."""
    tx = optax.chain(make(), optax.adam(0.1))
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        typed = jax.eval_shape(tx.init, absent(mesh))
    wanted = specs(typed)
    assert {("a",), (("a", "b"),), ()} <= set(wanted)
    for kind in AxisType.Auto, AxisType.Explicit:
        mesh = mesh_of(kind)
        state = mtl.init_like(tx, absent(mesh))
        assert specs(state) == wanted
        assert {leaf.sharding.mesh for leaf in jax.tree.leaves(state)} == {mesh}
        chex.assert_trees_all_equal_shapes_and_dtypes(state, typed)


class Copied(NamedTuple):
    copy: optax.Params  # zeros of a shape, which do not come of the parameter
    memory: optax.Params  # [5, *param]
    rows: dict  # by the names of the parameters, but of other shapes


def copied():
    def init(params):
        rows = {name: jnp.zeros((*p.shape[:1], 7)) for name, p in params.items()}
        return Copied(
            jax.tree.map(lambda p: jnp.zeros(p.shape), params),
            jax.tree.map(lambda p: jnp.zeros((5, *p.shape)), params),
            rows,
        )

    return optax.GradientTransformation(init, lambda g, state, params=None: (g, state))


def test_zeros_that_are_made_of_a_shape_are_placed_too():
    state = mtl.init_like(copied(), absent(mesh_of(AxisType.Auto)))
    assert {name: cut(x.sharding) for name, x in state.copy.items()} == {
        "kernel": (("a", "b"),),
        "bias": ("a",),
        "scale": (),
    }
    assert {name: cut(x.sharding) for name, x in state.memory.items()} == {
        "kernel": (None, ("a", "b")),
        "bias": (None, "a"),
        "scale": (),
    }
    assert set(specs(state.rows)) == {()}


def everything():
    """Wrappers and chains of ours and of optax around each other."""
    labels = {"kernel": "moves", "bias": "moves", "scale": "rests"}
    shared = {"kernel": True, "bias": True, "scale": False}
    parts = {"moves": optax.adam(0.1), "rests": optax.sgd(0.1, momentum=0.9)}
    noise = optax.add_noise(0.1, 0.5, jax.random.key(7))
    return optax.chain(
        mtl.per_task(optax.chain(optax.trace(0.9), noise), T),
        mtl.on_shared(mtl.gradvac(T, key=1), shared),
        optax.inject_hyperparams(optax.add_decayed_weights)(0.1),
        optax.masked(optax.ema(0.9), shared),
        optax.partition(parts, labels),
        optax.add_noise(0.1, 0.5, jax.random.key(3)),
    )


@KINDS
def test_a_state_of_all_sorts(kind):
    tx = mtl.skip_nonfinite_tasks(everything(), T)
    params = placed(mesh_of(kind))
    state = mtl.init_like(tx, params)
    plain = tx.init(jax.device_get(params))
    assert jax.tree.structure(state) == jax.tree.structure(plain)
    found = []
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(plain), strict=True
    )
    for (path, leaf), wanted in pairs:
        name = getattr(path[-1], "key", None)
        lead = leaf.ndim - len(SHAPES.get(name, ()))
        spec = P(*(None,) * lead, *SPECS[name]) if name in SHAPES else P()
        at = NamedSharding(params["bias"].sharding.mesh, spec)
        assert leaf.sharding.is_equivalent_to(at, leaf.ndim), (path, leaf.sharding)
        assert leaf.committed
        assert leaf.dtype == wanted.dtype
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            found.append(leaf.shape)
            leaf, wanted = jax.random.key_data(leaf), jax.random.key_data(wanted)
        np.testing.assert_array_equal(leaf, wanted)
    assert found == [(T,), ()]  # typed keys, one a task and one for all
    again = mtl.init_like(tx, params)
    assert specs(again) == specs(state)
    assert specs(mtl.init_like(tx, absent(mesh_of(kind)))) == specs(state)


@KINDS
def test_no_device_holds_more_than_its_part_and_training_compiles_once(kind):
    mesh = mesh_of(kind)
    params = placed(mesh)
    tx = mtl.accumulate_tasks(
        optax.chain(mtl.unitary(T), optax.adam(0.1)), T, every_k=2
    )

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(lambda p: jnp.stack([p, 2 * p, 3 * p]), params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with jax.set_mesh(mesh):
        state = mtl.init_like(tx, params)
        new, after = step(*step(params, state))
    moment = optax.tree.get(after, "mu")["kernel"]
    assert {shard.data.shape for shard in moment.addressable_shards} == {(1, 2)}
    assert after.gathered["bias"].sharding.shard_shape((T, 8)) == (T, 2)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
    assert specs((new, after)) == specs((params, state))
    assert step._cache_size() == 1


@KINDS
def test_one_array_as_parameters_is_told_from_what_belongs_to_tasks(kind):
    """Eight tasks and eight numbers."""
    mesh = mesh_of(kind)
    params = jax.device_put(np.ones(8, np.float32), NamedSharding(mesh, P("a")))
    tx = optax.chain(mtl.moco(8), optax.adam(0.1))
    state = mtl.init_like(tx, params)
    assert cut(state[0].tracked.sharding) == (None, "a")
    assert cut(optax.tree.get(state, "mu").sharding) == ("a",)
    state = mtl.init_like(mtl.cagrad(8), params)
    assert mtl.task_weights(state).shape == (8,)
    assert set(specs(state)) == {()}


def test_on_one_device_it_is_init():
    tx = optax.chain(mtl.upgrad(T), optax.adam(0.1))
    params = {"w": jnp.ones(8)}
    chex.assert_trees_all_equal(mtl.init_like(tx, params), tx.init(params))
    assert not any(x.committed for x in jax.tree.leaves(mtl.init_like(tx, params)))
    there = SingleDeviceSharding(jax.devices()[3])
    state = mtl.init_like(tx, jax.device_put(params, there))
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {there}
    chex.assert_trees_all_equal(mtl.init_like(tx, {"w": np.ones(8, np.float32)}), state)
    assert jax.tree.leaves(mtl.init_like(mtl.unitary(T), {})) != []


def test_parameters_that_are_placed_nowhere_follow_those_that_are():
    mesh = mesh_of(AxisType.Auto)
    params = placed(mesh) | {"loose": jnp.ones(8)}
    state = mtl.init_like(optax.adam(0.1), params)
    assert state[0].mu["loose"].sharding == NamedSharding(mesh, P())
    assert cut(state[0].mu["bias"].sharding) == ("a",)


def test_where_parameters_lie_on_different_devices():
    mesh = mesh_of(AxisType.Auto)
    one = jax.device_put(jnp.ones(2), jax.devices()[1])
    params = placed(mesh) | {"one": one}
    cure = r"\['bias'\].*on devices \[0, .*\['one'\] on devices \[1\].*device_put"
    with pytest.raises(ValueError, match=cure):
        mtl.init_like(optax.adam(0.1), params)
    half = jax.make_mesh(
        (4,), ("a",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,)
    )
    params = placed(mesh) | {
        "half": jax.device_put(jnp.ones(2), NamedSharding(half, P()))
    }
    with pytest.raises(ValueError, match=r"\['half'\] on devices \[0, 1, 2, 3\]"):
        mtl.init_like(optax.adam(0.1), params)


def test_what_is_no_transformation():
    with pytest.raises(ValueError, match=r"init_like takes a transformation.*calling"):
        mtl.init_like(mtl.upgrad, {"w": jnp.ones(8)})


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_traced_parameters_do_not_say_where_they_lie(transform):
    with pytest.raises(ValueError, match=r"\['w'\] is traced.*Call init_like outside"):
        transform(lambda p: mtl.init_like(optax.adam(0.1), p))({"w": jnp.ones(8)})
