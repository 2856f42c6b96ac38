"""The study of optimisers: its front, its claim, and Muon in the engine."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.studies.optimizers import document, figures, fronts
from benchmarks.studies.optimizers.claim import measured
from mtl_optax.study.command import cli
from mtl_optax.study.engine.methods import OPTIMIZERS
from mtl_optax.study.report import claims


def result(**errors):
    """Of one condition: optimiser -> errors `[methods, rates, seeds, T]`."""
    parts = {}
    for optimizer, every in errors.items():
        methods = {
            f"method {m}": SimpleNamespace(
                metrics={"test": {"accuracy": 100 - own[:, None]}}, chosen=[0]
            )
            for m, own in enumerate(np.asarray(every, float))
        }
        parts[f"two_{optimizer}"] = SimpleNamespace(
            settings=SimpleNamespace(optimizer=optimizer, seeds=3),
            methods=methods,
            tasks=("a", "b"),
            chosen=lambda method: ["the first"],
        )
    return SimpleNamespace(parts=parts)


def runs(*points):
    """A method whose rates have these errors, a bit worse on each further seed."""
    return [[[np.add(point, 0.1 * seed) for seed in range(3)] for point in points]]


def test_a_front_without_the_shortcut():
    points = np.random.default_rng(0).integers(0, 6, (30, 2, 3)).astype(float)
    for seed in range(2):
        own = points[:, seed]
        beaten = [any((x <= y).all() and (x < y).any() for x in own) for y in own]
        np.testing.assert_array_equal(
            fronts.on_front(points)[:, seed], ~np.array(beaten)
        )


def test_shares_of_the_front():
    (condition,) = fronts.conditions(
        result(adam=runs((1, 5), (9, 9)), sgd=runs((2, 4), (5, 1)))
    )
    assert condition.name == "two"
    both = ("adam", "sgd")
    np.testing.assert_allclose(
        fronts.shares(condition, both, tuned=False)["adam"], 100 / 3
    )
    np.testing.assert_allclose(fronts.shares(condition, both, tuned=True)["sgd"], 50)
    gain = fronts.gains(condition, "adam", "sgd")["method 0"]
    np.testing.assert_allclose(gain, 0)  # (1, 5) and (2, 4) have one mean
    assert "Adam's runs are 33 % at all rates" in document._words(condition)


def test_the_claim_holds_where_adam_dominates_and_not_where_it_is_dominated():
    good, bad = runs((1, 2), (2, 1)), runs((3, 3), (4, 4))
    assert claims.verdict(measured(result(adam=good, sgd=bad))) == claims.HOLDS
    assert claims.verdict(measured(result(adam=bad, sgd=good))) == claims.NOT_HERE


def test_pages_and_figures_of_hand_made_runs():
    made = result(adam=runs((1, 2)), sgd=runs((2, 1)), muon=runs((3, 3)))
    every = fronts.conditions(made)
    tuned = document._tuned(every[0])
    assert tuned.head[-2:] == ["adam minus sgd", "muon minus adam"]
    assert tuned.rows[0][-1].startswith("-1.50")
    last = document._front(every).rows[-1]
    assert last == ["two", "tuned", *["50 ± 0"] * 4, "0 ± 0"]
    assert len(document._csv(every)) == 2 * 3
    assert figures._count(*np.array([["adam", "sgd"], [1, 0]], object)) == (
        "adam 1, sgd 0"
    )


@pytest.mark.slow
def test_muon_in_lanes_turns_matrices_and_leaves_biases_to_adam():
    rate, steps = 0.1, 2
    rng = np.random.default_rng(0)

    def tree(*lead):
        shapes = {"w": (6, 4), "b": (4,)}
        return {
            name: jnp.asarray(rng.standard_normal((*lead, *x)), jnp.float32)
            for name, x in shapes.items()
        }

    params, grads = tree(3), tree(steps, 3)

    def last_update(tx, params, grads):
        state = tx.init(params)
        for step in range(steps):
            own = jax.tree.map(lambda x, step=step: x[step], grads)
            updates, state = tx.update(own, state, params)
        return updates

    muon = OPTIMIZERS["muon"].make(rate)
    axes = ((0, 1),)
    lanes = jax.jit(jax.vmap(lambda *x: last_update(muon, *x), in_axes=axes[0]))(
        params, grads
    )
    nadam = optax.adam(rate, nesterov=True)
    for lane in range(3):
        own, given = (
            jax.tree.map(lambda x, lane=lane: x[lane], lanes),
            jax.tree.map(lambda x, lane=lane: x[:, lane], grads),
        )
        start = jax.tree.map(lambda x, lane=lane: x[lane], params)
        alone = last_update(muon, start, given)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), own, alone
        )
        of_adam = last_update(nadam, start["b"], given["b"])
        np.testing.assert_allclose(own["b"], of_adam, rtol=1e-4)
        # Newton-Schulz brings every singular value near 1, not to it.
        values = np.linalg.svd(own["w"] / rate, compute_uv=False)
        assert ((values > 0.5) & (values < 1.5)).all()


@pytest.mark.slow
def test_the_quick_form_from_end_to_end(tmp_path):
    assert cli.main(["study", "optimizers", "--quick", "--out", str(tmp_path)]) == 0
    with open(tmp_path / "claim.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["claimed"]) for row in rows] == [("6", "above")] * 2
    assert all(0 <= float(row["estimate"]) <= 100 for row in rows)
    with open(tmp_path / "tuned.csv", newline="") as file:
        pairs = {row["pair"] for row in csv.DictReader(file)}
    assert pairs == {"adam minus sgd", "muon minus adam"}
    assert {x.stem for x in tmp_path.glob("*.png")} == {"fronts", "gaps"}
