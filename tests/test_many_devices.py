"""Steps on eight devices: what is sent, what each holds and computes; the values."""

import math
import re
from collections import Counter
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from layerwise_runs import BY_LENGTH
from methods import METHODS

import mtl_optax as mtl

KINDS = AxisType.Auto, AxisType.Explicit
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=str)
OPERATIONS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def sent(program):
    """How often each collective of so many numbers stands in the compiled program."""
    found = re.findall(rf"= (.*?) ({OPERATIONS})(?:-start)?\(", program.as_text())
    return Counter(
        (operation, math.prod(int(n) for n in shape.split(",") if n))
        for shapes, operation in found
        for shape in re.findall(r"\w+\[([\d,]*)\]", shapes)
    )


def place(tree, specs):
    """On the mesh in use, in buffers of its own."""
    mesh = jax.sharding.get_mesh()

    def leaf(x, spec):
        return jax.device_put(np.array(x), NamedSharding(mesh, spec))

    return jax.tree.map(leaf, tree, specs)


def close(found, wanted, bound=1e-6):
    """To `bound` of the largest number, of all leaves."""
    found, wanted = jax.device_get((found, wanted))
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
    for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=bound * largest)


# --- Aggregators alone ----------------------------------------------------------------

SHAPES = {"kernel": (8, 16), "bias": (8,), "scale": ()}
LAYOUTS = {
    "last": {"kernel": P(None, "m"), "bias": P("m"), "scale": P()},
    "both": {"kernel": P("d", "m"), "bias": P("d"), "scale": P()},
    "one axis over two": {"kernel": P(("d", "m")), "bias": P(("d", "m")), "scale": P()},
}
METHODS_HERE = (
    mtl.from_weighting(BY_LENGTH, 3),
    mtl.pcgrad(3, key=0, granularity="leaf"),
    mtl.db_mtl(3),
    mtl.trimmed_mean(3),
    mtl.unitary(3),
)


def gradients(num_tasks):
    rng = np.random.default_rng(0)
    return {
        name: np.float32(rng.standard_normal((num_tasks, *shape)))
        for name, shape in SHAPES.items()
    }


def updates(stacked, losses):
    params = jax.tree.map(lambda g: g[0], stacked)
    return [
        tx.update(stacked, tx.init(params), params, losses=losses)[0]
        for tx in METHODS_HERE
    ]


@cache
def updates_alone():
    return jax.jit(updates)(gradients(3), jnp.ones(3))


@EACH_KIND
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.slow
def test_aggregators_send_products_of_tasks_only(layout, kind):
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        specs = {name: P(None, *spec) for name, spec in LAYOUTS[layout].items()}
        stacked = place(gradients(3), specs)
        program = jax.jit(updates).lower(stacked, jnp.ones(3)).compile()
        found = program(stacked, jnp.ones(3))
    close(found, updates_alone())
    assert {operation for operation, _ in sent(program)} == {"all-reduce"}
    assert max(size for _, size in sent(program)) <= 3 * 3


# --- Whole steps ----------------------------------------------------------------------

T, ROWS, IN, WIDTH, OUT = 3, 8, 32, 64, 4
RNG = np.random.default_rng(0)


def normal(*shape):
    return np.float32(RNG.standard_normal(shape) / math.sqrt(shape[0]))


HEADS = tuple("xyz")
PARAMS = {
    "a": normal(IN, WIDTH),
    "b": normal(WIDTH, WIDTH),
    "bias": normal(WIDTH),
    "heads": {name: normal(WIDTH, OUT) for name in HEADS},
}
BATCH = normal(ROWS, IN), normal(T, ROWS, OUT)
WEIGHT = P("d", "m")
MODEL = {
    "a": WEIGHT,
    "b": WEIGHT,
    "bias": P("m"),
    "heads": dict.fromkeys(HEADS, P("d", None)),
}
STEPS = {  # axes that parameters are cut along, that of the batch, the mesh's shape
    "batch": ((), "d", (8, 1)),
    "fsdp": (("d",), "d", (8, 1)),
    "weights": (("m",), None, (1, 8)),
    "both": (("d", "m"), "d", (4, 2)),
}


def along(spec, axes):
    """With these axes of the mesh alone."""
    return P(*(part if part in axes else None for part in spec))


def explicit():
    return AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types


def gathered(weight, spec):
    """As a product needs it: not cut along the axis of the batch."""
    where = jax.sharding.reshard if explicit() else lax.with_sharding_constraint
    return where(weight, along(spec, ("m",)))


def dot(x, weight, *spec):
    if explicit():
        return jnp.dot(x, weight, out_sharding=P(*spec))
    return lax.with_sharding_constraint(x @ weight, P(*spec))


def losses_fn(params, x, y, dot=lambda x, w, *spec: x @ w, rows=None, wide=None):
    z = jnp.tanh(dot(x, params["a"], rows, wide) + params["bias"][None, :])
    z = jnp.tanh(dot(z, params["b"], rows, wide))
    outs = [dot(z, params["heads"][name], rows, None) for name in HEADS]
    return {n: jnp.mean((outs[i] - y[i]) ** 2) for i, n in enumerate(HEADS)}


def losses_on(layout):
    """With the layout told, as on an Explicit mesh it must be."""
    axes, rows, _ = STEPS[layout]
    specs = jax.tree.map(lambda spec: along(spec, axes), MODEL)
    wide = "m" if "m" in axes else None

    def placed_losses(params, x, y):
        params = jax.tree.map(gathered, params, specs)
        return losses_fn(params, x, y, dot, rows, wide)

    return placed_losses


TX = optax.chain(mtl.from_weighting(BY_LENGTH, T), optax.trace(0.9))
WAYS = {
    "stacked": mtl.task_grads,
    "lazy": partial(mtl.lazy_task_grads, form="direct"),
    "layer-wise": mtl.lazy_task_grads,
}


def step(way, losses_fn, params, state, *batch):
    if way in WAYS:
        _, grads = WAYS[way](losses_fn)(params, *batch)
        return TX.update(grads, state, params)
    if way == "losses only":
        _, grads = mtl.lazy_task_grads(losses_fn)(params, *batch)
        tx = optax.chain(mtl.unitary(T), optax.trace(0.9))
        update, new = tx.update(grads, (tx.init(params)[0], state[1]), params)
        return update, (state[0], new[1])
    grads = jax.grad(lambda p: sum(losses_fn(p, *batch).values()))(params)
    update, trace = optax.trace(0.9).update(grads, state[1])
    return update, (state[0], trace)


@cache
def on_one_device():
    one = jax.jit(partial(step, "lazy", losses_fn))
    return jax.device_get(one(PARAMS, TX.init(PARAMS), *BATCH)[0])


@cache
def on_mesh(layout, kind, way):
    """The compiled step, and its update."""
    axes, rows, shape = STEPS[layout]
    mesh = jax.make_mesh(shape, ("d", "m"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        params = place(PARAMS, jax.tree.map(lambda spec: along(spec, axes), MODEL))
        batch = place(BATCH, (P(rows), P(None, rows)))
        args = params, TX.init(params), *batch
        like = jax.tree.map(lambda x: x.sharding, args[:2])
        out = {"out_shardings": like} if kind == AxisType.Auto else {}
        jitted = jax.jit(partial(step, way, losses_on(layout)), **out)
        program = jitted.lower(*args).compile()
        update, state = program(*args)
    assert jax.tree.map(lambda x: x.sharding, update) == like[0]
    assert jax.tree.leaves(state)  # what is carried on
    return program, jax.device_get(update)


def temporaries(program):
    return program.memory_analysis().temp_size_in_bytes


FAST = ("fsdp", AxisType.Explicit)
CASES = [*((layout, k) for layout in ("fsdp", "both") for k in KINDS)]
CASES += [("batch", AxisType.Auto), ("weights", AxisType.Explicit)]


@pytest.mark.parametrize(
    ("layout", "kind"),
    [pytest.param(*x, marks=[] if x == FAST else pytest.mark.slow) for x in CASES],
)
def test_steps_send_no_gradient_that_a_plain_step_does_not(layout, kind):
    plain, _ = on_mesh(layout, kind, "plain")
    of_weights = {IN * WIDTH, WIDTH * WIDTH, IN * WIDTH // 2, WIDTH * WIDTH // 2}
    for way in WAYS:
        program, update = on_mesh(layout, kind, way)
        close(update, on_one_device())
        more = sent(program) - sent(plain)
        gathered = [size for operation, size in more if operation != "all-reduce"]
        # Rows of inputs and cotangents, which are fewer than a weight's gradient
        assert max(gathered, default=0) <= T * ROWS * WIDTH < min(of_weights) * 2, way
        for size in of_weights:
            again = more["all-reduce", size]
            assert again <= {"lazy": (T - 1) * 2}.get(way, 0), (way, size)
    if STEPS[layout][1]:
        needed = {way: temporaries(on_mesh(layout, kind, way)[0]) for way in WAYS}
        print(layout, kind, needed)  # bytes a device
        assert needed["layer-wise"] < min(needed["stacked"], needed["lazy"])


@EACH_KIND
@pytest.mark.slow
def test_a_method_of_losses_sends_what_a_plain_step_does_and_gives_the_same_bits(kind):
    plain, update = on_mesh("fsdp", kind, "plain")
    program, found = on_mesh("fsdp", kind, "losses only")
    assert {size for _, size in sent(program) - sent(plain)} <= {1}  # the losses
    chex.assert_trees_all_equal(found, update)
    whole = on_mesh("batch", AxisType.Auto, "losses only")[1]
    chex.assert_trees_all_equal(found, whole)  # the batch is summed in the same order


@pytest.mark.slow
def test_weights_are_the_same_bits_where_parts_are_the_same():
    """Eight parts along one axis of eight devices, or two axes; Auto or Explicit."""

    def weights(stacked):
        tx = mtl.from_weighting(BY_LENGTH, 3)
        return mtl.task_weights(tx.update(stacked, tx.init(None))[1])

    found = []
    for kind in KINDS:
        for shape, axes in (((8, 1), "d"), ((4, 2), ("d", "m"))):
            mesh = jax.make_mesh(shape, ("d", "m"), axis_types=(kind, kind))
            with jax.set_mesh(mesh):
                stacked = gradients(3)
                del stacked["scale"]
                specs = jax.tree.map(lambda _, axes=axes: P(None, axes), stacked)
                found.append(jax.device_get(jax.jit(weights)(place(stacked, specs))))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_explain_counts_rows_on_an_explicit_mesh():
    mesh = jax.make_mesh((8, 1), ("d", "m"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        specs = jax.tree.map(lambda spec: along(spec, ("d",)), MODEL)
        batch = place(BATCH, (P("d"), P(None, "d")))
        told = mtl.explain(losses_on("fsdp"))(place(PARAMS, specs), *batch)
    assert [leaf.form for leaf in told][:2] == ["rows", "rows"]


# --- Tasks apart ----------------------------------------------------------------------

TASKS = 8
OWN = normal(TASKS, ROWS, IN), normal(TASKS, ROWS, OUT)
ONE_HEAD = {**PARAMS, "heads": {"x": PARAMS["heads"]["x"]}}
APART = optax.chain(mtl.from_weighting(BY_LENGTH, TASKS), optax.trace(0.9))


def own_loss(params, x, y):
    z = jnp.tanh(x @ params["a"] + params["bias"][None, :])
    z = jnp.tanh(z @ params["b"])
    return jnp.mean((z @ params["heads"]["x"] - y) ** 2)


def step_apart(params, state, x, y):
    """Each task's batch on a device of its own."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        where = jax.sharding.reshard if explicit() else lax.with_sharding_constraint
        params = jax.tree.map(lambda p: where(p, P()), params)
    of_tasks = jax.vmap(jax.value_and_grad(own_loss), (None, 0, 0))
    losses, grads = of_tasks(params, x, y)
    if not mesh.empty and not explicit():  # which the type says on an Explicit mesh
        for spec in (P("d"), P(None, "d")):
            grads = lax.with_sharding_constraint(grads, spec)
    return APART.update(grads, state, params, losses=losses)


@cache
def apart_on_one_device():
    args = ONE_HEAD, APART.init(ONE_HEAD), *OWN
    program = jax.jit(step_apart).lower(*args).compile()
    return program.cost_analysis()["flops"], jax.device_get(program(*args)[0])


@pytest.mark.parametrize("spec", [P(), P("d")], ids=["whole", "fsdp"])
@EACH_KIND
@pytest.mark.slow
def test_tasks_apart_compute_their_own_gradient_and_exchange_parts(kind, spec):
    with jax.set_mesh(jax.make_mesh((8,), ("d",), axis_types=(kind,))):
        params = place(ONE_HEAD, jax.tree.map(lambda _: spec, ONE_HEAD))
        args = params, APART.init(params), *place(OWN, (P("d"), P("d")))
        program = jax.jit(step_apart).lower(*args).compile()
        update = program(*args)[0]
    flops, wanted = apart_on_one_device()
    close(update, wanted)
    assert program.cost_analysis()["flops"] < 1.1 * flops / TASKS
    count = sum(x.size for x in jax.tree.leaves(ONE_HEAD))
    of = Counter()
    for (operation, size), times in sent(program).items():
        of[operation] += size * times
    assert of["all-to-all"] == count
    assert of["all-gather"] <= 2 * count  # parameters, or the update; no T of them
    assert max(s for op, s in sent(program) if op == "all-reduce") <= TASKS**2


def everywhere(tree):
    return jax.tree.map(lambda x: P(), tree)


@pytest.mark.slow
def test_every_method_takes_tasks_apart_on_an_explicit_mesh():
    """The update lies as the parameters do, and the state as before; traced only."""
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Explicit,) * 2)
    stacked = gradients(TASKS)
    like = jax.tree.map(lambda g: np.zeros_like(g[0]), stacked)
    with jax.set_mesh(mesh):
        of_tasks = jax.tree.map(lambda _: P(("d", "m")), stacked)
        stacked = place(stacked, of_tasks)
        for specs in (everywhere(like), LAYOUTS["both"]):
            params = place(like, specs)
            for method in METHODS:
                extras = method.extras(TASKS, params)
                if "uniforms" in extras:
                    extras["uniforms"] = place(extras["uniforms"], specs)
                vectors = {"active": jnp.ones(TASKS, bool), "losses": jnp.ones(TASKS)}
                split = {name: P(("d", "m")) for name in vectors}
                extras |= place(vectors, split)
                tx = method.make(TASKS)
                state = jax.jit(tx.init).eval_shape(params)
                found, new = jax.jit(tx.update).eval_shape(
                    stacked, state, params, **extras
                )
                for name, leaf in params.items():
                    assert found[name].sharding.spec == jax.typeof(leaf).sharding.spec
                assert jax.tree.structure(new) == jax.tree.structure(state)


def test_products_and_sums_of_tasks_apart():
    stacked = gradients(TASKS)
    weights = jnp.arange(8.0)

    def both(stacked):
        return mtl.gramian(stacked), mtl.combine(stacked, weights)

    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        apart = place(stacked, jax.tree.map(lambda _: P("d"), stacked))
        program = jax.jit(both).lower(apart).compile()
        found = program(apart)
    close(found, both(stacked))
    exchanged = {size for op, size in sent(program) if op == "all-to-all"}
    assert max(exchanged) <= 8 * 16  # one row's
    assert max(size for op, size in sent(program) if op == "all-gather") <= 8 * 16


# --- A block of a transformer, and a weight that is used twice ------------------------

BLOCK = {"in": normal(32, 4, 8), "out": normal(4, 8, 32) / 3, "tied": normal(32, 32)}
BLOCK_SPECS = {"in": P(None, "m"), "out": P("m"), "tied": P()}
SEQUENCES = normal(8, 2, 32), normal(8, 2, 32)


def block_losses(params, x, y, on_mesh=False):
    """Rows `[batch, positions]`, outputs `[heads, width]`, as they stand."""
    out = P("d") if on_mesh and explicit() else None
    heads = jnp.einsum("bsd,dhk->bshk", x, params["in"])
    z = jnp.einsum("bshk,hkd->bsd", jnp.tanh(heads), params["out"], out_sharding=out)
    z = jnp.tanh(jnp.tanh(z @ params["tied"]) @ params["tied"]) - y
    return {"all": jnp.mean(z**2), "first": jnp.mean(z[..., :4] ** 2)}


@EACH_KIND
@pytest.mark.slow
def test_rows_and_outputs_of_several_axes(kind):
    def update(on_mesh, params, *batch):
        tx = mtl.from_weighting(BY_LENGTH, 2)
        losses_fn = partial(block_losses, on_mesh=on_mesh)
        grads_fn = mtl.lazy_task_grads(losses_fn, form="rows")
        return tx.update(grads_fn(params, *batch)[1], tx.init(params), params)[0]

    wanted = jax.jit(partial(update, False))(BLOCK, *SEQUENCES)
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        params, batch = place(BLOCK, BLOCK_SPECS), place(SEQUENCES, (P("d"), P("d")))
        program = jax.jit(partial(update, True)).lower(params, *batch).compile()
        told = mtl.explain(partial(block_losses, on_mesh=True), form="rows")(
            params, *batch
        )
        close(program(params, *batch), wanted)
    forms = {row.leaf: (row.form, row.why) for row in told}
    assert [forms[f"['{name}']"][0] for name in ("in", "out")] == ["rows", "rows"]
    if kind == AxisType.Explicit:
        assert "put together over an explicit mesh" in forms["['tied']"][1]
