"""The arms of the study of VMTL: Bayesian networks that exchange this or that.

All have the same layers and the same objective. They differ in how many networks there
are, and in what their priors are made of.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from mtl_optax.nn import (
    VMTL,
    Surrogates,
    VMTLState,
    same_class_inputs,
    vmtl_init,
    vmtl_losses,
)
from mtl_optax.study.data.digits import CREDITS
from mtl_optax.study.engine.problem import Metric, Now, Problem, nothing
from mtl_optax.study.studies.vmtl import domains
from mtl_optax.study.studies.vmtl.domains import (
    DOMAINS,
    NUM_DIGITS,
    NUM_FEATURES,
    Examples,
)

LATENT_DIM = 32
TRAIN_SAMPLES, TEST_SAMPLES = 2, 20
OF_EACH = 2  # examples of each digit in a batch, for each domain
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


class State(NamedTuple):
    """What stands beside the parameters: of the networks, and what a seed may see."""

    networks: VMTLState  # with a leading axis
    seen: Examples  # the scans that have labels, [4, N, ...]; they stay the same
    surrogates: Any  # of these in the other domains, [4, 3, N, 64]; () if not needed


def network(arm: Arm, key: Any) -> VMTL:
    """One of the networks of an arm."""
    options: dict[str, Any] = {"latent_dim": LATENT_DIM, "dropout": 0.0}
    options["prior"] = arm.prior or "sum"
    rngs = nnx.Rngs(params=key)
    return VMTL(NUM_FEATURES, NUM_DIGITS, DOMAINS[: arm.tasks], **options, rngs=rngs)


def problem(share: float, arm_name: str) -> Problem:
    """Four domains with a share of the labels, as the networks of an arm learn them.

    Each seed has labels of its own, which its state holds: a batch is their numbers.
    """
    arm, scans = ARMS[arm_name], domains.four_domains()
    graphdef, _ = nnx.split(network(arm, jax.random.key(0)))
    tasks = DOMAINS[: arm.tasks]
    number = domains.labelled(scans, share, 0)[0].digits.shape[1]

    def init(seed: int) -> tuple[Any, State]:
        seen, _ = domains.labelled(scans, share, seed)

        def start(key: Any) -> tuple[Any, VMTLState]:
            net = network(arm, key)
            return nnx.state(net), vmtl_init(net)

        keys = jax.random.split(jax.random.key(seed), arm.networks)
        params, networks = jax.vmap(start)(keys)
        likes = jax.jit(surrogates)(seen) if arm.prior else ()
        return params, State(networks, jax.tree.map(jnp.asarray, seen), likes)

    def draw(seed: int, size: int, steps: int, batch_size: int) -> Any:
        del size, batch_size  # as many of each digit, whatever the share
        _, counts = domains.labelled(scans, share, seed)
        return domains.batches(counts, steps, OF_EACH, seed)

    def of_networks(x: Any) -> Array:
        """`[4, B, ...]` as `[networks, tasks, ...]`."""
        size = len(DOMAINS) * x.shape[1] // (arm.networks * arm.tasks)
        return x.reshape(arm.networks, arm.tasks, size, *x.shape[2:])

    def of_network(
        params: Any, state: VMTLState, batch: Examples, likes: Any, key: Any, **to: Any
    ) -> tuple[Array, VMTLState]:
        """Losses `[tasks]`, and the next state."""
        to["num_samples"] = TRAIN_SAMPLES
        if arm.prior:
            present = jnp.ones(likes.shape[1:3], bool)  # every domain has all digits
            to["surrogates"] = {
                task: Surrogates(likes[t], present) for t, task in enumerate(tasks)
            }
        pairs = dict(zip(tasks, zip(*batch, strict=True), strict=True))
        net = nnx.merge(graphdef, params)
        found, terms = vmtl_losses(net, state, pairs, key=key, **to)
        # Priors are standard before the first step: always, if nothing is exchanged.
        after = terms.state if arm.prior else state
        return jnp.stack([found[task] for task in tasks]), after

    def losses(
        params: Any, state: State, numbers: Array, now: Now, *, beta: Any, eta: Any
    ) -> tuple[Array, State]:
        domain = jnp.arange(len(DOMAINS))[:, None]
        batch = jax.tree.map(lambda x: of_networks(x[domain, numbers]), state.seen)
        likes = None
        if arm.prior:
            likes = jax.vmap(lambda x, at: x[:, at])(state.surrogates, numbers)[None]
        keys = jax.random.split(now.key, arm.networks)
        grown = beta * now.progress  # from 0, as in the authors' code
        found, networks = jax.vmap(partial(of_network, beta=grown, eta=eta))(
            *(params, state.networks, batch, likes, keys)
        )
        # Pooled domains have one loss, of which each has a quarter.
        own = len(DOMAINS) // found.size
        return jnp.repeat(found.ravel() / own, own), state._replace(networks=networks)

    def predict(params: Any, key: Any, x: Array) -> Array:
        net, inputs = nnx.merge(graphdef, params), dict(zip(tasks, x, strict=True))
        found = net.predict(inputs, key=key, num_samples=TEST_SAMPLES)
        return jnp.stack([found[task] for task in tasks])

    def evaluate(
        params: Any, state: State, split: Examples, key: Any
    ) -> dict[str, Array]:
        log_p = jax.vmap(predict, in_axes=(0, None, 0))(
            params, key, of_networks(split.features)
        ).reshape(*split.digits.shape, NUM_DIGITS)
        right = jnp.take_along_axis(log_p, split.digits[..., None], axis=-1)[..., 0]
        hits = log_p.argmax(axis=-1) == split.digits
        return {"accuracy": 100 * hits.mean(axis=-1), "nll": -right.mean(axis=-1)}

    def weights(params: Any, state: State) -> Array:
        """Of the other domains in each domain's priors, `[2, 4, 3]`."""
        own = nnx.to_pure_dict(params)["own"]
        logits = [[own[task][prior][0] for task in tasks] for prior in PRIORS]
        return jax.nn.softmax(jnp.stack(list(map(jnp.stack, logits))))

    return Problem(
        name="four_domains",
        tasks=DOMAINS,
        splits={
            "train": np.arange(number),
            **{name: domains.whole(scans, name) for name in ("test", "val")},
        },
        init=init,
        losses=losses,
        metrics=(Metric("accuracy", "%"), Metric("nll", "nats", False)),
        evaluate=evaluate,
        owner=lambda params: jax.tree.map(lambda _: None, params),
        loss=(Metric("negative evidence bound", "nats", False),),
        draw=draw,
        loss_settings=("beta", "eta"),
        watch=weights if arm.prior else nothing,
        about=f"Four domains of 8 x 8 scans of digits, {100 * share:g} % of the 1,097 "
        "training scans with labels in each, others in each domain and at each seed; "
        "300 scans to choose by, 400 to test on, in all domains. One layer of 64 "
        "random units, the same for all; then a Gaussian representation of size 32 and "
        "a Gaussian classifier. Batches have 2 scans of each digit for each domain. "
        "beta grows from 0. Predictions are means over 20 draws.",
        facts={"share_of_labels": share},
        credits=CREDITS.replace("composed in pairs", "seen in four ways"),
    )


def surrogates(seen: Examples) -> Array:
    """Of each scan with a label those like it in the other domains, `[4, 3, N, 64]`."""
    pairs = list(zip(*seen, strict=True))
    return jnp.stack(
        [
            same_class_inputs(*pair, [*pairs[:d], *pairs[d + 1 :]]).inputs
            for d, pair in enumerate(pairs)
        ]
    )
