"""The task tensioner's two logic gates: the problem, and a quick run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.study import compare, logic_gates, starts


@pytest.mark.slow
def test_losses_by_hand():
    """Without weights and biases every output is 0."""
    params = jax.tree.map(jnp.zeros_like, logic_gates.init(0))
    assert logic_gates.losses(params, jnp.arange(4)) == (0.25, 50.0)
    assert logic_gates.losses(params, jnp.array([0, 3])) == (0.5, 0.0)


def test_two_hidden_units_can_learn_both():
    """One unit fires for OR, the other for AND: XOR is their difference."""
    sharp = 40.0 * jnp.ones((2, 2))
    params = {
        "hidden": {"kernel": sharp, "bias": jnp.array([-20.0, -60.0])},
        "and": {"kernel": jnp.array([[0.0], [1.0]]), "bias": jnp.zeros(1)},
        "xor": {"kernel": jnp.array([[10.0], [-10.0]]), "bias": jnp.zeros(1)},
    }
    assert max(logic_gates.losses(params, jnp.arange(4))) < 1e-12


def test_layers_start_as_in_the_authors_code():
    params = logic_gates.init(0)
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes["hidden"] == {"kernel": (2, 2), "bias": (2,)}
    assert shapes["and"] == shapes["xor"] == {"kernel": (2, 1), "bias": (1,)}
    drawn = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    assert len(set(drawn.tolist())) == 12
    assert np.abs(drawn).max() <= 2**-0.5


def test_an_epoch_shows_every_row_once():
    batches = starts.epoch_indices(3, 4, 7, 2)
    assert batches.shape == (7, 2)
    for epoch in batches[:6].reshape(3, 4):
        assert sorted(epoch) == [0, 1, 2, 3]
    assert len({tuple(epoch) for epoch in batches[:6].reshape(3, 4)}) > 1


@pytest.mark.slow
def test_the_tensioner_learns_the_small_gate_where_the_sum_does_not():
    study = logic_gates.STUDY
    settings = study.quick._replace(methods=("unitary", "cdtt"))
    results = compare.run(study, settings)
    small = {m: logic_gates.learned(o)[:, 0] for m, o in results.outcomes.items()}
    assert small["cdtt"].shape == (3,)
    assert small["cdtt"].sum() > small["unitary"].sum()
    assert "Gates learned: unitary both in" in results.judgement.statement


def test_a_gate_is_learned_in_an_epoch_not_in_a_batch():
    class Outcome:
        # AND: both batches of the second epoch; XOR: one of each.
        losses = np.array([[9.0, 0], [9, 9], [0, 9], [0, 0]])[:, None, None]

    np.testing.assert_array_equal(logic_gates.learned(Outcome), [[True, False]])
