"""Per-task gradients: values, isolation, cost, data parallelism, features."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import mtl_optax as mtl

T = 3


def make_params(seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    heads = {f"head{t}": jax.random.normal(keys[t], (6, 2)) for t in range(T)}
    return {
        "w1": 0.5 * jax.random.normal(keys[3], (4, 6)),
        "w2": 0.5 * jax.random.normal(keys[4], (6, 6)),
        **heads,
    }


def make_data(batch=16, seed=1):
    k1, k2 = jax.random.split(jax.random.key(seed))
    return jax.random.normal(k1, (batch, 4)), jax.random.normal(k2, (T, batch, 2))


def trunk(params, x):
    return jnp.tanh(jnp.tanh(x @ params["w1"]) @ params["w2"])


def head_loss(params, z, y, t):
    return jnp.mean((z @ params[f"head{t}"] - y) ** 2)


def losses_dict(params, x, ys):
    z = trunk(params, x)
    return {f"task{t}": head_loss(params, z, ys[t], t) for t in range(T)}


def losses_tuple(params, x, ys):
    return tuple(losses_dict(params, x, ys).values())


def losses_array(params, x, ys):
    return jnp.stack(losses_tuple(params, x, ys))


FORMS = {"dict": losses_dict, "tuple": losses_tuple, "array": losses_array}
SHARED = {k: k.startswith("w") for k in make_params()}


def reference(params, x, ys):
    rows = [
        jax.grad(lambda p, t=t: losses_tuple(p, x, ys)[t])(params) for t in range(T)
    ]
    return losses_array(params, x, ys), jax.tree.map(lambda *g: jnp.stack(g), *rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk_size", [None, 1, 2, T])
@pytest.mark.contract
def test_task_grads_are_each_tasks_gradient(form, chunk_size):
    params, data = make_params(), make_data()
    fn = mtl.task_grads(FORMS[form], chunk_size=chunk_size)
    losses, grads = jax.jit(fn)(params, *data)
    expected_losses, expected = reference(params, *data)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    chex.assert_trees_all_close(grads, expected, rtol=1e-5, atol=1e-6)


def test_order_of_a_dict_is_that_of_sorted_names():
    losses, grads = mtl.task_grads(lambda p: {"z": 3 * p, "a": p, "m": 2 * p})(1.0)
    np.testing.assert_array_equal(losses, [1, 2, 3])
    np.testing.assert_array_equal(grads, [1, 2, 3])


@pytest.mark.parametrize("transform", [mtl.task_grads, mtl.lazy_task_grads])
def test_aux_is_returned_beside_the_losses(transform):
    def with_aux(params, x):
        return {"a": jnp.sum(params * x), "b": jnp.sum(params)}, {"stats": 2 * x}

    (losses, aux), _ = transform(with_aux, has_aux=True)(jnp.ones(2), jnp.ones(2))
    np.testing.assert_array_equal(losses, [2, 2])
    np.testing.assert_array_equal(aux["stats"], [2, 2])


def own_inputs():
    """A dict of batches, one a task, of different sizes, and their losses."""
    batches = {
        f"task{t}": (jax.random.normal(jax.random.key(t), (32 * (t + 1), 4)), t - 1.0)
        for t in range(T)
    }

    def of_batches(params, batches):
        return {
            name: head_loss(params, trunk(params, x), jnp.full((len(x), 2), y), t)
            for t, (name, (x, y)) in enumerate(batches.items())
        }

    return of_batches, batches


@pytest.mark.optimized
@pytest.mark.slow
def test_tasks_with_inputs_of_their_own_cost_one_backward_each():
    """T x (forward + backward) on each task's own batch, not T x T."""
    losses_fn, batches = own_inputs()
    params = make_params()

    def summed(params, batches):
        return sum(losses_fn(params, batches).values())

    stacked = flops(mtl.task_grads(losses_fn), params, batches)
    plain = flops(jax.value_and_grad(summed), params, batches)
    assert stacked < 1.1 * plain


@pytest.mark.slow
def test_a_task_with_inputs_of_its_own_may_be_absent():
    losses_fn, batches = own_inputs()
    params, tx = make_params(), mtl.on_shared(mtl.cagrad(T), SHARED)
    active = jnp.array([True, False, True])
    missing = {**batches, "task1": (jnp.full((64, 4), jnp.nan), 0.0)}

    @jax.jit
    def update(batches):
        _, grads = mtl.lazy_task_grads(losses_fn)(params, batches)
        return tx.update(grads, tx.init(params), params, active=active)[0]

    chex.assert_trees_all_close(update(missing), update(batches), rtol=1e-5)
    assert jnp.all(update(batches)["head1"] == 0)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", ["dict", "tuple"])
@pytest.mark.slow
def test_nan_of_one_task_stays_in_its_row(form, lazy):
    params, (x, ys) = make_params(), make_data()
    ys = ys.at[1].set(jnp.nan)
    active = jnp.array([True, False, True])
    transform = mtl.lazy_task_grads if lazy else mtl.task_grads
    tx = mtl.on_shared(mtl.cagrad(T), SHARED)

    @jax.jit
    def update(params):
        _, grads = transform(FORMS[form])(params, x, ys)
        return tx.update(grads, tx.init(params), params, active=active)[0]

    chex.assert_tree_all_finite(update(params))
    assert not jnp.all(jnp.isfinite(update_without_active(form, x, ys)(params)["w1"]))


def update_without_active(form, x, ys):
    def update(params):
        _, grads = mtl.task_grads(FORMS[form])(params, x, ys)
        return mtl.combine(grads, jnp.ones(T))

    return update


def flops(fn, *args):
    return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]


def temp_bytes(fn, *args):
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def wide():
    """A trunk whose matrices dominate, so that counts of passes show as ratios."""
    keys = jax.random.split(jax.random.key(0), 2 + T)
    params = {f"head{t}": jax.random.normal(keys[t], (256, 2)) for t in range(T)}
    params["w1"] = jax.random.normal(keys[T], (4, 256))
    params["w2"] = jax.random.normal(keys[T + 1], (256, 256))
    return params, make_data(batch=64)


def step(tx, transform):
    def run(params, x, ys):
        _, grads = transform(losses_dict)(params, x, ys)
        return tx.update(grads, tx.init(params), params)[0]

    return run


@pytest.mark.optimized
@pytest.mark.slow
def test_lazy_cost_in_backward_passes():
    params, data = wide()
    plain = flops(jax.grad(lambda *a: sum(losses_tuple(*a))), params, *data)
    forward = flops(losses_array, params, *data)
    backward = plain - forward
    lazy_unitary = flops(step(mtl.unitary(T), mtl.lazy_task_grads), params, *data)
    together = partial(mtl.task_grads, chunk_size=T)  # a loop would be counted once
    stacked_unitary = flops(step(mtl.unitary(T), together), params, *data)
    assert lazy_unitary < plain * 1.02
    assert stacked_unitary > forward + 0.9 * T * backward
    lazy_mgda = flops(step(mtl.mgda(T), mtl.lazy_task_grads), params, *data)
    assert lazy_mgda < flops(step(mtl.mgda(T), together), params, *data) * 1.01


@pytest.mark.optimized
@pytest.mark.slow
def test_lazy_from_gramian_methods_build_no_stack():
    params, data = wide()
    lazy = temp_bytes(step(mtl.mgda(T), mtl.lazy_task_grads), params, *data)
    stacked = temp_bytes(step(mtl.mgda(T), mtl.task_grads), params, *data)
    copy = sum(x.nbytes for x in jax.tree.leaves(params)) * T
    assert lazy < stacked - 0.5 * copy


def test_custom_vjp_remat_and_scan_inside_losses():
    """Lazy gradients linearise once and transpose per task; these must survive it."""

    @jax.custom_vjp
    def clipped(x):
        return x**2

    clipped.defvjp(lambda x: (x**2, x), lambda x, g: (jnp.clip(2 * x * g, -0.5, 0.5),))

    def composed(params, x):
        z = jax.checkpoint(lambda p: jnp.tanh(clipped(x @ p)))(params)
        z, _ = jax.lax.scan(lambda c, _: (jnp.sin(c @ params), None), z, None, length=3)
        return {"a": jnp.sum(z), "b": jnp.mean(z**2)}

    params = 0.3 * jax.random.normal(jax.random.key(0), (4, 4))
    x = jnp.ones((2, 4))
    _, grads = jax.jit(mtl.task_grads(composed))(params, x)
    for t, name in enumerate("ab"):
        expected = jax.grad(lambda p, n=name: composed(p, x)[n])(params)
        np.testing.assert_allclose(grads[t], expected, rtol=1e-5, atol=1e-7)


def executed(program, name):
    """How often an operation runs, those in a scan once a step."""
    count = 0
    for equation in program.eqns:
        count += equation.primitive.name == name
        times = equation.params.get("length", 1)
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                count += times * executed(inner, name)
    return count


@pytest.mark.parametrize(
    ("transform", "chunk_size", "again"),
    [
        (mtl.task_grads, None, T),
        (mtl.task_grads, 2, 2),
        (mtl.task_grads, T, 1),
        (mtl.lazy_task_grads, None, 1),
    ],
)
def test_a_rematerialised_trunk_is_computed_again_once_a_chunk(
    transform, chunk_size, again
):
    depth = 5
    params = {"trunk": jnp.ones((depth, 4, 4)), "heads": jnp.ones((T, 4))}

    def deep(params, z):
        block = jax.checkpoint(lambda z, w: (jnp.tanh(z @ w), None))
        z, _ = jax.lax.scan(block, z, params["trunk"])
        return {f"task{t}": jnp.sum(z @ params["heads"][t]) for t in range(T)}

    def gradients(params, z):
        _, grads = transform(deep, chunk_size=chunk_size)(params, z)
        return mtl.gramian(grads)

    program = jax.make_jaxpr(gradients)(params, jnp.ones((2, 4)))
    assert executed(program.jaxpr, "tanh") == depth * (1 + again)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.slow
def test_axis_name_averages_before_the_gramian(lazy, check_vma):
    """Data parallel equals one device; aggregating on each device first does not."""
    params, (x, ys) = make_params(), make_data(batch=32)
    tx = mtl.on_shared(mtl.mgda(T), SHARED)
    transform = mtl.lazy_task_grads if lazy else mtl.task_grads
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P("data"), P(None, "data")),
        out_specs=P(),
        check_vma=check_vma,
    )
    def parallel(params, x, ys):
        losses, grads = transform(losses_dict, axis_name="data")(params, x, ys)
        return losses, tx.update(grads, tx.init(params), params)[0]

    @functools.partial(jax.vmap, in_axes=(None, 0, 1), axis_name="data")
    def each_first(params, x, ys):
        _, grads = mtl.task_grads(losses_dict)(params, x, ys)
        return tx.update(grads, tx.init(params), params)[0]

    expected_losses, grads = mtl.task_grads(losses_dict)(params, x, ys)
    expected = tx.update(grads, tx.init(params), params)[0]
    losses, got = parallel(params, x, ys)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-6)
    local = each_first(params, x.reshape(4, 8, 4), ys.reshape(T, 4, 8, 2))
    mean_of_local = jax.tree.map(lambda g: jnp.mean(g, axis=0), local)
    assert jnp.max(jnp.abs(mean_of_local["w1"] - expected["w1"])) > 1e-3


def feature_grads(**kwargs):
    def heads(params, z, x, ys):
        return {f"task{t}": head_loss(params, z, ys[t], t) for t in range(T)}

    return mtl.feature_task_grads(
        lambda params, x, ys: trunk(params, x), heads, **kwargs
    )


def feature_gramian(params, x, ys):
    z = trunk(params, x)
    rows = [
        jax.grad(lambda z, t=t: head_loss(params, z, ys[t], t))(z) for t in range(T)
    ]
    flat = jnp.stack(rows).reshape(T, -1)
    return jnp.matmul(flat, flat.T, precision="highest")


def test_feature_task_grads_are_mgda_ub():
    params, data = make_params(), make_data()
    losses, lazy = feature_grads()(params, *data)
    expected_losses, stacked = reference(params, *data)
    gramian = feature_gramian(params, *data)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    np.testing.assert_allclose(lazy.gramian(), gramian, rtol=1e-5, atol=1e-8)

    tx = mtl.on_shared(mtl.mgda(T), SHARED)
    update, state = tx.update(lazy, tx.init(params), params)
    same = mtl.on_shared(mtl.mgda(T), SHARED)
    expected, _ = same.update(stacked, same.init(params), params, gramian=gramian)
    chex.assert_trees_all_close(update, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(mtl.task_weights(state)), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "method",
    [mtl.mgda(T), mtl.graddrop(T, key=0, at="features")],
    ids=["mgda", "graddrop"],
)
@pytest.mark.optimized
@pytest.mark.slow
def test_feature_task_grads_cost_one_pass_through_the_trunk(method):
    params, data = wide()

    def run(params, x, ys):
        tx = mtl.on_shared(method, SHARED)
        _, lazy = feature_grads()(params, x, ys)
        return tx.update(lazy, tx.init(params), params)[0]

    plain = flops(jax.grad(lambda *a: sum(losses_tuple(*a))), params, *data)
    assert flops(run, params, *data) < 1.15 * plain


def test_feature_gramian_over_a_data_axis():
    params, (x, ys) = make_params(), make_data(batch=32)

    @functools.partial(jax.vmap, in_axes=(None, 0, 1), axis_name="data")
    def parallel(params, x, ys):
        return feature_grads(axis_name="data")(params, x, ys)[1].gramian()

    got = parallel(params, x.reshape(4, 8, 4), ys.reshape(T, 4, 8, 2))[0]
    np.testing.assert_allclose(
        got, feature_gramian(params, x, ys), rtol=1e-4, atol=1e-8
    )


def test_feature_aux():
    fn = mtl.feature_task_grads(
        lambda p: (2 * p, "aux"), lambda p, z: (jnp.sum(z), jnp.sum(p)), has_aux=True
    )
    (losses, aux), lazy = fn(jnp.ones(2))
    assert aux == "aux"
    np.testing.assert_array_equal(losses, [4, 2])
    np.testing.assert_array_equal(lazy.stack(), [[2, 2], [1, 1]])


# --- GradDrop at the features ---------------------------------------------------------


def dropped_by_hand(params, x, ys, uniform, tasks=range(T), leak=(0.0,) * T):
    """Chen et al., Algorithm 1, with jax.grad and jax.vjp alone."""
    z, pull = jax.vjp(lambda params: trunk(params, x), params)
    heads = [
        jax.grad(lambda p, z, t=t: head_loss(p, z, ys[t], t), argnums=(0, 1))(params, z)
        for t in tasks
    ]
    cotangents = jnp.stack([by_z for _, by_z in heads])
    signed = jnp.sum(jnp.sign(z)[None] * cotangents, axis=1)
    purity = (1 + signed.sum(0) / jnp.abs(signed).sum(0)) / 2
    positive, negative = purity > uniform, purity < uniform
    mask = positive[None] * (signed > 0) + negative[None] * (signed < 0)
    part = jnp.array([leak[t] for t in tasks])[:, None]
    share = part + (1 - part) * mask
    (update,) = pull(jnp.sum(share[:, None] * cotangents, axis=0))
    for by_params, _ in heads:
        update = jax.tree.map(jnp.add, update, by_params)
    return update


@pytest.mark.parametrize("leak", [None, (0.0, 0.5, 1.0)])
@pytest.mark.parametrize("shared", [None, SHARED], ids=["alone", "on_shared"])
@pytest.mark.slow
def test_graddrop_at_features(leak, shared):
    params, data = make_params(), make_data()
    tx = mtl.graddrop(T, key=0, leak=leak, at="features")
    tx = tx if shared is None else mtl.on_shared(tx, shared)

    @jax.jit
    def step(params, x, ys, uniform):
        _, lazy = feature_grads()(params, x, ys)
        return tx.update(lazy, tx.init(params), params, uniforms=uniform)[0]

    updates = []
    for seed in range(3):
        uniform = jax.random.uniform(jax.random.key(seed), (6,))
        wanted = dropped_by_hand(params, *data, uniform, leak=leak or (0.0,) * T)
        updates.append(step(params, *data, uniform))
        chex.assert_trees_all_close(updates[-1], wanted, rtol=1e-5, atol=1e-6)
    assert np.any(updates[0]["w1"] != updates[1]["w1"])


@pytest.mark.parametrize("shared", [None, SHARED], ids=["alone", "on_shared"])
def test_graddrop_at_features_without_a_task(shared):
    """The others get what they would get alone, and a NaN stays in its task."""
    params, (x, ys) = make_params(), make_data()
    tx = mtl.graddrop(T, key=0, at="features")
    tx = tx if shared is None else mtl.on_shared(tx, shared)
    uniform = jnp.linspace(0.2, 0.8, 6)
    broken = ys.at[1].set(jnp.nan)
    _, lazy = feature_grads()(params, x, broken)

    def step(active):
        active = jnp.asarray(active)
        return tx.update(
            lazy, tx.init(params), params, active=active, uniforms=uniform
        )[0]

    wanted = dropped_by_hand(params, x, ys, uniform, tasks=(0, 2))
    got = step([True, False, True])
    chex.assert_trees_all_close(got, wanted, rtol=1e-5, atol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, params)
    chex.assert_trees_all_equal(step([False] * T), zero)


@pytest.mark.slow
def test_graddrop_at_features_over_a_data_axis():
    """Signs are summed over all devices, so that they drop the same entries."""
    params, (x, ys) = make_params(), make_data(batch=32)
    tx = mtl.graddrop(T, key=0, at="features")
    uniform = jnp.linspace(0.2, 0.8, 6)

    @functools.partial(jax.vmap, in_axes=(None, 0, 1), axis_name="data")
    def parallel(params, x, ys):
        _, lazy = feature_grads(axis_name="data")(params, x, ys)
        return tx.update(lazy, tx.init(params), params, uniforms=uniform)[0]

    got = parallel(params, x.reshape(4, 8, 4), ys.reshape(T, 4, 8, 2))
    wanted = dropped_by_hand(params, x, ys, uniform)
    first = jax.tree.map(lambda leaf: leaf[0], got)
    chex.assert_trees_all_close(first, wanted, rtol=1e-4, atol=1e-6)


def test_graddrop_at_features_onto_another_tree():
    params, data = make_params(), make_data()
    tx = mtl.graddrop(T, key=0, at="features")
    _, lazy = feature_grads()(params, *data)
    update, state = tx.update(lazy, tx.init(params), params)
    as_list = jax.tree.leaves(params)
    again, _ = tx.update(lazy.onto(as_list), tx.init(as_list), as_list)
    chex.assert_trees_all_close(again, jax.tree.leaves(update), rtol=1e-5, atol=1e-7)
    drawn = {np.asarray(update["w1"]).tobytes()}
    for _ in range(5):
        update, state = tx.update(lazy, state, params)
        drawn.add(np.asarray(update["w1"]).tobytes())
    assert len(drawn) > 1


def test_graddrop_at_features_says_what_it_needs():
    params, data = make_params(), make_data()
    tx = mtl.graddrop(T, key=0, at="features")
    for make in (mtl.task_grads, mtl.lazy_task_grads):
        _, grads = make(losses_dict)(params, *data)
        with pytest.raises(ValueError, match=r"feature_task_grads\(features_fn"):
            tx.update(grads, tx.init(params), params)
    without_batch = mtl.feature_task_grads(jnp.sum, lambda p, z: (z, 2 * z, 3 * z))
    with pytest.raises(ValueError, match="first axis of each must be the batch"):
        tx.update(without_batch(jnp.ones(2))[1], tx.init(jnp.ones(2)))
