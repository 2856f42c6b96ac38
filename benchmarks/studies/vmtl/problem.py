"""Four domains of digits as a problem, one for each arm."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.studies.vmtl import arms, domains
from benchmarks.studies.vmtl.arms import ARMS, Arm, State
from benchmarks.studies.vmtl.domains import DOMAINS
from mtl_optax.nn import VMTLState, vmtl_init
from mtl_optax.study.data.digits import CREDITS
from mtl_optax.study.engine.problem import Metric, Problem, nothing

OF_EACH = 2  # examples of each digit in a batch, for each domain


def problem(fraction: float, name: str) -> Problem:
    """Four domains with so many of the labels, as the arm of this name learns them."""
    arm, scans = ARMS[name], domains.four_domains()
    return Problem(
        name="four_domains",
        tasks=DOMAINS,
        splits={
            "train": np.arange(domains.num_seen(scans)),
            **{split: domains.whole(scans, split) for split in ("test", "val")},
        },
        init=partial(init, arm, fraction),
        losses=partial(arms.losses, arm),
        metrics=(Metric("accuracy", "%"), Metric("nll", "nats", False)),
        evaluate=partial(arms.evaluate, arm),
        owner=lambda params: jax.tree.map(lambda _: None, params),
        loss=(Metric("negative evidence bound", "nats", False),),
        draw=partial(draw, fraction),
        loss_settings=("beta", "eta"),
        watch=arms.prior_weights if arm.prior else nothing,
        about="Four domains of 8 x 8 scans of digits, "
        f"{100 * fraction:g} % of the 1,097 training scans with labels in each, others "
        "in each domain and at each seed; "
        "300 scans to choose by, 400 to test on, in all domains. One layer of 64 "
        "random units, the same for all; then a Gaussian representation of size 32 and "
        "a Gaussian classifier. Batches have 2 scans of each digit for each domain. "
        "beta grows from 0. Predictions are means over 20 draws.",
        facts={"fraction_of_labels": fraction},
        credits=CREDITS.replace("composed in pairs", "seen in four ways"),
    )


def init(arm: Arm, fraction: float, seed: int) -> tuple[Any, State]:
    """Parameters and state, of the networks with a leading axis."""

    def start(key: Any) -> tuple[Any, VMTLState]:
        net = arm.network(key)
        return nnx.state(net), vmtl_init(net)

    keys = jax.random.split(jax.random.key(seed), arm.networks)
    params, networks = jax.vmap(start)(keys)
    seen, _ = domains.labelled(domains.four_domains(), fraction, seed)
    likes = jax.jit(domains.surrogates)(seen) if arm.prior else ()
    return params, State(networks, jax.tree.map(jnp.asarray, seen), likes)


def draw(fraction: float, seed: int, size: int, steps: int, batch_size: int) -> Any:
    """Numbers of scans `[steps, 4, B]`, as many of each digit whatever `batch_size`."""
    del size, batch_size
    _, counts = domains.labelled(domains.four_domains(), fraction, seed)
    return domains.batches(counts, steps, OF_EACH, seed)
