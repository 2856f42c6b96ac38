"""What stands beside optax's SAM and Flax's train state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wrapper_runs import EACH_FORM, FORMS, PARAMS, T, batch, train, two_losses

import mtl_optax as mtl
from mtl_optax.flax_support import MultiTaskTrainState


def test_drop_extra_args_lets_a_method_with_losses_stand_before_sam():
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05))
    grads = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), PARAMS)
    losses = jnp.ones(T)
    bare = optax.chain(mtl.uw(T), sam)
    with pytest.raises(TypeError, match="losses"):
        bare.update(grads, bare.init(PARAMS), PARAMS, losses=losses)
    tx = optax.chain(mtl.uw(T), mtl.drop_extra_args(sam))
    update, _ = tx.update(grads, tx.init(PARAMS), PARAMS, losses=losses)
    np.testing.assert_allclose(update["w"], 0.05, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_safe_normalize(dtype):
    tx = mtl.safe_normalize()
    updates = {"a": jnp.array([3.0], dtype), "b": jnp.array([4.0], dtype)}
    got, _ = tx.update(updates, tx.init(updates))
    chex.assert_trees_all_equal_dtypes(got, updates)
    np.testing.assert_allclose(got["b"].astype(jnp.float32), 0.8, rtol=1e-2)
    zero = jax.tree.map(jnp.zeros_like, updates)
    chex.assert_trees_all_equal(tx.update(zero, ())[0], zero)


@pytest.mark.slow
def test_sam_at_a_pareto_stationary_point_stays_finite():
    opposite = jax.tree.map(lambda p: jnp.stack([p, -p]), PARAMS)

    def run(normalize):
        tx = optax.contrib.sam(
            optax.chain(mtl.mgda(T), optax.sgd(0.1)),
            optax.chain(mtl.mgda(T), normalize, optax.sgd(0.05)),
        )
        return tx.update(opposite, tx.init(PARAMS), PARAMS)[0]

    chex.assert_tree_all_finite(run(mtl.safe_normalize()))
    assert jnp.any(jnp.isnan(run(optax.contrib.normalize())["w"]))


# --- Linen ----------------------------------------------------------------------------


@EACH_FORM
def test_multi_task_train_state_hands_extra_arguments_on(form):
    tx = optax.chain(mtl.uw(T), optax.sgd(0.1))
    state = MultiTaskTrainState.create(apply_fn=None, params=PARAMS, tx=tx)

    @jax.jit
    def step(state, x):
        losses, grads = FORMS[form](two_losses)(state.params, x)
        return state.apply_gradients(grads=grads, losses=losses)

    state = step(step(state, batch(0)), batch(1))
    (expected, _), _ = train(tx, form, [batch(0), batch(1)])
    chex.assert_trees_all_close(state.params, expected, rtol=1e-6)
    assert int(state.step) == 2
