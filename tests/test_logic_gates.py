"""The task tensioner's two logic gates: the problem, and a quick run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.studies.priority import gates
from mtl_optax.study.engine.problem import epoch_indices
from mtl_optax.study.engine.run import run


@pytest.mark.slow
def test_losses_by_hand():
    """Without weights and biases every output is 0."""
    params = jax.tree.map(jnp.zeros_like, gates.init(0))
    assert gates.losses(params, jnp.arange(4)) == (0.25, 50.0)
    assert gates.losses(params, jnp.array([0, 3])) == (0.5, 0.0)


def test_two_hidden_units_can_learn_both():
    """One unit fires for OR, the other for AND: XOR is their difference."""
    sharp = 40.0 * jnp.ones((2, 2))
    params = {
        "hidden": {"kernel": sharp, "bias": jnp.array([-20.0, -60.0])},
        "and": {"kernel": jnp.array([[0.0], [1.0]]), "bias": jnp.zeros(1)},
        "xor": {"kernel": jnp.array([[10.0], [-10.0]]), "bias": jnp.zeros(1)},
    }
    assert max(gates.losses(params, jnp.arange(4))) < 1e-12


def test_layers_start_as_in_the_authors_code():
    params = gates.init(0)
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes["hidden"] == {"kernel": (2, 2), "bias": (2,)}
    assert shapes["and"] == shapes["xor"] == {"kernel": (2, 1), "bias": (1,)}
    drawn = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    assert len(set(drawn.tolist())) == 12
    assert np.abs(drawn).max() <= 2**-0.5


def test_an_epoch_shows_every_row_once():
    batches = epoch_indices(3, 4, 7, 2)
    assert batches.shape == (7, 2)
    for epoch in batches[:6].reshape(3, 4):
        assert sorted(epoch) == [0, 1, 2, 3]
    assert len({tuple(epoch) for epoch in batches[:6].reshape(3, 4)}) > 1


@pytest.mark.slow
def test_the_tensioner_learns_the_small_gate_where_the_sum_does_not():
    settings = gates.PART.quick._replace(methods=("unitary", "cdtt"))
    result = run(gates.PART, settings)
    small = {m: gates.learned(own)[:, 0] for m, own in result.methods.items()}
    assert small["cdtt"].shape == (3,)
    assert small["cdtt"].sum() > small["unitary"].sum()
    assert "Gates learned: unitary both in" in result.judgement.statement


def test_a_gate_is_learned_in_an_epoch_not_in_a_batch():
    class Result:
        # AND: both batches of the second epoch; XOR: one of each.
        losses = np.array([[9.0, 0], [9, 9], [0, 9], [0, 0]])[:, None, None]

    np.testing.assert_array_equal(gates.learned(Result), [[True, False]])
