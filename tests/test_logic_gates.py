"""The task tensioner's two logic gates: the problem, and a quick run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl
from mtl_optax.study import logic_gates


def test_losses_by_hand():
    """Without weights and biases every output is 0."""
    params = jax.tree.map(jnp.zeros_like, logic_gates.init(jax.random.key(0)))
    losses = logic_gates.losses_fn(params, jnp.arange(4))
    assert losses == {"and": 0.25, "xor": 50.0}
    some = logic_gates.losses_fn(params, jnp.array([0, 3]))
    assert some == {"and": 0.5, "xor": 0.0}


def test_two_hidden_units_can_learn_both():
    """One unit fires for OR, the other for AND: XOR is their difference."""
    sharp = 40.0 * jnp.ones((2, 2))
    params = {
        "hidden": {"kernel": sharp, "bias": jnp.array([-20.0, -60.0])},
        "and": {"kernel": jnp.array([[0.0], [1.0]]), "bias": jnp.zeros(1)},
        "xor": {"kernel": jnp.array([[10.0], [-10.0]]), "bias": jnp.zeros(1)},
    }
    for loss in logic_gates.losses_fn(params, jnp.arange(4)).values():
        assert loss < 1e-12


def test_layers_start_as_in_the_authors_code():
    params = logic_gates.init(jax.random.key(0))
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes["hidden"] == {"kernel": (2, 2), "bias": (2,)}
    assert shapes["and"] == shapes["xor"] == {"kernel": (2, 1), "bias": (1,)}
    drawn = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    assert len(set(drawn.tolist())) == 12
    assert np.abs(drawn).max() <= 2**-0.5


@pytest.mark.slow
def test_the_tensioner_learns_the_small_gate_where_the_sum_does_not():
    """Quick: three seeds, a twelfth of the epochs."""
    seeds = (0, 1, 4)
    tensioned = logic_gates.learned(mtl.cdtt, seeds, epochs=200)
    summed = logic_gates.learned(mtl.unitary, seeds, epochs=200)
    assert tensioned.shape == summed.shape == (3, 2)
    assert np.all(tensioned[:, 0] != logic_gates.NEVER)
    assert np.sum(summed[:, 0] != logic_gates.NEVER) <= 1
    assert logic_gates.both_learned(tensioned) >= logic_gates.both_learned(summed)


def test_both_must_be_learned():
    when = jnp.array([[3, 4], [logic_gates.NEVER, 4], [0, 0]])
    assert logic_gates.both_learned(when) == 2
