"""State and key of a problem: carried once a step, each lane's own, kept by a stop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mtl_optax.study.engine import program
from mtl_optax.study.engine.blocks import lanes
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.problem import Metric, Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.train import Work, train_all

STEPS, BATCH, RATE = 6, 5, 0.05
SETTINGS = Settings(("unitary",), seeds=2, steps=STEPS, batch_size=BATCH)
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(20, 3)), RANDOM.normal(size=(20, 2))
DATA = jax.tree.map(np.float32, (X, Y))


def train(problem, method="unitary", settings=SETTINGS, **options):
    settings = settings._replace(learning_rates=(RATE,))
    own = lanes(2, (1,), settings, method)
    work = {method: Work(problem, METHODS[method], own)}
    return train_all(work, settings.recipe(), **options)[method]


# --- A network with running statistics and dropout ------------------------------------


class Net(nnx.Module):
    def __init__(self, rngs):
        # A bias would have a gradient of mere rounding, which Adam makes large.
        self.trunk = nnx.Linear(3, 4, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x, key):
        z = nnx.relu(self.norm(self.trunk(x)))
        return self.head(self.dropout(z, rngs=nnx.Rngs(key)))


def split(seed):
    return nnx.split(Net(nnx.Rngs(seed)), nnx.Param, nnx.BatchStat)


def learn(params, state, batch, key):
    """Both losses, and the statistics after the batch."""
    net = nnx.merge(split(0)[0], params, state, copy=True)
    error = net(batch[0], key) - batch[1]
    return tuple(jnp.mean(error**2, axis=0)), nnx.state(net, nnx.BatchStat)


def measure(params, state, examples, key):
    """With the running statistics, of all units; and a number that is drawn."""
    net = nnx.merge(split(0)[0], params, state, copy=True)
    net.eval()
    error = net(examples[0], key) - examples[1]
    drawn = jax.random.uniform(key, 2)
    return {"error": jnp.mean(error**2, axis=0), "drawn": drawn}


NETWORK = Problem(
    name="network",
    tasks=("first", "second"),
    splits={"train": DATA, "test": DATA},
    init=lambda seed: split(seed)[1:],
    losses=lambda params, state, batch, now: learn(params, state, batch, now.key),
    metrics=(Metric("error", "", False), Metric("drawn", "")),
    evaluate=measure,
    owner=lambda params: jax.tree.map(lambda _: None, params),
    watch=lambda params, state: state["norm"]["mean"][...],
)


@pytest.fixture(scope="module")
def whole():
    return train(NETWORK)


@pytest.mark.parametrize("seed", range(SETTINGS.seeds))
def test_training_is_that_of_optax_and_nnx_by_hand(whole, seed):
    """Each lane has its own statistics, batches and keys."""
    _, params, state = split(seed)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    opt_state = optimizer.init(params)
    numbers = NETWORK.draw(seed, len(X), STEPS, BATCH)

    @jax.jit
    def step(params, state, opt_state, batch, key):
        def loss(params):
            losses, after = learn(params, state, batch, key)
            return sum(losses), (jnp.stack(losses), after)

        grads, (losses, after) = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), after, opt_state, losses

    losses, means = [], []
    for number in range(STEPS):
        batch = jax.tree.map(lambda x, at=numbers[number]: x[at], DATA)
        key = jax.random.fold_in(jax.random.key(seed), number)
        params, state, opt_state, found = step(params, state, opt_state, batch, key)
        losses.append(found)
        means.append(state["norm"]["mean"][...])
    np.testing.assert_allclose(whole.log.losses[:, seed], losses, rtol=1e-4)
    np.testing.assert_allclose(whole.log.watched[:, seed], means, rtol=1e-4, atol=1e-6)
    wanted = jax.jit(measure)(params, state, DATA, jax.random.key(seed))
    for name, values in wanted.items():
        found = whole.metrics["test"][name][seed]
        np.testing.assert_allclose(found, values, rtol=1e-4)


def test_statistics_move_and_keys_differ_by_seed(whole):
    path, drawn = whole.log.watched, whole.metrics["test"]["drawn"]
    assert (np.abs(np.diff(path, axis=0)).max(axis=-1) > 0).all()
    assert (path[:, 0] != path[:, 1]).any(axis=-1).all()
    assert (drawn[0] != drawn[1]).all()


def test_a_stop_loses_neither_state_nor_key(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "CHUNK", 2)

    def stop(method, stage, done):
        if done == 4:
            raise InterruptedError

    def store(resume):
        return Checkpoints(tmp_path / "checkpoints", {}, resume=resume, seconds=0)

    with pytest.raises(InterruptedError):
        train(NETWORK, tick=stop, store=store(resume=False))
    seen = []
    again = train(NETWORK, tick=lambda *x: seen.append(x), store=store(resume=True))
    assert seen[1:] == [("unitary", "training", 4), ("unitary", "training", 6)]
    # In chunks of other lengths, which changes nothing.
    jax.tree.map(np.testing.assert_array_equal, again.log, whole.log)
    jax.tree.map(np.testing.assert_array_equal, again.metrics, whole.metrics)


# --- A loss that counts its steps -----------------------------------------------------


def clock_problem(reads_state):
    """A noisy loss that depends on the number of its step.

    It counts in its state, or reads off how much of the training is done.
    """

    def losses(params, state, batch, now):
        number = state if reads_state else now.progress * STEPS
        noisy = batch[0] + 0.1 * jax.random.normal(now.key, batch[0].shape)
        z = jnp.tanh(noisy @ params["trunk"])
        errors = (z * params[task] - batch[1][:, t] for t, task in enumerate("ab"))
        return tuple((1 + number) * jnp.mean(x**2) for x in errors), state + 1

    return Problem(
        name="clock",
        tasks=("a", "b"),
        splits={"train": DATA},
        init=lambda seed: (
            {"trunk": jnp.arange(1.0, 4), "a": jnp.ones(()), "b": -jnp.ones(())},
            jnp.zeros(()),
        ),
        losses=losses,
        metrics=(),
        evaluate=lambda params, state, split, key: {},
        owner=lambda params: {"trunk": None, "a": 0, "b": 1},
        watch=lambda params, state: {"state": state, "params": params},
    )


@pytest.mark.parametrize(
    "method",
    ["unitary", "f_mean", pytest.param("selective_groups", marks=pytest.mark.slow)],
)
def test_a_method_that_asks_again_does_not_move_the_state(method):
    """It asks for the losses of this step, with the state before it."""
    counted, told = (train(clock_problem(x), method).log for x in (True, False))
    for lane in counted.watched["state"].T:
        np.testing.assert_array_equal(lane, np.arange(1, STEPS + 1))
    compare = partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(compare, counted.watched["params"], told.watched["params"])
    compare(counted.losses, told.losses)


# --- A state that holds a random key, and whole numbers -------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_stop_loses_no_random_key(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "CHUNK", 2)

    def losses(params, state, batch, now):
        key, own = jax.random.split(state["key"])
        drawn = jax.random.normal(own)
        after = {"key": key, "number": state["number"] + 1}
        return (params[0] * drawn, params[1] * state["number"]), after

    problem = clock_problem(True)._replace(
        splits={},
        init=lambda seed: (
            jnp.ones(2),
            {"key": jax.random.key(seed), "number": jnp.zeros((), int)},
        ),
        losses=losses,
        owner=lambda params: None,
        watch=lambda params, state: state["number"],
        precision=precision,
    )

    def stop(method, stage, done):
        if done == 4:
            raise InterruptedError

    def store(resume):
        return Checkpoints(tmp_path / "checkpoints", {}, resume=resume, seconds=0)

    whole = train(problem)
    assert whole.log.losses.dtype == precision
    np.testing.assert_array_equal(whole.log.watched[:, 0], np.arange(1, STEPS + 1))
    with pytest.raises(InterruptedError):
        train(problem, tick=stop, store=store(resume=False))
    again = train(problem, store=store(resume=True))
    jax.tree.map(np.testing.assert_array_equal, again.log, whole.log)
