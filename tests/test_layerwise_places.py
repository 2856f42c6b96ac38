"""Lazy gradients wherever a step may run: loops, meshes, other dtypes, broken tasks.

The models take the row form in part: fewer rows than columns, and a table of words.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from layerwise_runs import (
    BY_LENGTH,
    flat,
    gramian_error,
    inner_products,
    lazy_step,
    rows,
    stacked_by_jax,
    update_error,
    weighted,
)

import mtl_optax as mtl

T, WORDS, WIDTH, ROWS = 3, 20, 16, 8
TX = mtl.from_weighting(BY_LENGTH, T)
RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.standard_normal(shape), jnp.float32)


PARAMS = {
    "table": normal(WORDS, WIDTH),
    "w": normal(2, WIDTH, WIDTH, scale=0.3),
    "b": normal(WIDTH),
    "heads": {name: normal(WIDTH, 2, scale=0.5) for name in "abc"},
}
BATCH = (
    jnp.asarray(RNG.integers(WORDS, size=ROWS), jnp.int32),
    normal(ROWS, WIDTH),
    {name: normal(ROWS, 2) for name in "abc"},
)


def trunk(params, ids, x):
    z = params["table"][ids] + x
    z = jnp.tanh(z @ params["w"][0] + params["b"][None, :])
    return jnp.tanh(z @ params["w"][1])


def losses_fn(params, ids, x, y):
    z = trunk(params, ids, x)
    return {n: jnp.mean((z @ params["heads"][n] - y[n]) ** 2) for n in sorted(y)}


def scanned_losses(params, ids, x, y):
    """The same with the layers in a scan whose body is computed again."""

    @jax.checkpoint
    def layer(z, w):
        return jnp.tanh(z @ w + params["b"][None, :]), None

    z = lax.scan(layer, params["table"][ids] + x, params["w"])[0]
    return {n: jnp.mean((z @ params["heads"][n] - y[n]) ** 2) for n in sorted(y)}


BOTH_MODELS = pytest.mark.parametrize("losses_fn", [losses_fn, scanned_losses])


def stacked_step(losses_fn, tx=TX):
    """The same step from gradients that JAX makes alone."""

    def step(params, *batch, **extra):
        stacked, _ = stacked_by_jax(losses_fn, params, *batch)
        return tx.update(stacked, tx.init(params), params, **extra)

    return step


def check(found, wanted, bound=1e-6):
    (update, state), (wanted_update, wanted_state) = found, wanted
    gramian = np.asarray(wanted_state.task_gramian, np.float64)
    assert gramian_error(state.task_gramian, gramian) < 2 * bound
    assert update_error(update, flat(wanted_update)) < 10 * bound


def check_both(around, *args, bound=1e-6, losses_fn=losses_fn):
    """`around` puts a step somewhere."""
    lazy = lazy_step(losses_fn, TX)
    found = jax.jit(around(lambda *args: lazy(*args)[:2]))(*args)
    wanted = jax.jit(around(stacked_step(losses_fn)))(*args)
    for step in zip(*map(leading, (found, wanted)), strict=True):
        check(*step, bound)


def leading(done):
    """One lane or step after the other."""
    number = done[1].task_gramian.shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], done) for i in range(number)]


# --- Transformations around the step --------------------------------------------------


def seeds(params):
    """Three sets of parameters."""
    return jax.tree.map(lambda p: jnp.stack([p, 0.5 * p[::-1], -p]), params)


@BOTH_MODELS
@pytest.mark.slow
def test_vmap_over_seeds(losses_fn):
    around = lambda step: jax.vmap(step, (0, None, None, None))  # noqa: E731
    check_both(around, seeds(PARAMS), *BATCH, losses_fn=losses_fn)


def in_a_scan(step):
    """Of training: the parameters change."""

    def run(params, *batch):
        def one(params, scale):
            done = step(params, batch[0], scale * batch[1], batch[2])
            update = jax.tree.map(lambda u: -0.05 * u, done[0])
            return optax.apply_updates(params, update), done

        return lax.scan(one, params, jnp.array([1.0, 0.5, -1.0]))[1]

    return run


def in_a_branch(step):
    def run(params, *batch):
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(step, params, *batch))
        some = [
            lax.cond(batch[1][0, 0] * sign > 0, step, lambda *_: zeros, params, *batch)
            for sign in (1, -1)
        ]
        return jax.tree.map(lambda *x: jnp.sum(jnp.stack(x), 0)[None], *some)

    return run


def in_a_loop(step):
    def run(params, *batch):
        first = step(params, *batch)
        last = lax.fori_loop(0, 2, lambda _, done: step(params, *batch), first)
        return jax.tree.map(lambda x: x[None], last)

    return run


def in_a_map(step):
    def run(params, *batch):
        return lax.map(lambda p: step(p, *batch), seeds(params))

    return run


def in_vmap_of_scan(step):
    def run(params, *batch):
        done = jax.vmap(in_a_scan(step), (0, None, None, None))(seeds(params), *batch)
        return jax.tree.map(lambda x: x.reshape(9, *x.shape[2:]), done)

    return run


@pytest.mark.parametrize(
    "around", [in_a_scan, in_a_branch, in_a_loop, in_a_map, in_vmap_of_scan]
)
@pytest.mark.slow
def test_control_flow_around(around):
    check_both(around, PARAMS, *BATCH, bound=2e-6)


@pytest.mark.slow
def test_derivatives_of_the_gramian():
    """Forward and backward, as for hyper-gradients."""
    mix = normal(T, T)

    def by_us(params):
        return jnp.sum(
            mix * mtl.gramian(mtl.lazy_task_grads(losses_fn)(params, *BATCH)[1])
        )

    def by_jax(params):
        return jnp.sum(mix * mtl.gramian(stacked_by_jax(losses_fn, params, *BATCH)[0]))

    direction = jax.tree.map(jnp.cos, PARAMS)
    found, wanted = (
        jax.jit(lambda p, f=f: (jax.grad(f)(p), jax.jvp(f, (p,), (direction,))[1]))(
            PARAMS
        )
        for f in (by_us, by_jax)
    )
    assert update_error(found[0], flat(wanted[0])) < 1e-5
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)


@pytest.mark.slow
def test_donated_parameters_and_state():
    step = lazy_step(losses_fn, TX)
    wanted = jax.jit(stacked_step(losses_fn))(PARAMS, *BATCH)

    @partial(jax.jit, donate_argnums=(0, 1))
    def train(params, state, *batch):
        update, state, *_ = step(params, *batch)
        return jax.tree.map(jnp.add, params, update), state

    given = jax.tree.map(jnp.copy, PARAMS)
    after, state = train(given, TX.init(PARAMS), *BATCH)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    check((jax.tree.map(jnp.subtract, after, PARAMS), state), wanted)


# --- Meshes ---------------------------------------------------------------------------


def on_devices(params_spec, batch_spec, kind, **options):
    """The step on eight devices, arrays laid out by hand."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))  # noqa: E731
        params = jax.tree.map(place, PARAMS, params_spec)
        batch = jax.tree.map(place, BATCH, batch_spec)
        return jax.jit(lambda *args: lazy_step(sharded_losses, TX)(*args)[:2])(
            params, *batch
        ), params


def sharded_losses(params, ids, x, y):
    """As above, with the axes of what JAX cannot know on an Explicit mesh."""
    spec = lambda x: jax.typeof(x).sharding.spec  # noqa: E731
    table = params["table"]
    explicit = AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types
    out = PartitionSpec(spec(x)[0], None) if explicit else None
    z = table.at[ids].get(out_sharding=out) + x
    for w in params["w"] if not explicit else [params["w"][i] for i in range(2)]:
        z = jnp.tanh(jnp.dot(z, w, out_sharding=out) + params["b"][None, :])
    return {
        n: jnp.mean((jnp.dot(z, params["heads"][n], out_sharding=out) - y[n]) ** 2)
        for n in sorted(y)
    }


P = PartitionSpec
REPLICATED = {"table": P(), "w": P(), "b": P(), "heads": P()}
FSDP = {
    "table": P(None, "data"),
    "w": P(None, "data", None),
    "b": P(),
    "heads": P("data", None),
}
TENSORS = {
    "table": P(None, None),
    "w": P(None, None, "model"),
    "b": P(),
    "heads": P("model", None),
}
ROWS_OF_THE_TABLE = {**REPLICATED, "table": P("data", None)}


def whole(spec):
    return {**spec, "heads": dict.fromkeys("abc", spec["heads"])}


BY_ROWS = (P("data"), P("data", None), dict.fromkeys("abc", P("data", None)))
NOT_SPLIT = (P(), P(), dict.fromkeys("abc", P()))
LAYOUTS = {
    "data": (REPLICATED, BY_ROWS),
    "fsdp": (FSDP, BY_ROWS),
    "weights": (TENSORS, NOT_SPLIT),
    "both": (TENSORS, BY_ROWS),
    "table": (ROWS_OF_THE_TABLE, BY_ROWS),
    "nothing": (REPLICATED, NOT_SPLIT),
}


def both_layers(params, ids, x, y):
    """`losses_fn` with a bias in both layers, which `sharded_losses` is."""
    z = params["table"][ids] + x
    for w in params["w"]:
        z = jnp.tanh(z @ w + params["b"][None, :])
    return {n: jnp.mean((z @ params["heads"][n] - y[n]) ** 2) for n in sorted(y)}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.slow
def test_meshes(layout, kind):
    params_spec, batch_spec = LAYOUTS[layout]
    found, params = on_devices(whole(params_spec), batch_spec, kind)
    check(found, jax.jit(stacked_step(both_layers))(PARAMS, *BATCH))
    if kind == AxisType.Auto:
        return  # XLA chooses.
    for mine, given in zip(*map(jax.tree.leaves, (found[0], params)), strict=True):
        assert mine.sharding.is_equivalent_to(given.sharding, mine.ndim)


@pytest.mark.parametrize("check_vma", [True, False])
@BOTH_MODELS
@pytest.mark.slow
def test_shard_map(check_vma, losses_fn):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step = lazy_step(losses_fn, TX, axis_name="data")
    program = jax.shard_map(
        lambda *args: step(*args)[:2],
        mesh=mesh,
        in_specs=(P(), P("data"), P("data"), P("data")),
        out_specs=P(),
        check_vma=check_vma,
    )
    found = jax.jit(program)(PARAMS, *BATCH)
    check(found, jax.jit(stacked_step(losses_fn))(PARAMS, *BATCH))


@pytest.mark.slow
def test_a_mapped_axis_of_vmap():
    """Data parallel by `jax.vmap`, four parts of the batch."""
    step = lazy_step(losses_fn, TX, axis_name="data")
    parts = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), BATCH)
    program = jax.vmap(lambda *args: step(*args)[:2], (None, 0, 0, 0), axis_name="data")
    wanted = jax.jit(stacked_step(losses_fn))(PARAMS, *BATCH)
    for lane in leading(jax.jit(program)(PARAMS, *parts)):
        check(lane, wanted)


# --- Tasks that are not there, or broken ----------------------------------------------

NAN = jnp.nan


def by_task(params, xs, ys, scales):
    """Data, a head and a factor of the loss for each task."""
    return {
        n: scales[n]
        * jnp.mean((jnp.tanh(xs[n] @ params["w"][0]) @ params["heads"][n] - ys[n]) ** 2)
        for n in sorted(xs)
    }


def inputs_by_task():
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return (
        {n: draw(5, WIDTH) for n in "abc"},
        {n: draw(5, 2) for n in "abc"},
        dict.fromkeys("abc", jnp.float32(1)),
    )


PLACES = {
    "data": lambda params, xs, ys, s, bad: (
        (params, {**xs, "b": xs["b"].at[2, 3].set(bad)}, ys, s)
    ),
    "all data": lambda params, xs, ys, s, bad: (
        (params, {**xs, "b": jnp.full_like(xs["b"], bad)}, ys, s)
    ),
    "target": lambda params, xs, ys, s, bad: (
        (params, xs, {**ys, "b": ys["b"].at[0, 0].set(bad)}, s)
    ),
    "loss": lambda params, xs, ys, s, bad: (
        (params, xs, ys, {**s, "b": jnp.float32(bad)})
    ),
    "head": lambda params, xs, ys, s, bad: (
        (
            {**params, "heads": {**params["heads"], "b": params["heads"]["b"] * bad}},
            *(xs, ys, s),
        )
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.slow
def test_a_broken_task_that_is_not_active(place, bad):
    """The update is what the others alone give, and so is their Gramian."""
    data = PLACES[place](PARAMS, *inputs_by_task(), bad)
    active = jnp.array([True, False, True])
    update, state, *_ = jax.jit(lazy_step(by_task, TX))(*data, active=active)

    def two(params, *data):
        losses = by_task(params, *({n: d[n] for n in "ac"} for d in data))
        return losses

    pair = mtl.from_weighting(BY_LENGTH, 2)
    whole = PARAMS, *inputs_by_task()
    wanted = jax.jit(stacked_step(two, pair))(*whole)
    small = state._replace(task_gramian=state.task_gramian[::2, ::2])
    check((update, small), wanted)
    np.testing.assert_array_equal(state.task_gramian[1], 0)
    np.testing.assert_array_equal(update["heads"]["b"], 0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.slow
def test_a_broken_task_leaves_the_others_products_alone(place):
    """Without a mask, and so a task with NaN is found and skipped."""
    data = PLACES[place](PARAMS, *inputs_by_task(), NAN)
    tx = mtl.skip_nonfinite_tasks(TX, T)

    @jax.jit
    def program(*data):
        _, lazy = mtl.lazy_task_grads(by_task)(*data)
        return mtl.gramian(lazy), lazy_step(by_task, tx)(*data)[0]

    gramian, update = program(*data)
    each = rows(jax.jit(partial(stacked_by_jax, by_task))(PARAMS, *inputs_by_task())[0])
    wanted = inner_products(each)[::2, ::2]
    assert gramian_error(gramian[::2, ::2], wanted) < 2e-6
    assert np.all(np.isnan(gramian[1]))
    pair, _ = BY_LENGTH.update(jnp.float32(wanted), (), losses=None, active=None)
    weights = np.array([pair[0], 0, pair[1]])
    assert update_error(update, weighted(weights, each)) < 1e-5


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.slow
def test_a_broken_head_over_a_shared_trunk(bad):
    heads = {**PARAMS["heads"], "b": PARAMS["heads"]["b"].at[3, 1].set(bad)}
    active = jnp.array([True, False, True])
    step = jax.jit(lazy_step(losses_fn, TX))
    update, state, *_ = step({**PARAMS, "heads": heads}, *BATCH, active=active)
    wanted, wanted_state, *_ = step(PARAMS, *BATCH, active=active)
    check((update, state), (wanted, wanted_state))


@pytest.mark.slow
def test_nobody_is_active():
    step = jax.jit(lazy_step(losses_fn, TX))
    update, state, *_ = step(PARAMS, *BATCH, active=jnp.zeros(T, bool))
    assert not np.any(flat(update))
    assert not np.any(state.task_gramian)


# --- Numbers --------------------------------------------------------------------------


def scaled(scale, params, *batch):
    return {n: scale * loss for n, loss in losses_fn(params, *batch).items()}


@pytest.mark.parametrize("scale", [1e20, 1e-20])
@pytest.mark.slow
def test_gradients_of_any_length(scale):
    """UPGrad's directions do not depend on a factor of all losses."""
    tx = mtl.upgrad(T)
    wanted, *_ = jax.jit(lazy_step(losses_fn, tx))(PARAMS, *BATCH)
    update, *_ = jax.jit(lazy_step(partial(scaled, scale), tx))(PARAMS, *BATCH)
    assert update_error(jax.tree.map(lambda u: u / scale, update), flat(wanted)) < 1e-5


@pytest.mark.slow
def test_one_long_and_one_short_gradient():
    def losses(params, *batch):
        plain = losses_fn(params, *batch)
        return {**plain, "a": 1e10 * plain["a"], "b": 1e-14 * plain["b"]}

    tx = mtl.upgrad(T)
    found = jax.jit(lazy_step(losses, tx))(PARAMS, *BATCH)
    wanted = jax.jit(stacked_step(losses, tx))(PARAMS, *BATCH)
    assert update_error(found[0], flat(wanted[0])) < 1e-5


@pytest.mark.slow
def test_float64(x64):
    cast = partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.float64))
    params, (ids, *rest) = cast(PARAMS), BATCH
    batch = ids, *cast(rest)
    found = jax.jit(lambda *args: lazy_step(losses_fn, TX)(*args)[:2])(params, *batch)
    wanted = jax.jit(stacked_step(losses_fn))(params, *batch)
    assert found[1].task_gramian.dtype == jnp.float64
    check(found, wanted, bound=1e-14)


@pytest.mark.slow
def test_float32_parameters_under_x64(x64):
    found = jax.jit(lambda *args: lazy_step(losses_fn, TX)(*args)[:2])(PARAMS, *BATCH)
    wanted = jax.jit(stacked_step(losses_fn))(PARAMS, *BATCH)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
    check(found, wanted)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.slow
def test_half_precision_parameters(dtype):
    """Some in half precision, some not. Each gradient is rounded once more or less."""
    params = {
        **PARAMS,
        "w": PARAMS["w"].astype(dtype),
        "table": PARAMS["table"].astype(dtype),
    }
    found = jax.jit(lambda *args: lazy_step(losses_fn, TX)(*args)[:2])(params, *BATCH)
    wanted = jax.jit(stacked_step(losses_fn))(params, *BATCH)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
    check(found, wanted, bound=float(jnp.finfo(dtype).eps) / 2)


# --- Trees ----------------------------------------------------------------------------


@pytest.mark.slow
def test_odd_trees():
    """Empty leaves, scalars, one leaf alone, leaves that no loss sees, an int batch."""
    params = [
        {"empty": jnp.zeros((0, 3)), "scalar": jnp.float32(0.7)},
        (normal(WIDTH, WIDTH), None, normal(3, 1, 2)),
    ]

    def losses(params, x, n):
        scalar, w = params[0]["scalar"], params[1][0]
        z = jnp.tanh(x @ w) * scalar
        return jnp.mean(z), jnp.mean((z - n) ** 2), jnp.sum(params[0]["empty"]) + scalar

    args = params, BATCH[1], jnp.int32(3)
    found = jax.jit(lambda *args: lazy_step(losses, TX)(*args)[:2])(*args)
    check(found, jax.jit(stacked_step(losses))(*args))
    assert not np.any(found[0][1][2])

    alone = lambda w, x: tuple(jnp.mean(jnp.tanh(x @ w) ** k) for k in (1, 2, 3))  # noqa: E731
    args = params[1][0], BATCH[1]
    found = jax.jit(lambda *args: lazy_step(alone, TX)(*args)[:2])(*args)
    check(found, jax.jit(stacked_step(alone))(*args))
