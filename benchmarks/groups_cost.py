"""What a step costs: task groups against gradient methods, on six-task Multi-digits.

Whole training steps, forward and backward passes included, of one run (no `vmap`, under
which groups that are not there cost too), 20 in one compiled scan; interleaved.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from benchmarks.studies.groups.blocks import block_digits
from benchmarks.timing import environment, interleave, summarise, write_json
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.problem import batch_indices
from mtl_optax.study.engine.transformations import Ingredients

STEPS, BATCH = 20, 64
NEVER = 1e9  # updates of warm-up
TWO_BLOCKS, ALONE = "two groups", "a group a task"
SELECTIVE = {"preference": 0.2, "decay": 0.0}
# name -> method, its settings, and backward passes a step for T tasks
CONTENDERS: dict[str, tuple[str, dict[str, float], Any]] = {
    "unitary": ("unitary", {}, lambda t: 1),
    "cagrad": ("cagrad", {}, lambda t: t),
    "pcgrad": ("pcgrad", {}, lambda t: t),
    "mgda": ("mgda", {}, lambda t: t),
    # Every tenth step T more backward passes, and T + 1 forward ones
    "tag": ("tag", {"ahead": 0.01}, lambda t: 1 + t / 10),
    f"selective_groups, {TWO_BLOCKS}": (
        *("selective_preference", {**SELECTIVE, "warmup": 0}),
        lambda t: 2,
    ),
    f"selective_groups, {ALONE}": (
        *("selective_preference", {**SELECTIVE, "warmup": NEVER}),
        lambda t: t,
    ),
}


def steps(num_tasks: int, network: str, contender: str) -> tuple[Any, float, int]:
    """A function that takes 20 steps, its FLOPs as compiled, and the groups at the end.

    XLA counts the body of a loop once, so FLOPs are of one step, and of selective
    groups those of one group and of the forward pass after the last.
    """
    problem = block_digits(num_tasks, network)
    method, settings, _ = CONTENDERS[contender]
    of = Ingredients(problem, optax.adam(1e-3), jax.random.key(0), np.ones(num_tasks))
    tx = optax.with_extra_args_support(METHODS[method](of, **settings))
    train = jax.tree.map(jnp.asarray, problem.splits["train"])
    batches = jnp.asarray(batch_indices(0, len(train.images), STEPS, BATCH))

    def step(carry: Any, at: Any) -> tuple[Any, None]:
        params, state = carry
        batch = jax.tree.map(lambda x: x[at], train)

        def losses_fn(params: Any) -> Any:
            return problem.losses(params, (), batch, None)[0]

        _, grads = mtl.lazy_task_grads(losses_fn)(params)
        updates, state = tx.update(grads, state, params, losses_fn=losses_fn)
        return (optax.apply_updates(params, updates), state), None

    params, _ = problem.init(0)
    state = tx.init(params)
    if hasattr(state, "affinity"):  # of two blocks, and kept: decay is 0
        block = 2 * np.arange(num_tasks) // num_tasks
        same = (block[:, None] == block[None, :]).astype(np.float32)
        affinity = jnp.asarray(np.maximum(same * 0.5, np.eye(num_tasks)), jnp.float32)
        state = state._replace(affinity=affinity)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, batches)[0])
    start = params, state
    compiled = run.lower(start).compile()
    flops = (compiled.cost_analysis() or {}).get("flops", float("nan"))
    end = compiled(start)[1]
    found = len(set(np.asarray(end.groups).tolist())) if hasattr(end, "groups") else 0
    return lambda: jax.block_until_ready(compiled(start)), flops, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--networks", nargs="+", default=["mlp"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {"environment": environment(), "steps_a_call": STEPS}
    print(f"Load average {os.getloadavg()}; ratios to unitary of the same round")
    for network in options.networks:
        for num_tasks in options.tasks:
            made = {name: steps(num_tasks, network, name) for name in CONTENDERS}
            contenders = {name: run for name, (run, _, _) in made.items()}
            summary = summarise(interleave(contenders, options.rounds), "unitary")
            print(f"\n{network}, T={num_tasks}")
            print("| step | backward passes | CPU ms | CPU / unitary (quartiles) |")
            print("|---|---|---|---|")
            for name, (_, flops, found) in made.items():
                own = summary[name]
                own["backward_passes"] = CONTENDERS[name][2](num_tasks)
                own["flops"], own["groups"] = flops, found
                ratio = own["cpu_ratio"]
                print(
                    f"| {name} | {own['backward_passes']:g} "
                    f"| {own['cpu_ms']['median'] / STEPS:.2f} | {ratio['median']:.1f} "
                    f"({ratio['lower']:.1f}-{ratio['upper']:.1f}) |"
                )
            record[f"{network}, T={num_tasks}"] = summary
    if options.out:
        write_json(options.out, record)


if __name__ == "__main__":
    main()
