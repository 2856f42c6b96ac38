"""An update of MT-SAC with a method, beside the summed loss, and beside a peer's own.

One update is a step of twin critics, of the actor, of the temperatures and of the
target networks from one batch: a compiled program that gives away the agent's state.
All ways run in one process in interleaved rounds.

    python -m benchmarks.rl_update --quick
    python -m benchmarks.rl_update --out benchmarks/results/rl_update.json
    python -m benchmarks.report benchmarks/results/rl_update.json

With `--peer PATH`, a checkout of metaworld-algorithms, its own updates are timed too:
run from its source, in an environment of Python 3.12 that has what it asks for, but
for the simulator, and this package. So is its update with our method in place of its
PCGrad, by the recipe of docs/recipes.md as it stands there.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mtl_optax as mtl
from benchmarks import goals, tables, timing
from mtl_optax.rl.mtsac import mtsac
from mtl_optax.rl.networks import Network, multi_head, twin
from mtl_optax.rl.replay import Batch

MIB = 2**20
OBS, ACTION = 39, 4
SUM, OURS, PEER = "sum", "pcgrad", "peer: its PCGrad"
FAST = "cagrad, subsample 4"
METHODS: dict[str, Callable[[int], Any]] = {
    SUM: mtl.unitary,
    "cagrad": partial(mtl.cagrad, c=0.4),
    FAST: partial(mtl.cagrad, c=0.4),
    OURS: partial(mtl.pcgrad, key=0, reduction="mean"),
    "upgrad": mtl.upgrad,
    "imtl_g": mtl.imtl_g,
    "nash_mtl": mtl.nash_mtl,
}


class Size(NamedTuple):
    """Tasks, transitions of each in a batch, and hidden layers."""

    num_tasks: int = 10
    rows: int = 128
    hidden: tuple[int, ...] = (400, 400, 400)

    @property
    def networks(self) -> tuple[Network, Network]:
        """Actor and critic."""
        make = partial(multi_head, self.num_tasks, hidden=self.hidden)
        return make(OBS, 2 * ACTION), make(OBS + ACTION, 1)

    def batch(self) -> Batch:
        """Numbers without meaning; rewards of different scale."""
        keys = iter(jax.random.split(jax.random.key(0), 4))
        shape = self.num_tasks, self.rows
        scale = jnp.linspace(1.0, 10.0, self.num_tasks)[:, None]
        return Batch(
            obs=jax.random.normal(next(keys), (*shape, OBS)),
            action=jnp.tanh(jax.random.normal(next(keys), (*shape, ACTION))),
            reward=scale * jax.random.normal(next(keys), shape),
            next_obs=jax.random.normal(next(keys), (*shape, OBS)),
            terminated=jnp.zeros(shape),
        )


QUICK = Size(3, 8, (16, 16))


def behind() -> optax.GradientTransformation:
    """What follows the method."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-4, eps=1e-5))


def needs(program: Any) -> dict[str, float]:
    """What XLA says of a compiled program."""
    return {
        "gflop": (program.cost_analysis() or {}).get("flops", 0) / 1e9,
        "temporaries_mib": program.memory_analysis().temp_size_in_bytes / MIB,
    }


def agent(name: str, size: Size) -> Any:
    """MT-SAC with this method for critic and actor."""
    actor, critic = size.networks
    fewer = 4 if name == FAST else None
    seen = min(fewer or size.num_tasks, size.num_tasks)

    def optimiser(network: Network) -> optax.GradientTransformation:
        return optax.chain(mtl.on_shared(METHODS[name](seen), network.shared), behind())

    return mtsac(
        tuple(f"task{k:02}" for k in range(size.num_tasks)),
        actor,
        critic,
        optimiser(actor),
        optimiser(twin(critic)),
        subsample=None if fewer is None else seen,
    )


class Update:
    """A compiled update; each call replaces the agent's state in place."""

    def __init__(self, name: str, size: Size):
        agent_ = agent(name, size)
        self.inputs = size.batch(), jax.random.key(1)
        # Targets begin as the critics themselves: donated arrays must be apart.
        self.state = jax.tree.map(jnp.copy, agent_.init(jax.random.key(0)))
        started = time.perf_counter()
        step = jax.jit(agent_.update, donate_argnums=0)
        self.program = step.lower(self.state, *self.inputs).compile()
        self.seconds = time.perf_counter() - started

    def __call__(self) -> None:
        self.state, info = self.program(self.state, *self.inputs)
        jax.block_until_ready((self.state, info))


def measure(
    size: Size, rounds: int, peer: Path | None, names: Sequence[str] = tuple(METHODS)
) -> dict[str, Any]:
    """Times, FLOPs and temporaries by way."""
    steps: dict[str, Any] = {name: Update(name, size) for name in names}
    if peer:
        from benchmarks import peers_metaworld

        steps |= peers_metaworld.updates(peer, size)
    before = timing.load_average()
    samples = timing.interleave(steps, rounds, warmup=2)
    results = timing.summarise(samples, SUM)
    for name, step in steps.items():
        row = results[name]
        if peer:
            over = timing.over(samples, name, [PEER])[PEER]
            row |= {f"{clock}_over_peer": over[clock] for clock in over}
        row |= needs(step.program) | {"compile_s": step.seconds}
    load = [before, timing.load_average()]
    about = size._asdict() | {"hidden": list(size.hidden)}
    return {**about, "rounds": rounds, "load_average": load, "results": results}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="sizes for seconds")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rounds", type=int, help="default 60, with --quick 2")
    parser.add_argument("--peer", type=Path, help="checkout of metaworld-algorithms")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args(argv)
    rounds = options.rounds or (2 if options.quick else 60)
    environment = timing.environment()
    if options.peer:
        from benchmarks import peers_metaworld

        environment |= peers_metaworld.environment(options.peer)
    size = QUICK if options.quick else Size()
    names = dict.fromkeys([SUM, *options.methods])
    found = measure(size, rounds, options.peer, tuple(names))
    print(tables.rl_update(found, goals.RL_UPDATE, goals.RL_PEER), flush=True)
    from benchmarks import rl_forms

    found["forms"] = rl_forms.measure(size, rounds)
    print(tables.rl_forms(found["forms"]), flush=True)
    if options.out:
        record = {"benchmark": "rl_update", "quick": options.quick, "sizes": [found]}
        timing.write_json(options.out, record | {"environment": environment})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
