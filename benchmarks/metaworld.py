"""MT-SAC on tasks of Meta-World, with any method: one run, which can be stopped.

    python -m benchmarks.metaworld --method cagrad --seed 0 --out DIR     # minutes
    python -m benchmarks.metaworld --method cagrad --seed 0 --out DIR --resume
    python -m benchmarks.metaworld --quick --out DIR                      # seconds

Needs the extra `rl`. The pages in `results/metaworld` are made by `metaworld_page`.
"""

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax import rl
from mtl_optax.rl import metaworld
from mtl_optax.rl.metaworld import environments
from mtl_optax.study.engine.methods import TABLE

EASY = ("drawer-close-v3", "reach-v3", "window-close-v3")
STAGES = 20
EPISODES = 5  # of each task after each stage
QUICK = {
    **{"stages": 2, "every": 60, "random_steps": 20, "episodes": 1},
    **{"batch_size": 8, "capacity": 200, "max_episode_steps": 30},
}
QUICK_HIDDEN = [16]


def chain(method: str, num_tasks: int, shared: Any, seed: int) -> Any:
    """The method on what tasks share, then clipping, then Adam."""
    key = {"key": seed} if "key" in inspect.signature(TABLE[method]).parameters else {}
    aggregate = mtl.on_shared(TABLE[method](num_tasks=num_tasks, **key), shared)
    clip = optax.clip_by_global_norm(1.0)
    return optax.chain(aggregate, clip, optax.adam(3e-4))


def agent(tasks: Sequence[str], method: str, hidden: Sequence[int], seed: int) -> Any:
    """Multi-head networks for actor and critics, each with the method."""
    inputs, outputs = environments.OBSERVATION, environments.ACTION
    actor = rl.multi_head(len(tasks), inputs, 2 * outputs, hidden)
    critic = rl.multi_head(len(tasks), inputs + outputs, 1, hidden)
    txs = [
        chain(method, len(tasks), shared, seed)
        for shared in (actor.shared, rl.twin(critic).shared)
    ]
    return rl.mtsac(tasks, actor, critic, *txs)


def settings(options: argparse.Namespace) -> metaworld.Settings:
    """Those of the command line; steps there are environment steps of all tasks."""
    chosen = metaworld.Settings(
        tasks=tuple(sorted(options.tasks)),  # as `mtsac` takes them
        reward_function_version=options.reward_version,
        seed=options.seed,
        stages=STAGES,
        every=options.steps // len(options.tasks) // STAGES,
        update_every=options.update_every,
        batch_size=options.batch_size,
        episodes=EPISODES,
    )
    return chosen._replace(**QUICK) if options.quick else chosen


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(EASY), metavar="NAME")
    parser.add_argument("--method", default="unitary", choices=sorted(TABLE))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300_000, help="of all tasks")
    parser.add_argument("--reward-version", default="v2", choices=environments.REWARDS)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--batch-size", type=int, default=64, help="of each task")
    parser.add_argument("--update-every", type=int, default=1, help="steps")
    parser.add_argument("--vector-strategy", choices=environments.STRATEGIES)
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quick", action="store_true", help="does it run")
    return parser.parse_args(given)


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on beside the settings."""
    return {
        "method": options.method,
        "hidden": QUICK_HIDDEN if options.quick else options.hidden,
        "optimiser": "clip by global norm 1, Adam 3e-4",
        "device": jax.devices()[0].device_kind,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def main(given: Sequence[str] | None = None) -> None:
    """Trains, and says how each stage went."""
    options = arguments(given)
    if options.tasks == ["MT10"]:
        options.tasks = list(metaworld.MT10)
    chosen, facts = settings(options), about(options)
    learner = agent(chosen.tasks, options.method, facts["hidden"], options.seed)
    try:
        records = metaworld.train(
            learner,
            chosen,
            options.out,
            about=facts,
            resume=options.resume,
            vector_strategy=options.vector_strategy,
        )
    except (metaworld.Refused, ImportError, ValueError) as error:
        sys.exit(f"metaworld: {error}")
    for record in records:
        success = np.mean(record["success"])
        print(f"{record['environment_steps']:>9} steps, success {success:.2f}")


if __name__ == "__main__":
    main()
