"""Groups of tasks that do not conflict, in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stale_runs import flat, lazily, run, stacks

import mtl_optax as mtl


def numpy_colours(rows, threshold):
    """Welsh-Powell, from the definition, on Python sets."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    conflict = -(units @ units.T) > threshold
    neighbours = [set(np.flatnonzero(row)) - {t} for t, row in enumerate(conflict)]
    colours = {}
    for t in sorted(range(len(rows)), key=lambda t: -len(neighbours[t])):
        taken = {colours[s] for s in neighbours[t] if s in colours}
        colours[t] = next(c for c in range(len(rows)) if c not in taken)
    return [colours[t] for t in range(len(rows))]


def test_colours_by_hand_and_on_random_graphs():
    rows = np.array([[1.0, 0.0], [-1.0, 0.1], [0.5, 1.0]])
    for threshold, wanted in ((0.5, [0, 1, 0]), (0.3, [1, 0, 1])):
        tx = mtl.son_goku(mtl.mean(3), 3, threshold=threshold, period=1)
        _, state = tx.update(jnp.array(rows), tx.init(jnp.zeros(2)), jnp.zeros(2))
        assert state.colours.tolist() == wanted
    tx = mtl.son_goku(mtl.mean(9), 9, threshold=0.1, period=1)
    step = jax.jit(tx.update)
    for seed in range(20):
        rows = np.random.default_rng(seed).normal(size=(9, 4))
        _, state = step(jnp.array(rows), tx.init(jnp.zeros(4)), jnp.zeros(4))
        assert state.colours.tolist() == numpy_colours(rows, 0.1)


@pytest.mark.parametrize("lazy", [False, True])
def test_groups_come_in_turn(lazy):
    """Against NumPy: averages, colours, the cycle, and who is trained."""
    grads, period = stacks(4, 9), 3
    tx = mtl.son_goku(mtl.unitary(4), 4, threshold=-0.7, period=period, decay=0.5)
    found, _ = lazily(tx, grads, 4) if lazy else run(tx, grads)
    averages, colours, position, wanted = np.zeros((4, 10)), [0] * 4, 0, []
    for step, g in enumerate(grads, 1):
        g = flat(g, 4)
        group = [t for t in range(4) if colours[t] == position]
        wanted.append(g[group].sum(axis=0))
        for t in range(4) if step % period == 0 else group:
            averages[t] = 0.5 * averages[t] + 0.5 * g[t]
        position = (position + 1) % (max(colours) + 1)
        if step % period == 0:
            colours, position = numpy_colours(averages, -0.7), 0
    assert max(colours) > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_group_whose_tasks_were_dropped_has_no_turn():
    """But for the step that was to be its own."""
    tx = mtl.son_goku(mtl.unitary(3), 3, threshold=0.0, period=1)
    grads = jnp.array([[1.0, 0.0], [-1.0, 0.1], [-1.0, -0.1]])
    _, state = tx.update(grads, tx.init(jnp.zeros(2)))
    assert state.colours.tolist() == [0, 1, 1]
    state = mtl.resize_tasks(state, ["a", "b", "c"], ["b", "c"])
    fewer = mtl.son_goku(mtl.unitary(2), 2, threshold=0.0, period=100)
    for wanted in ([0.0, 0.0], [-2.0, 0.0], [-2.0, 0.0]):
        update, state = fewer.update(grads[1:], state)
        np.testing.assert_allclose(update, wanted, atol=1e-6)
