"""Flax NNX and Linen training loops around our methods, with state besides parameters.

The model has batch statistics and dropout. Both enter as in any Flax step: the losses
run on a merged copy, its new state comes back as `aux`, and is written once a step.
"""

import inspect
from functools import cache, partial

import chex
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from toy_losses import module_losses

import mtl_optax as mtl
from mtl_optax.flax_support import MultiTaskTrainState, nnx_update

T = 2
FORMS = {"stacked": mtl.task_grads, "lazy": mtl.lazy_task_grads}
EACH_FORM = pytest.mark.parametrize("form", FORMS)
X = jax.random.normal(jax.random.key(0), (16, 4))
TARGETS = {"a": jnp.sin(X[:, 0]), "b": 3 * X[:, 1]}
METHODS = {"cagrad": mtl.cagrad(T), "uw": mtl.uw(T), "graddrop": mtl.graddrop(T, key=0)}
close = chex.assert_trees_all_close


def mean_squares(outputs):
    return {task: jnp.mean((outputs[task] - y) ** 2) for task, y in TARGETS.items()}


def losses_of(net):
    return mean_squares(net(X))


def one_by_one(losses_fn, params):
    """Losses and stacked gradients by jax.grad of each loss, without our transforms."""
    pairs = [
        jax.value_and_grad(lambda params, task=task: losses_fn(params)[task])(params)
        for task in sorted(TARGETS)
    ]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *pairs)


# --- NNX ------------------------------------------------------------------------------


class Model(nnx.Module):
    """A trunk with batch statistics and dropout, and one head a task."""

    def __init__(self, rngs):
        # No bias: batch statistics take it out again, and Adam would blow its rounding
        # noise up to full steps.
        self.trunk = nnx.Linear(4, 8, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head_a = nnx.Linear(8, 1, rngs=rngs)
        self.head_b = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        h = self.dropout(jnp.tanh(self.norm(self.trunk(x))))
        return {"a": self.head_a(h)[:, 0], "b": self.head_b(h)[:, 0]}


def pure(state):
    """The arrays of a state in a dict, without flax's variables around them."""
    return nnx.to_pure_dict(state)


def losses_and_gradients(model, form, **graph):
    """The second value holds new statistics and key counts."""
    losses_fn, *state = module_losses(model, losses_of, **graph)
    return FORMS[form](losses_fn, has_aux=True)(*state)


def training(method):
    return optax.chain(METHODS[method], optax.adam(1e-2))


@cache
def by_hand(method, steps):
    """Losses, parameters and other state of a plain optax loop, no Optimizer."""
    tx = training(method)
    losses_fn, params, rest = module_losses(Model(nnx.Rngs(0)), losses_of)
    state = tx.init(params)
    recorded = []

    @jax.jit
    def step(params, rest, state):
        # One jax.grad a loss, each with a forward pass on a copy of its own
        losses, grads = one_by_one(lambda params: losses_fn(params, rest)[0], params)
        updates, state = tx.update(grads, state, params, losses=losses)
        new = losses_fn(params, rest)[1]
        return optax.apply_updates(params, updates), new, state, losses

    for _ in range(steps):
        params, rest, state, losses = step(params, rest, state)
        recorded.append(losses)
    return jnp.stack(recorded), pure(params), rest


def nnx_loop(tx, steps, form, how):
    """The same by `nnx.jit`, `nnx.Optimizer` and our gradients."""
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        (losses, new), grads = losses_and_gradients(model, form)
        nnx.update(model, new)
        if how == "optimizer":
            optimizer.update(model, grads, losses=losses)
        else:
            nnx_update(optimizer, model, grads, losses=losses)
        return losses

    losses = jnp.stack([step(model, optimizer) for _ in range(steps)])
    return losses, model, optimizer


@pytest.mark.parametrize(
    ("form", "how"),
    [("stacked", "optimizer"), ("stacked", "nnx_update"), ("lazy", "nnx_update")],
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.contract
@pytest.mark.slow
def test_nnx_equals_a_loop_by_hand(method, form, how):
    """Parameters, batch statistics and dropout counts after three steps."""
    losses, model, optimizer = nnx_loop(training(method), 3, form, how)
    expected, params, rest = by_hand(method, 3)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    close(pure(nnx.state(model, nnx.Param)), params, rtol=1e-3, atol=1e-4)
    close(
        pure(nnx.state(model, nnx.BatchStat)),
        pure(nnx.filter_state(rest, nnx.BatchStat)),
        rtol=1e-4,
    )
    assert int(optimizer.step[...]) == 3
    assert int(model.dropout.rngs.count[...]) == 3, "one new mask a step"


@EACH_FORM
@pytest.mark.slow
def test_statistics_move_once_a_step_whatever_the_number_of_tasks(form):
    model = Model(nnx.Rngs(0))
    h = model.trunk(X)
    (_, new), grads = losses_and_gradients(model, form)
    mtl.gramian(grads)  # pulls lazy ones back
    np.testing.assert_array_equal(model.norm.mean[...], 0)  # the copy moved, not this
    nnx.update(model, new)
    np.testing.assert_allclose(
        model.norm.mean[...], 0.1 * jnp.mean(h, axis=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        model.norm.var[...], 0.9 + 0.1 * jnp.var(h, axis=0), rtol=1e-5
    )
    assert int(model.dropout.rngs.count[...]) == 1


@EACH_FORM
@pytest.mark.slow
def test_nnx_gradients_are_those_of_each_loss_on_the_same_dropout_mask(form):
    model = Model(nnx.Rngs(3))
    (losses, _), grads = losses_and_gradients(model, form)
    stacked = grads.stack() if form == "lazy" else grads
    losses_fn, params, rest = module_losses(model, losses_of)
    expected, rows = one_by_one(lambda params: losses_fn(params, rest)[0], params)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    close(stacked, rows, rtol=1e-5, atol=1e-6)


def test_dropout_differs_from_step_to_step():
    """With nothing learned, the losses of two steps differ by their masks alone."""
    losses, _, _ = nnx_loop(optax.chain(mtl.unitary(T), optax.sgd(0.0)), 2, "lazy", "")
    assert jnp.all(jnp.abs(losses[0] - losses[1]) > 1e-3)


def test_without_a_merged_copy_flax_raises():
    """The mistake is not a silent one."""
    model = Model(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)

    def without_a_copy(params):
        nnx.update(model, params)
        return mean_squares(model(X))

    with pytest.raises(flax.errors.TraceContextError, match="different trace level"):
        mtl.task_grads(without_a_copy)(params)


MASKS = {
    "shared": lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: "head" not in jax.tree_util.keystr(path), params
    ),
    "labels": lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: label_of(jax.tree_util.keystr(path)), params
    ),
}


def label_of(path):
    return {"head_a": (0,), "head_b": (1,)}.get(path.split("'")[1], (0, 1))


@EACH_FORM
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.slow
def test_on_shared_with_a_function_of_nnx_state(mask, form):
    tx = mtl.on_shared(mtl.cagrad(T), **{mask: MASKS[mask]})
    # Once by Flax (plain arrays reach `tx`), once on the State itself.
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(tx, optax.sgd(1.0)), wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    _, grads = losses_and_gradients(model, form)
    updates, _ = tx.update(grads, tx.init(params), params)
    updates = pure(updates)
    before = jax.tree.map(jnp.copy, pure(params))  # `model` is updated in place
    nnx_update(optimizer, model, grads)
    moved = jax.tree.map(jnp.subtract, before, pure(nnx.state(model, nnx.Param)))
    close(moved, updates, rtol=1e-3, atol=1e-5)

    stacked = pure(losses_and_gradients(Model(nnx.Rngs(0)), "stacked")[1])
    for t, head in enumerate(("head_a", "head_b")):
        row = jax.tree.map(lambda g, t=t: g[t], stacked[head])
        close(updates[head], row, rtol=1e-5, atol=1e-7)
    shared = {key: stacked[key] for key in ("norm", "trunk")}
    alone = mtl.cagrad(T)
    expected, _ = alone.update(shared, alone.init(shared))
    close({key: updates[key] for key in shared}, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("how", ["optimizer", "nnx_update"])
@pytest.mark.slow
def test_missing_losses_are_our_error(how):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, mtl.uw(T), wrt=nnx.Param)
    _, grads = losses_and_gradients(model, "stacked")
    update = optimizer.update if how == "optimizer" else partial(nnx_update, optimizer)
    with pytest.raises(ValueError, match=r"uw needs the extra argument losses="):
        update(model, grads)


def test_unstacked_nnx_gradients_are_our_error():
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, mtl.mgda(T), wrt=nnx.Param)
    grads = nnx.grad(lambda model: mean_squares(model(X))["a"])(model)
    with pytest.raises(ValueError, match="the gradients are not stacked"):
        optimizer.update(model, grads)


TREE_MODE = "graph" in inspect.signature(nnx.split).parameters


@pytest.mark.skipif(
    not TREE_MODE, reason="this flax has no NNX tree mode (nnx.split(..., graph=False))"
)
@EACH_FORM
@pytest.mark.slow
def test_nnx_tree_mode(form):
    """`graph=False` everywhere gives what the graph mode gives."""
    tx = training("cagrad")
    expected, like, _ = nnx_loop(tx, 2, form, "nnx_update")
    with nnx.set_graph_mode(False):
        losses, model, _ = nnx_loop(tx, 2, form, "nnx_update")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    close(
        pure(nnx.state(model, nnx.Param)), pure(nnx.state(like, nnx.Param)), rtol=1e-4
    )


# --- Linen ----------------------------------------------------------------------------


class LinenModel(nn.Module):
    """The same, in Linen."""

    @nn.compact
    def __call__(self, x, train):
        h = nn.Dense(8, use_bias=False)(x)
        h = nn.BatchNorm(use_running_average=not train, momentum=0.9)(h)
        h = nn.Dropout(0.3, deterministic=not train)(jnp.tanh(h))
        heads = {"a": nn.Dense(1, name="head_a"), "b": nn.Dense(1, name="head_b")}
        return {task: head(h)[:, 0] for task, head in heads.items()}


class State(MultiTaskTrainState):
    """What Flax's own guide adds for batch statistics."""

    batch_stats: dict


def linen_state(tx):
    model = LinenModel()
    variables = model.init(jax.random.key(0), X, train=False)
    return State.create(apply_fn=model.apply, tx=tx, **variables)


def linen_losses(params, state, key):
    outputs, new = state.apply_fn(
        {"params": params, "batch_stats": state.batch_stats},
        X,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key},
    )
    return mean_squares(outputs), new["batch_stats"]


@EACH_FORM
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.contract
@pytest.mark.slow
def test_linen_with_batch_statistics(method, form):
    tx = training(method)

    @jax.jit
    def step(state, key):
        (losses, batch_stats), grads = FORMS[form](linen_losses, has_aux=True)(
            state.params, state, key
        )
        state = state.apply_gradients(grads=grads, losses=losses)
        return state.replace(batch_stats=batch_stats), losses

    @jax.jit
    def step_by_hand(state, key):
        losses, grads = one_by_one(
            lambda params: linen_losses(params, state, key)[0], state.params
        )
        updates, opt_state = tx.update(
            grads, state.opt_state, state.params, losses=losses
        )
        state = state.replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            batch_stats=linen_losses(state.params, state, key)[1],
        )
        return state, losses

    state = same = linen_state(tx)
    for key in jax.random.split(jax.random.key(1), 3):
        state, losses = step(state, key)
        same, expected = step_by_hand(same, key)
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
    close(state.params, same.params, rtol=1e-3, atol=1e-4)
    close(state.batch_stats, same.batch_stats, rtol=1e-4)
    assert int(state.step) == 3


def test_linen_missing_losses_are_our_error():
    state = linen_state(mtl.uw(T))
    _, grads = mtl.task_grads(linen_losses, has_aux=True)(
        state.params, state, jax.random.key(0)
    )
    with pytest.raises(ValueError, match=r"uw needs the extra argument losses="):
        state.apply_gradients(grads=grads)
