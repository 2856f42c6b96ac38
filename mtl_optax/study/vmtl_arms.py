"""The arms of the study of VMTL: Bayesian networks that exchange this or that.

All have the same layers and the same objective. They differ in how many networks there
are, and in what their priors are made of.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from mtl_optax.nn import VMTL, Surrogates, vmtl_init, vmtl_losses
from mtl_optax.study import methods
from mtl_optax.study.domains import DOMAINS, NUM_DIGITS, NUM_FEATURES, Examples
from mtl_optax.study.programs import Lanes, Recipe

LATENT_DIM = 32
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


def network(arm: Arm, key: Any) -> VMTL:
    """One of the networks of an arm."""
    options: dict[str, Any] = {"latent_dim": LATENT_DIM, "dropout": 0.0}
    options["prior"] = arm.prior or "sum"
    rngs = nnx.Rngs(params=key)
    return VMTL(NUM_FEATURES, NUM_DIGITS, DOMAINS[: arm.tasks], **options, rngs=rngs)


def run(arm: Arm, recipe: Recipe, lane: Lanes, data: Any, splits: Any) -> Any:
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
            # Every domain has all digits.
            present = jnp.ones(of_others.shape[1:3], bool)
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
