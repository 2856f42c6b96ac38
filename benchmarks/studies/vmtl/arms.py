"""The arms of the study of VMTL: Bayesian networks that exchange this or that.

All have the same layers and the same objective. They differ in how many networks there
are, and in what their priors are made of.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from benchmarks.studies.vmtl.domains import (
    DOMAINS,
    NUM_DIGITS,
    NUM_FEATURES,
    Examples,
)
from mtl_optax.nn import VMTL, Surrogates, VMTLState, vmtl_losses
from mtl_optax.study.engine.problem import Now

LATENT_DIM = 32
TRAIN_SAMPLES, TEST_SAMPLES = 2, 20
PRIORS = ("classifier_prior", "representation_prior")


class Arm(NamedTuple):
    """How the domains are divided among networks, and what they tell each other."""

    networks: int
    tasks: tuple[str, ...]  # of each network; one of one network: domains are pooled
    prior: str | None = None  # of VMTL; None: standard normal

    def network(self, key: Any) -> VMTL:
        """One of the networks."""
        options: dict[str, Any] = {"latent_dim": LATENT_DIM, "dropout": 0.0}
        options["prior"] = self.prior or "sum"
        rngs = nnx.Rngs(params=key)
        return VMTL(NUM_FEATURES, NUM_DIGITS, self.tasks, **options, rngs=rngs)

    def merged(self, params: Any) -> VMTL:
        """The network with these parameters."""
        shapes = nnx.eval_shape(lambda: self.network(jax.random.key(0)))
        return nnx.merge(nnx.graphdef(shapes), params)

    def divided(self, x: Any) -> Array:
        """`[4, B, ...]` as `[networks, tasks, ...]`."""
        return x.reshape(self.networks, len(self.tasks), -1, *x.shape[2:])


ARMS = {
    "single": Arm(len(DOMAINS), DOMAINS[:1]),
    "pooled": Arm(1, DOMAINS[:1]),
    "shared_encoder": Arm(1, DOMAINS),
    "vmtl_sum": Arm(1, DOMAINS, "sum"),
    "vmtl_mixture": Arm(1, DOMAINS, "mixture"),
}


class State(NamedTuple):
    """What stands beside the parameters; the labels are each seed's own, and stay."""

    networks: VMTLState  # with a leading axis
    seen: Examples  # the scans with labels, [4, N, ...]; a batch is numbers of these
    likes: Any  # of each in the other domains, [4, 3, N, 64]; () where nobody asks


def losses(
    arm: Arm,
    params: Any,
    state: State,
    numbers: Array,
    now: Now,
    *,
    beta: Any,
    eta: Any,
) -> tuple[Array, State]:
    """Of each domain `[4]`; of pooled domains each has a quarter of the one loss."""
    domain = jnp.arange(len(DOMAINS))[:, None]
    batch = jax.tree.map(lambda x: arm.divided(x[domain, numbers]), state.seen)
    likes = None
    if arm.prior:
        likes = jax.vmap(lambda x, at: x[:, at])(state.likes, numbers)[None]
    keys = jax.random.split(now.key, arm.networks)
    grown = beta * now.progress  # from 0, as in the authors' code
    found, networks = jax.vmap(partial(_of_network, arm, beta=grown, eta=eta))(
        *(params, state.networks, batch, likes, keys)
    )
    among = len(DOMAINS) // found.size
    return jnp.repeat(found.ravel() / among, among), state._replace(networks=networks)


def _of_network(
    arm: Arm,
    params: Any,
    state: VMTLState,
    batch: Examples,
    likes: Any,
    key: Any,
    **weights: Any,
) -> tuple[Array, VMTLState]:
    """Losses `[tasks]`, and the next state."""
    options: dict[str, Any] = {"key": key, "num_samples": TRAIN_SAMPLES, **weights}
    if arm.prior:
        present = jnp.ones(likes.shape[1:3], bool)  # every domain has all digits
        options["surrogates"] = {
            task: Surrogates(own, present)
            for task, own in zip(arm.tasks, likes, strict=True)
        }
    pairs = dict(zip(arm.tasks, zip(*batch, strict=True), strict=True))
    found, terms = vmtl_losses(arm.merged(params), state, pairs, **options)
    # Priors are standard before the first step: always, if nothing is exchanged.
    after = terms.state if arm.prior else state
    return jnp.stack([found[task] for task in arm.tasks]), after


def evaluate(
    arm: Arm, params: Any, state: State, split: Examples, key: Any
) -> dict[str, Array]:
    """Accuracy and negative log-likelihood of each domain."""
    del state

    def predict(params: Any, x: Array) -> Array:
        inputs = dict(zip(arm.tasks, x, strict=True))
        found = arm.merged(params).predict(inputs, key=key, num_samples=TEST_SAMPLES)
        return jnp.stack([found[task] for task in arm.tasks])

    log_p = jax.vmap(predict)(params, arm.divided(split.features))
    log_p = log_p.reshape(*split.digits.shape, NUM_DIGITS)
    right = jnp.take_along_axis(log_p, split.digits[..., None], axis=-1)[..., 0]
    hits = log_p.argmax(axis=-1) == split.digits
    return {"accuracy": 100 * hits.mean(axis=-1), "nll": -right.mean(axis=-1)}


def prior_weights(params: Any, state: State) -> Array:
    """Of the other domains in the priors of each, `[2, 4, 3]`; kinds as in PRIORS."""
    del state
    own = nnx.to_pure_dict(params)["own"]
    logits = [jnp.stack([own[task][kind][0] for task in DOMAINS]) for kind in PRIORS]
    return jax.nn.softmax(jnp.stack(logits))
