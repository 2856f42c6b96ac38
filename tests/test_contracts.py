"""What every method owes its caller, whatever it computes: one row, all checks."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from conftest import precision
from contract_runs import (
    EACH,
    PARAMS,
    T,
    assert_close,
    compiled,
    compiled_with_hyper,
    expected,
    gradients,
    params_like,
    statistics,
)
from jax import lax
from methods import METHODS
from toy_losses import linear_losses

import mtl_optax as mtl


@pytest.mark.contract
def test_rows_and_public_factories_agree():
    families, apart = {}, []
    for name in mtl.__all__:
        module = getattr(getattr(mtl, name), "__module__", "").split(".")
        if len(module) < 3 or not module[1].startswith("from_"):
            continue
        family = module[1].removeprefix("from_")
        # Needs a function, no argument of a jitted update; or contains its optimiser.
        if family == "grad_fn" or name == "mconfig":
            apart.append(name)
        else:
            families[name] = family
    assert families == {method.name: method.family for method in METHODS}
    assert len(METHODS) == len({method.name for method in METHODS})
    together = dict.fromkeys(("auto_lambda", "moml", "forum"), "bilevel")
    for name in apart:
        assert (Path(__file__).parent / f"test_{together.get(name, name)}.py").exists()


@EACH
@pytest.mark.contract
def test_compiles_once_and_ignores_unknown_arguments(method):
    tx, update = compiled(method)
    state, extras = tx.init(PARAMS), method.extras(T, PARAMS)
    (_, state), before = (
        update(gradients(), state, PARAMS, extras),
        update._cache_size(),
    )
    update(gradients(seed=1), state, PARAMS, method.extras(T, PARAMS, seed=1))
    assert update._cache_size() == before
    unknown = {**extras, "unknown": jnp.ones(2), "value": 1.0}
    jax.eval_shape(lambda: tx.update(gradients(), state, PARAMS, **unknown))


@EACH
@pytest.mark.contract
def test_scan_cond_and_chain_keep_the_types_of_the_state(method):
    tx = optax.chain(method.make(T), optax.adam(1e-2))
    extras = method.extras(T, PARAMS)

    def step(carry, present):
        params, state = carry

        def move(params, state):
            updates, state = tx.update(gradients(), state, params, **extras)
            return optax.apply_updates(params, updates), state

        return lax.cond(present, move, lambda *same: same, params, state), None

    start = PARAMS, tx.init(PARAMS)
    end, _ = jax.eval_shape(lambda: lax.scan(step, start, jnp.array([True, False])))
    chex.assert_trees_all_equal_shapes_and_dtypes(end, start)


@EACH
@pytest.mark.contract
def test_dtypes_are_kept_and_sums_are_float32(method):
    mixed = gradients(dtypes=["float16", "bfloat16", "float32"])
    params = params_like(mixed)
    same_values = jax.tree.map(lambda g: g.astype("float32"), mixed)
    extras = method.extras(T, params_like(same_values))
    update, state = expected(method, mixed, extras)
    wanted, wide_state = expected(method, same_values, extras)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        statistics(state), statistics(wide_state)
    )
    for name, leaf in update.items():
        eps = float(jnp.finfo(leaf.dtype).eps) + method.tolerance
        np.testing.assert_allclose(
            np.asarray(leaf, np.float64), wanted[name], rtol=eps, atol=eps
        )


@EACH
@pytest.mark.contract
def test_float64_is_kept_where_it_is_on(method):
    with precision("float64"):
        mixed = gradients(dtypes=["float64", "bfloat16", "float32"])
        params = params_like(mixed)
        tx = method.make(T)
        extras = method.extras(T, params)
        init = jax.eval_shape(tx.init, params)
        update, state = jax.eval_shape(
            lambda g: tx.update(g, tx.init(params), params, **extras), mixed
        )
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, init)
    weights = getattr(state, "task_weights", None)
    assert weights is None or weights.dtype == "float64"


@EACH
def test_initial_states_share_no_buffer(method):
    """Else whoever donates the state to a step could not start again."""
    tx = method.make(T)
    leaves = jax.tree.leaves((tx.init(PARAMS), tx.init(PARAMS)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@EACH
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for(method, platform):
    tx, update = compiled(method)
    args = gradients(), tx.init(PARAMS), PARAMS, method.extras(T, PARAMS)
    assert update.trace(*args).lower(lowering_platforms=(platform,)).as_text()


def equations(jaxpr):
    """All equations of a jaxpr, those of loops and branches included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@EACH
def test_products_have_full_precision(method):
    tx, update = compiled(method)
    half = gradients(dtypes="bfloat16")
    extras = method.extras(T, PARAMS)
    args = half, tx.init(PARAMS), params_like(half), extras
    products = [
        equation.params
        for equation in equations(jax.make_jaxpr(update)(*args).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert products or method.family != "gramian"
    for product in products:
        assert product["precision"] == (lax.Precision.HIGHEST,) * 2
        wide = product["preferred_element_type"]
        assert wide is None or wide == jnp.float32


@EACH
def test_empty_tree_gives_an_empty_tree(method):
    tx = method.make(T)
    update, _ = tx.update({}, tx.init({}), {}, **method.extras(T, {}))
    assert update == {}


def inject(method, hyper):
    """`optax.inject_hyperparams` around the public factory."""
    static = {"num_tasks": T, **method.static}
    wrap = optax.inject_hyperparams(
        method.factory, static_args=tuple(static), hyperparam_dtype=jnp.float32
    )
    return wrap(**static, **hyper)


@EACH
@pytest.mark.contract
def test_injected_hyperparameters_and_seeds_under_vmap(method):
    """Two settings and two gradients at once give what each gives alone."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), gradients(seed=1), gradients())
    pairs = [jnp.stack([jnp.asarray(v) for v in two]) for two in method.hyper.values()]
    hypers = dict(zip(method.hyper, pairs, strict=True))
    extras = method.extras(T, PARAMS)

    def step(hyper, stacked):
        tx = inject(method, hyper)
        state = tx.init(PARAMS)
        for name, value in hyper.items():
            chex.assert_trees_all_equal_shapes(state.hyperparams[name], value)
        return tx.update(stacked, state, PARAMS, **extras)

    updates, states = jax.jit(jax.vmap(step))(hypers, stacked)
    for i in range(2):
        hyper, one, update, state = jax.tree.map(
            lambda x, i=i: x[i], (hypers, stacked, updates, states.inner_state)
        )
        if method.hyper:
            wanted, plain = compiled_with_hyper(method)(hyper, one, extras)
        else:
            wanted, plain = expected(method, one, extras)
        assert_close(method, update, wanted)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, plain)


@EACH
def test_orbax_restores_a_trajectory(method, tmp_path):
    tx, update = compiled(method)
    extras = method.extras(T, PARAMS)
    state = tx.init(PARAMS)
    for seed in range(2):
        _, state = update(gradients(seed=seed), state, PARAMS, extras)
    # With the parameters, for a method may have no state, and nothing is no checkpoint.
    saved = {"params": PARAMS, "state": state}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
        checkpointer.wait_until_finished()
        like = jax.tree.map(jnp.zeros_like, saved)
        restored = checkpointer.restore(tmp_path / "state", like)["state"]
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal(
        update(gradients(seed=2), restored, PARAMS, extras),
        update(gradients(seed=2), state, PARAMS, extras),
    )


@EACH
def test_lazy_gradients_give_the_same_update(method):
    tx = method.make(T)
    offsets = jnp.linspace(0.5, 2.0, T)
    draws = method.extras(T, PARAMS)
    draws.pop("losses", None)

    @jax.jit
    def lazily(stacked):
        losses, lazy = mtl.lazy_task_grads(linear_losses)(PARAMS, stacked, offsets)
        return losses, tx.update(lazy, tx.init(PARAMS), PARAMS, **draws)

    losses, (update, state) = lazily(gradients())
    np.testing.assert_allclose(losses, offsets)
    wanted, stacked_state = expected(method)
    assert_close(method, update, wanted)
    chex.assert_trees_all_close(state, stacked_state, rtol=1e-4, atol=1e-5)


# --- Randomness -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.draw], ids=lambda method: method.name
)
def test_draws_come_from_the_key_in_the_state(method):
    tx = method.make(T)
    update = jax.jit(tx.update)
    start = tx.init(PARAMS)

    def trajectory(state):
        updates = []
        for _ in range(6):
            new, state = update(gradients(), state, PARAMS)
            updates.append(new)
        return updates

    once = trajectory(start)
    chex.assert_trees_all_equal(once, trajectory(start))
    assert len({np.asarray(new["kernel"]).tobytes() for new in once}) > 1
    other = trajectory(method.make(T, key=1).init(PARAMS))
    differ = [
        np.any(a["kernel"] != b["kernel"]) for a, b in zip(once, other, strict=True)
    ]
    assert any(differ)


# --- Beside other transformations -----------------------------------------------------


@EACH
@pytest.mark.slow
def test_partition_gives_the_method_its_own_leaves(method):
    tx = optax.partition(
        {"method": method.make(T), "rest": mtl.unitary(T)},
        {"kernel": "method", "bias": "rest", "scale": "method"},
    )
    extras = method.extras(T, PARAMS)
    stacked = gradients()
    # A leaf that is zero for all tasks changes no inner product.
    apart = {**stacked, "bias": jnp.zeros_like(stacked["bias"])}
    wanted, _ = expected(method, apart, extras)
    if method.draw == "uniforms":
        extras["uniforms"] = {k: extras["uniforms"][k] for k in ("kernel", "scale")}
    update, _ = jax.jit(tx.update)(stacked, tx.init(PARAMS), PARAMS, **extras)
    wanted["bias"] = jnp.sum(stacked["bias"], axis=0)
    assert_close(method, update, wanted)
