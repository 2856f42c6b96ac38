"""What every architecture of `mtl_optax.nn` holds; the rows are in `architectures.py`.

For each row `measured` compares gradients, and `trained` trains, compiled.
"""

import inspect
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from architectures import ARCHITECTURES, LAYERS, TASKS, mean_squares
from flax import nnx
from toy_losses import module_losses

import mtl_optax as mtl
import mtl_optax.nn
from mtl_optax.flax_support import nnx_update
from mtl_optax.nn import owner, shared

STEPS = 30
KEY = jax.random.key(7)
KEYS = jax.random.split(KEY, STEPS)
TREE_MODE = "graph" in inspect.signature(nnx.split).parameters
tree_mode = pytest.mark.skipif(not TREE_MODE, reason="this flax has no NNX tree mode")
EACH = pytest.mark.parametrize("name", ARCHITECTURES)
close = chex.assert_trees_all_close


def built(name, seed=0, dtype=jnp.float32):
    return ARCHITECTURES[name].build(nnx.Rngs(seed), dtype)


def losses_of(name, net, key):
    """A mean square a task and its auxiliary term."""
    row = ARCHITECTURES[name]
    outputs, auxiliary = row.call(net, row.x, key)
    losses = mean_squares(outputs, row.x)
    return {task: loss + auxiliary.get(task, 0.0) for task, loss in losses.items()}


def losses_fn_of(name, net):
    """A function of the parameters and a key, and the parameters."""
    losses_fn, params, rest = module_losses(
        net, lambda net, key: losses_of(name, net, key)
    )
    return lambda params, key: losses_fn(params, rest, key), params


def leaves_of(tree):
    """Leaves by the name of their path."""
    pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None)
    return {jax.tree_util.keystr(path): leaf for path, leaf in pairs}


@cache
def measured(name):
    """Gradients in three ways, updates in two, and forward passes.

    Not compiled as one: many small programs, each for all layers of a shape, take a
    fraction of the time that XLA needs for a large one.
    """
    row = ARCHITECTURES[name]
    net, net16 = built(name), built(name, dtype=jnp.bfloat16)
    losses_fn, params = losses_fn_of(name, net)
    tree = nnx.split(net, **({"graph": False} if TREE_MODE else {}))
    on_shared = mtl.on_shared(mtl.cagrad(2), shared)
    partition = optax.partition({True: mtl.cagrad(2), False: mtl.unitary(2)}, shared)

    def pick(value, task):
        losses, new = value
        return losses[task], new

    def forward(net):
        return row.call(net, row.x, KEY)[0]

    def program(params, tree_state, parts16):
        (_, aux), stacked = mtl.task_grads(losses_fn, has_aux=True)(params, KEY)
        _, lazy = mtl.lazy_task_grads(losses_fn, has_aux=True)(params, KEY)
        one_by_one = [
            jax.grad(lambda p, task=task: pick(losses_fn(p, KEY), task), has_aux=True)(
                params
            )
            for task in TASKS
        ]
        return {
            "stacked": stacked,
            "rows": jax.tree.map(
                lambda *rows: jnp.stack(rows), *(grads for grads, _ in one_by_one)
            ),
            "on_shared": on_shared.update(lazy, on_shared.init(params), params)[0],
            "partition": partition.update(stacked, partition.init(params), params)[0],
            "statistics": nnx.filter_state(aux, nnx.BatchStat),
            "plain statistics": nnx.filter_state(one_by_one[0][1], nnx.BatchStat),
            "outputs": forward(nnx.merge(net_def, params, rest, copy=True)),
            "tree mode": forward(nnx.merge(tree[0], tree_state, copy=True)),
            "bfloat16": forward(nnx.merge(def16, parts16, copy=True)),
        }

    net_def, _, rest = nnx.split(net, nnx.Param, ...)
    def16, parts16 = nnx.split(net16)
    return jax.tree.map(jnp.asarray, nnx.as_pure(program(params, tree[1], parts16)))


def training(name):
    """A network, its optimiser, a step that overwrites both, and its traces."""
    net = built(name)
    tx = optax.chain(mtl.on_shared(mtl.cagrad(2), shared), optax.adam(1e-2))
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
    traces = []

    @partial(nnx.jit, donate_argnums=(0, 1))
    def step(net, optimizer, key):
        traces.append(None)
        losses_fn, params = losses_fn_of(name, net)
        (losses, new), grads = mtl.lazy_task_grads(losses_fn, has_aux=True)(params, key)
        nnx.update(net, new)
        nnx_update(optimizer, net, grads)
        return losses

    return net, optimizer, step, traces


@cache
def trained(name):
    """Losses, the network before and after, and how often the step was traced."""
    net, optimizer, step, traces = training(name)
    losses = np.stack([step(net, optimizer, key) for key in KEYS])
    return losses, built(name), net, len(traces)


@EACH
def test_stacked_gradients_are_those_of_each_loss(name):
    close(measured(name)["stacked"], measured(name)["rows"], rtol=1e-4, atol=1e-6)


@EACH
def test_no_gradient_of_a_task_on_what_another_owns(name):
    """Exactly zero; and where the row says that it is reached, it is."""
    grads, owners = measured(name)["stacked"], owner(TASKS)(measured(name)["stacked"])
    for path, task in leaves_of(owners).items():
        if task is not None:
            others = np.any(leaves_of(grads)[path][1 - task] != 0)
            assert others == ARCHITECTURES[name].reached(path), path


@EACH
def test_owner_and_shared_cover_all_leaves(name):
    params = nnx.to_pure_dict(nnx.state(built(name), nnx.Param))
    owners, mask = owner(TASKS)(params), leaves_of(shared(params))
    assert mask.keys() == leaves_of(params).keys()
    assert {p: task is None for p, task in leaves_of(owners).items()} == mask
    assert {path.split("'")[1] for path, yes in mask.items() if yes} == set(
        ARCHITECTURES[name].shared
    )
    assert set(leaves_of(owners).values()) == {None, 0, 1}


@EACH
def test_shared_is_a_mask_and_a_label(name):
    """Of `on_shared` with lazy, and of `optax.partition` with stacked gradients."""
    close(
        measured(name)["on_shared"], measured(name)["partition"], rtol=1e-3, atol=1e-5
    )


@EACH
def test_statistics_move_as_in_one_forward_pass(name):
    """Whatever the number of tasks whose gradients were taken."""
    moved = measured(name)["statistics"]
    close(moved, measured(name)["plain statistics"], rtol=1e-6)
    before = leaves_of(nnx.to_pure_dict(nnx.state(built(name), nnx.BatchStat)))
    assert bool(before) == ARCHITECTURES[name].statistics
    assert all(np.any(x != before[path]) for path, x in leaves_of(moved).items())


@EACH
@tree_mode
def test_tree_mode_gives_what_graph_mode_gives(name):
    close(measured(name)["tree mode"], measured(name)["outputs"], rtol=1e-6)


@EACH
def test_computes_in_bfloat16(name):
    for task, y in measured(name)["bfloat16"].items():
        assert y.dtype == jnp.bfloat16
        close(y.astype(jnp.float32), measured(name)["outputs"][task], atol=0.1)


@EACH
def test_trains_by_one_compiled_step(name):
    losses, before, net, traces = trained(name)
    assert traces == 1
    left = losses[-5:].sum() / losses[:5].sum()
    assert left < ARCHITECTURES[name].falls, left
    start = leaves_of(nnx.to_pure_dict(nnx.state(before, nnx.Param)))
    for path, leaf in leaves_of(nnx.to_pure_dict(nnx.state(net, nnx.Param))).items():
        assert np.any(leaf != start[path]), f"{path} was never trained"


@EACH
@tree_mode
def test_tree_mode_trains_as_graph_mode_does(name):
    """The second losses know what the first step wrote."""
    with nnx.set_graph_mode(False):
        net, optimizer, step, _ = training(name)
        losses = np.stack([step(net, optimizer, key) for key in KEYS[:2]])
    close(losses, trained(name)[0][:2], rtol=1e-3)


@EACH
def test_outputs_by_shapes_alone(name):
    row, net = ARCHITECTURES[name], built(name)
    outputs, auxiliary = nnx.eval_shape(lambda net: row.call(net, row.x, KEY), net)
    wanted = jax.ShapeDtypeStruct((16, 1), jnp.float32)
    assert {task: (y.shape, y.dtype) for task, y in outputs.items()} == dict.fromkeys(
        TASKS, (wanted.shape, wanted.dtype)
    )
    assert set(auxiliary) in (set(), set(TASKS))
    assert all(term.shape == () for term in auxiliary.values())


@EACH
def test_inputs_that_differ_by_task(name):
    """A batch a task, of its own size; or an error."""
    row, net = ARCHITECTURES[name], built(name)
    x = {"a": row.x[:3], "b": row.x[3:8]}
    net.eval()
    if not row.by_task:
        with pytest.raises(ValueError, match="read one and the same input"):
            net(x)
        return
    apart, alike = nnx.jit(lambda net: (net(x), net(row.x)))(net)
    close(apart["a"], alike["a"][:3], rtol=1e-4, atol=1e-6)
    close(apart["b"], alike["b"][3:8], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_orbax_restores_every_network(tmp_path):
    def states(seed):
        return {
            name: nnx.to_pure_dict(nnx.state(built(name, seed), nnx.Not(nnx.RngState)))
            for name in ARCHITECTURES
        }

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "nets", states(0))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "nets", states(1))
    chex.assert_trees_all_equal(restored, states(0))


@EACH
def test_linen_runs_the_same_numbers(name):
    """Through Flax's bridge; training in Linen is tested in test_flax.py."""
    x = ARCHITECTURES[name].x

    def build(rngs):
        net = ARCHITECTURES[name].build(rngs, jnp.float32)
        net.eval()
        return net

    graphdef, params, rest = nnx.split(build(nnx.Rngs(0)), nnx.Param, ...)
    linen = nnx.bridge.to_linen(build)
    keys = {"params": KEY, "dropout": KEY}
    theirs = jax.eval_shape(linen.init, keys, x)["params"]
    ours = nnx.to_pure_dict(params)
    assert jax.tree.leaves(shared(theirs)) == jax.tree.leaves(shared(ours))
    ours = jax.tree.unflatten(jax.tree.structure(theirs), jax.tree.leaves(ours))
    chex.assert_trees_all_equal_shapes(ours, theirs)

    @jax.jit
    def both(ours, params, rest):
        variables = {**linen.init(keys, x), "params": ours}
        return linen.apply(variables, x), nnx.merge(graphdef, params, rest)(x)

    close(*both(ours, params, rest), rtol=1e-5)


@pytest.mark.slow
def test_every_architecture_has_a_row():
    modules = {
        name
        for name in mtl_optax.nn.__all__
        if isinstance(getattr(mtl_optax.nn, name), type)
        and issubclass(getattr(mtl_optax.nn, name), nnx.Module)
    }
    rows = {name.split()[0] for name in ARCHITECTURES}
    assert modules - LAYERS == rows
