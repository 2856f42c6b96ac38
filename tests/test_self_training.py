"""A problem that trains itself: its lanes, stops, shards and choices stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_study import part, problem

from mtl_optax.study.engine import program
from mtl_optax.study.engine.blocks import blocks, lanes
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.program import Carry, StepLog
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.train import Work, train_all

SETTINGS = Settings(
    ("unitary",), seeds=3, tuning_seeds=3, steps=6, learning_rates=(0.1, 0.2)
)


def programs(method, recipe):
    """It draws its own data, from a key in its state, and counts in `losses`."""

    def of_lane(carry, lane, steps, done):
        def step(carry, number):
            key, own = jax.random.split(carry.state)
            params = carry.params + lane.learning_rate * jax.random.normal(own, (3,))
            log = StepLog(
                losses=jnp.full(2, number, jnp.float32),
                task_weights=jnp.full(2, jnp.nan),
                watched=params,
                readings={},
            )
            return Carry(params, key, carry.opt_state + method.gain), log

        return jax.lax.scan(step, carry, done + jnp.arange(steps))

    def advance(carry, batches, data, lanes, steps, done=0):
        assert batches is None
        assert data is None
        over_lanes = jax.vmap(
            lambda carry, lane: of_lane(carry, lane, steps, done), out_axes=(0, 1)
        )
        return over_lanes(carry, lanes)

    return jax.vmap(lambda params, lane: jnp.zeros(())), advance


def method(of):
    return optax.identity()


method.gain = 1.0


def drawn(**changes):
    def nobody_asks(params, batch):
        raise AssertionError

    plain = problem(losses=nobody_asks, **changes)
    return plain._replace(
        init=lambda seed: (jnp.zeros(3), jax.random.key(seed)),
        evaluate=lambda params, state, split, key: {"loss": params[:2]},
        programs=programs,
    )


def work(rows=slice(None)):
    every = lanes(2, (1,), SETTINGS, "unitary")
    of_blocks = blocks((1,), SETTINGS, "unitary", len(every.seed))
    return {"unitary": Work(drawn(), method, every, of_blocks[rows])}


@pytest.fixture(scope="module")
def whole():
    return train_all(work(), SETTINGS.recipe())["unitary"]


def test_it_is_trained_by_its_own_programs(whole):
    """Block by block: two rates, of each two groups of three seeds."""
    number = np.broadcast_to(np.arange(6.0)[:, None, None], (6, 12, 2))
    np.testing.assert_array_equal(whole.log.losses, number)
    for lane, (rate, seed) in enumerate((r, s) for r in (0.1, 0.2) for s in range(6)):
        params, key = np.zeros(3), jax.random.key(seed)
        for _ in range(6):
            key, own = jax.random.split(key)
            params = params + rate * np.asarray(jax.random.normal(own, (3,)))
        np.testing.assert_allclose(whole.log.watched[-1, lane], params, atol=1e-6)
        ends = whole.metrics["end"]["loss"][lane]
        np.testing.assert_array_equal(ends, whole.log.watched[-1, lane, :2])


def test_a_stop_and_a_shard_give_the_same_bits(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "CHUNK", 2)

    def stop(method, stage, done):
        if done == 4:
            raise InterruptedError

    def store(resume):
        return Checkpoints(tmp_path / "checkpoints", {}, resume=resume, seconds=0)

    with pytest.raises(InterruptedError):
        train_all(work(), SETTINGS.recipe(), stop, store(resume=False))
    seen = []
    again = train_all(
        work(), SETTINGS.recipe(), lambda *x: seen.append(x[2]), store(resume=True)
    )["unitary"]
    assert seen[1:] == [4, 6]
    jax.tree.map(np.testing.assert_array_equal, again.log, whole.log)
    jax.tree.map(np.testing.assert_array_equal, again.metrics, whole.metrics)
    shard = train_all(work(slice(1, 2)), SETTINGS.recipe())["unitary"]
    own = jax.tree.map(lambda x: x[:, 3:6], whole.log)
    jax.tree.map(np.testing.assert_array_equal, shard.log, own)


def test_the_choice_among_rates_is_the_engines():
    found = run(part(drawn, methods={"unitary": method}), SETTINGS).methods["unitary"]
    ends = found.metrics["end"][
        "loss"
    ]  # [candidates, scales, seeds, T], of three seeds
    assert ends.shape == (2, 1, 3, 2)
    np.testing.assert_array_equal(found.score, ends[found.chosen[0]])
    assert found.path.shape == (6, 1, 3, 3)
