"""The Gramian and the update of lazy gradients, on every model of the zoo.

Compared with gradients that JAX makes alone, multiplied and summed in float64.
"""

import itertools

import chex
import jax
import numpy as np
import pytest
from layerwise_runs import (
    BY_LENGTH,
    cosine_error,
    flat,
    gramian_error,
    inner_products,
    lazy_step,
    model_and_rows,
    rows,
    update_error,
    weighted,
)

import mtl_optax as mtl
from benchmarks.zoo import LOW_PRECISION, MODELS, WITH_AUX

FAST = {"heads", "layer_twice", "scanned_blocks"}
NAMES = [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in MODELS]

# A form may leave out that JAX rounds each gradient to bfloat16 once, by at most 2**-9
# of each entry, so of each norm; a product has two of them.
ROUNDINGS = 2 * 2**-9


def bounds(name):
    """Errors of the Gramian over its largest entry and over norms; of an update."""
    return [ROUNDINGS] * 3 if name in LOW_PRECISION else [2e-6, 5e-6, 1e-6]


def check_gramian(name, found, wanted):
    largest, norms, _ = bounds(name)
    assert gramian_error(found, wanted) < largest
    assert cosine_error(found, wanted) < norms


def check_update(name, update, weights, each):
    assert update_error(update, weighted(weights, each)) < bounds(name)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_gramian_update_losses_and_auxiliary_output(name):
    model, stacked, losses, aux = model_and_rows(name)
    tx = mtl.from_weighting(BY_LENGTH, len(losses))
    step = jax.jit(lazy_step(model.losses_fn, tx, name in WITH_AUX))
    update, state, found_losses, found_aux = step(model.params, *model.batch)
    each = rows(stacked)
    check_gramian(name, state.task_gramian, inner_products(each))
    check_update(name, update, state.task_weights, each)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, model.params)
    close = {"rtol": 1e-6, "atol": 1e-7}
    chex.assert_trees_all_close((found_losses, found_aux), (losses, aux), **close)


@pytest.mark.parametrize(
    "name",
    [
        "heads",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("no_parameter", "transformer_tied", "cnn_training", "gru")
        ),
    ],
)
def test_upgrad_is_that_of_stacked_gradients(name):
    model, stacked, losses, _ = model_and_rows(name)
    tx = mtl.upgrad(len(losses))
    step = jax.jit(lazy_step(model.losses_fn, tx, name in WITH_AUX))
    update, *_ = step(model.params, *model.batch)
    given = jax.tree.map(np.asarray, stacked)
    wanted, _ = jax.jit(tx.update)(given, tx.init(model.params), model.params)
    assert update_error(update, flat(wanted)) < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "heads",
        pytest.param("tied_decoder", marks=pytest.mark.slow),
        pytest.param("vmapped_layers", marks=pytest.mark.slow),
    ],
)
def test_eager(name):
    model, stacked, losses, _ = model_and_rows(name)
    _, lazy = mtl.lazy_task_grads(model.losses_fn)(model.params, *model.batch)
    each = rows(stacked)
    check_gramian(name, mtl.gramian(lazy), inner_products(each))
    weights = np.linspace(-1, 2, len(losses), dtype=np.float32)
    check_update(name, mtl.combine(lazy, weights), weights, each)
    check_update(name, mtl.combine(lazy.computed(), weights), weights, each)


@pytest.mark.slow
def test_chunks():
    """`chunk_size` says how backward passes go, and nothing about their result."""
    model, stacked, losses, _ = model_and_rows("heads")
    tx = mtl.from_weighting(BY_LENGTH, len(losses))
    step = jax.jit(lazy_step(model.losses_fn, tx, chunk_size=3))
    update, state, *_ = step(model.params, *model.batch)
    each = rows(stacked)
    check_gramian("heads", state.task_gramian, inner_products(each))
    check_update("heads", update, state.task_weights, each)


# --- Parts of the parameters ----------------------------------------------------------


def is_norm(path, leaf):
    return "norm" in path or "b'" in path or leaf.ndim == 1


def labels_of(params):
    """Two blocks, neither of which is one subtree."""

    def label(path, leaf):
        return "small" if is_norm(jax.tree_util.keystr(path), leaf) else "large"

    return jax.tree_util.tree_map_with_path(label, params)


def is_large(params):
    return jax.tree.map(lambda label: label == "large", labels_of(params))


def run(name, *txs):
    """Updates and states of several methods, in one program."""
    model, stacked, losses, _ = model_and_rows(name)
    txs = [tx(len(losses)) for tx in txs]

    @jax.jit
    def steps(params, *batch):
        return [lazy_step(model.losses_fn, tx)(params, *batch)[:2] for tx in txs]

    return steps(model.params, *model.batch), rows(stacked), model.params


MODELS_OF_PARTS = [
    "heads",
    pytest.param("transformer_tied", marks=pytest.mark.slow),
    pytest.param("scanned_blocks", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", MODELS_OF_PARTS)
def test_blocks_and_leaves(name):
    def method(**options):
        return lambda num_tasks: mtl.from_weighting(BY_LENGTH, num_tasks, **options)

    txs = method(granularity="leaf"), method(granularity=labels_of)
    done, each, params = run(name, *txs, method(leaves=is_large))
    (by_leaf, leaf_state), (by_label, label_state), (update, state) = done

    parts = [[leaf] for leaf in each]
    check_blocks(name, jax.tree.leaves(by_leaf), leaf_state, parts)
    labels = jax.tree.leaves(labels_of(params))
    chosen = [[label == x for x in labels] for label in dict.fromkeys(labels)]
    found = [pick(by_label, block) for block in chosen]
    check_blocks(name, found, label_state, [pick(each, block) for block in chosen])
    large = pick(each, jax.tree.leaves(is_large(params)))
    check_gramian(name, state.task_gramian, inner_products(large))
    check_update(name, update, state.task_weights, each)


def pick(tree, chosen):
    pairs = zip(jax.tree.leaves(tree), chosen, strict=True)
    return [leaf for leaf, keep in pairs if keep]


def check_blocks(name, updates, state, blocks):
    # Softmax does not see the key's bias, whose gradient is rounding.
    nothing = 1e-12 * np.max(inner_products(itertools.chain(*blocks)))
    for i, block in enumerate(blocks):
        wanted, found = inner_products(block), state.task_gramian[i]
        if np.max(wanted) < nothing:
            assert np.max(abs(found)) < nothing
        else:
            check_gramian(name, found, wanted)
            check_update(name, updates[i], state.task_weights[i], block)


@pytest.mark.parametrize("name", MODELS_OF_PARTS)
def test_on_shared(name):
    """The method on some leaves, the sum of all tasks on the others."""
    ((update, state),), each, params = run(
        name,
        lambda num_tasks: mtl.on_shared(
            mtl.from_weighting(BY_LENGTH, num_tasks), is_large
        ),
    )
    large = jax.tree.leaves(is_large(params))
    check_gramian(name, state.task_gramian, inner_products(pick(each, large)))
    check_update(name, pick(update, large), state.task_weights, pick(each, large))
    rest = [not chosen for chosen in large]
    ones = np.ones(len(state.task_weights))
    check_update(name, pick(update, rest), ones, pick(each, rest))


@pytest.mark.slow
def test_on_shared_by_labels():
    """Each subset of tasks has its own Gramian, on what it shares."""
    labels = {
        "trunk": (0, 1, 2, 3),
        "left": (0, 1),
        "right": (1, 2, 3),
        "heads": [(t,) for t in range(4)],
    }
    ((update, states),), _, _ = run(
        "hierarchy",
        lambda num_tasks: mtl.on_shared(
            mtl.from_weighting(BY_LENGTH, num_tasks), labels=labels
        ),
    )
    _, stacked, _, _ = model_and_rows("hierarchy")
    for part in ("trunk", "left", "right"):
        tasks = list(labels[part])
        each = [leaf[tasks] for leaf in rows(stacked[part])]
        state = states[",".join(map(str, tasks))]
        found = state.task_gramian[np.ix_(tasks, tasks)]
        check_gramian(part, found, inner_products(each))
        check_update(part, update[part], state.task_weights[np.array(tasks)], each)
    for t in range(4):
        own = [leaf[[t]] for leaf in rows(stacked["heads"][t])]
        check_update("heads", update["heads"][t], [1.0], own)
