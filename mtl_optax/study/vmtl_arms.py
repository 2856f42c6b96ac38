"""The arms of the study of VMTL: Bayesian networks that exchange this or that.

All have the same layers and the same objective. They differ in how many networks there
are, and in what their priors are made of.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from mtl_optax.nn import (
    VMTL,
    Surrogates,
    same_class_inputs,
    vmtl_init,
    vmtl_losses,
)
from mtl_optax.study import domains, methods
from mtl_optax.study.domains import DOMAINS, NUM_DIGITS, NUM_FEATURES, Examples
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Lanes, Recipe, Record
from mtl_optax.study.runner import Run, Tick

LATENT_DIM = 32
OF_EACH = 2  # examples of each digit in a batch, for each domain
TRAIN_SAMPLES, TEST_SAMPLES = 2, 20
PRIORS = ("classifier_prior", "representation_prior")


class Arm(NamedTuple):
    """How the domains are divided among networks, and what they tell each other."""

    networks: int
    tasks: int  # of each network; with one network and one task, domains are pooled
    prior: str | None = None  # of VMTL; None: standard normal


ARMS = {
    "single": Arm(len(DOMAINS), 1),
    "pooled": Arm(1, 1),
    "shared_encoder": Arm(1, len(DOMAINS)),
    "vmtl_sum": Arm(1, len(DOMAINS), "sum"),
    "vmtl_mixture": Arm(1, len(DOMAINS), "mixture"),
}


class Data(NamedTuple):
    """What the seeds train on."""

    train: Examples  # [seeds, 4, N, ...]
    surrogates: Array  # [seeds, 4, 3, N, 64]
    batches: Array  # [seeds, steps, 4, B]


def train_all(
    share: float,
    problem: Problem,
    work: dict[str, Lanes],
    recipe: Recipe,
    tick: Tick,
    store: Any = None,
) -> dict[str, Run]:
    """In place of `runner.train_all`: with keys, and a state beside the parameters.

    Nothing is stored: an arm is trained in one go.
    """
    del store
    seeds = max(int(lanes.seed.max()) for lanes in work.values()) + 1
    data = draw(share, seeds, recipe.steps)
    runs = {}
    for arm, lanes in work.items():
        tick(arm, "compiling", 0)
        start = time.perf_counter()
        every = jax.vmap(partial(run, ARMS[arm], recipe), in_axes=(0, None, None))
        splits = {name: problem.splits[name] for name in ("val", "test")}
        arguments = jax.tree.map(jnp.asarray, (lanes, data, splits))
        compiled = jax.jit(every).lower(*arguments).compile()
        middle = time.perf_counter()
        tick(arm, "training", 0)
        losses, readings, metrics = jax.tree.map(np.asarray, compiled(*arguments))
        losses = losses.swapaxes(0, 1)[recipe.record_every - 1 :: recipe.record_every]
        record = Record(
            losses=losses,
            task_weights=np.full_like(losses, np.nan),
            watched=(),
            readings={name: x[None] for name, x in readings.items()},
        )
        end = time.perf_counter()
        runs[arm] = Run(record, metrics, middle - start, end - middle)
        tick(arm, "training", recipe.steps)
    return runs


def draw(share: float, seeds: int, steps: int) -> Data:
    """Of each seed its labelled scans, and its batches."""
    scans = domains.four_domains()
    found = [domains.labelled(scans, share, seed) for seed in range(seeds)]
    train = jax.tree.map(lambda *x: jnp.stack(x), *[own for own, _ in found])
    return Data(
        train,
        jax.lax.map(_surrogates, train),
        jnp.stack(
            [
                domains.batches(counts, steps, OF_EACH, seed)
                for seed, (_, counts) in enumerate(found)
            ]
        ),
    )


def _surrogates(train: Examples) -> Array:
    """`[4, 3, N, 64]`."""
    pairs = list(zip(train.features, train.digits, strict=True))
    return jnp.stack(
        [
            same_class_inputs(*pair, [*pairs[:d], *pairs[d + 1 :]]).inputs
            for d, pair in enumerate(pairs)
        ]
    )


def network(arm: Arm, key: Any) -> VMTL:
    """One of the networks of an arm."""
    options: dict[str, Any] = {"latent_dim": LATENT_DIM, "dropout": 0.0}
    options["prior"] = arm.prior or "sum"
    rngs = nnx.Rngs(params=key)
    return VMTL(NUM_FEATURES, NUM_DIGITS, DOMAINS[: arm.tasks], **options, rngs=rngs)


def run(arm: Arm, recipe: Recipe, lane: Lanes, data: Data, splits: Any) -> Any:
    """One lane: losses `[steps, 4]`, weights of the priors, metrics of each split."""
    graphdef, _ = nnx.split(network(arm, jax.random.key(0)))
    tasks = DOMAINS[: arm.tasks]
    beta, eta = lane.settings["beta"], lane.settings["eta"]
    key = jax.random.key(lane.seed)
    train, surrogates, batches = jax.tree.map(lambda x: x[lane.seed], data)
    schedule = methods.SCHEDULES[recipe.schedule](lane.learning_rate, recipe.steps)
    optimizer = methods.OPTIMIZERS[recipe.optimizer].make(schedule)

    def of_networks(x: Any) -> Array:
        """`[4, B, ...]` as `[networks, tasks, ...]`."""
        size = len(DOMAINS) * x.shape[1] // (arm.networks * arm.tasks)
        return x.reshape(arm.networks, arm.tasks, size, *x.shape[2:])

    def losses(params: Any, state: Any, batch: Any, key: Any, beta: Any) -> Any:
        net = nnx.merge(graphdef, params)
        x, digits, of_others = batch
        options: dict[str, Any] = {"num_samples": TRAIN_SAMPLES}
        if arm.prior is not None:
            present = jnp.ones(
                of_others.shape[1:3], bool
            )  # every domain has all digits
            options["surrogates"] = {
                task: Surrogates(of_others[t], present) for t, task in enumerate(tasks)
            }
        pairs = {task: (x[t], digits[t]) for t, task in enumerate(tasks)}
        own, terms = vmtl_losses(
            net, state, pairs, key=key, beta=beta, eta=eta, **options
        )
        found = jnp.stack([own[task] for task in tasks])
        # Priors are standard before the first step: always, if nothing is exchanged.
        return found.sum(), (found, state if arm.prior is None else terms.state)

    def step(carry: Any, now: Any) -> tuple[Any, Array]:
        params, states, opt_state = carry
        number, indices = now
        x, digits = (
            of_networks(jnp.stack([of[d][indices[d]] for d in range(len(DOMAINS))]))
            for of in train
        )
        of_others = None
        if arm.prior is not None:
            of_others = jnp.stack(
                [surrogates[d][:, indices[d]] for d in range(len(DOMAINS))]
            )[None]
        keys = jax.random.split(jax.random.fold_in(key, number), arm.networks)
        grown = beta * number / recipe.steps  # from 0, as in the authors' code
        gradient = jax.vmap(jax.grad(losses, has_aux=True), in_axes=(0, 0, 0, 0, None))
        grads, (found, states) = gradient(
            params, states, (x, digits, of_others), keys, grown
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        found = jnp.broadcast_to(found.reshape(-1), (len(DOMAINS),))
        return (params, states, opt_state), found

    def predict(params: Any, key: Any, x: Array) -> Array:
        net = nnx.merge(graphdef, params)
        inputs = dict(zip(tasks, x, strict=True))
        found = net.predict(inputs, key=key, num_samples=TEST_SAMPLES)
        return jnp.stack([found[task] for task in tasks])

    def metrics(params: Any, split: Examples) -> dict[str, Array]:
        log_p = jax.vmap(predict, in_axes=(0, None, 0))(
            params, key, of_networks(split.features)
        ).reshape(*split.digits.shape, NUM_DIGITS)
        right = jnp.take_along_axis(log_p, split.digits[..., None], axis=-1)[..., 0]
        hits = log_p.argmax(axis=-1) == split.digits
        return {"accuracy": 100 * hits.mean(axis=-1), "nll": -right.mean(axis=-1)}

    def start(key: Any) -> Any:
        net = network(arm, key)
        return nnx.state(net), vmtl_init(net)

    params, states = jax.vmap(start)(jax.random.split(key, arm.networks))
    numbers = jnp.arange(recipe.steps)
    carry: Any = params, states, optimizer.init(params)
    carry, found = jax.lax.scan(step, carry, (numbers, batches))
    params = carry[0]
    readings = {}
    if arm.prior is not None:
        own = nnx.to_pure_dict(params)["own"]
        for name in PRIORS:
            logits = jnp.stack([own[task][name][0] for task in tasks])
            readings[name] = jax.nn.softmax(logits)
    return found, readings, {k: metrics(params, v) for k, v in splits.items()}
