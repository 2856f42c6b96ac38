"""What perturbed gradients cost: `flat_mtl` and `samo` beside the plain mean.

Whole training steps of the MLP of `step_models.py` (three layers of one width, a head a
task), donated, Adam behind; interleaved. FLOPs and temporaries are those of XLA's
compiled step; it counts the body of a loop once, and lazy gradients are stacked in one.

    python -m benchmarks.flat_cost --quick
    python -m benchmarks.flat_cost --out benchmarks/results/flat_cost.json
    python -m benchmarks.report benchmarks/results/flat_cost.json
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

import mtl_optax as mtl
from benchmarks import step_models, step_ways, tables, timing

MIB = 2**20
PLAIN, FLAT = "mean", "flat_mtl"
WIDTH, BATCH = 512, 128
TASKS = (2, 4, 10)
# name -> around the mean over tasks; what is shared
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    PLAIN: mtl.on_shared,
    FLAT: partial(mtl.flat_mtl, rho_shared=0.01),
    'flat_mtl, mode="direct"': partial(mtl.flat_mtl, rho_shared=0.01, mode="direct"),
    "samo": partial(mtl.samo, rho=0.01, key=0),
    "samo, beta=0": partial(mtl.samo, rho=0.01, beta=0, key=0),
}


def way(name: str, problem: step_models.Problem) -> step_ways.Way:
    """A step of the mean with this around it, and of Adam."""
    wrap = WAYS[name]
    mask = {"trunk": True, "heads": False}
    method = mtl.mean(problem.num_tasks)
    about = {} if wrap is mtl.on_shared else {"shared": mask}
    rule = wrap(method, mask) if not about else wrap(method, **about)
    tx = optax.chain(rule, optax.adam(1e-3))

    def train(params: Any, state: Any, *data: Any) -> Any:
        def losses_at(params: Any) -> Any:
            return problem.losses_fn(params, *data)

        losses, grads = mtl.lazy_task_grads(losses_at)(params)
        updates, state = tx.update(grads, state, params, losses_fn=losses_at)
        return optax.apply_updates(params, updates), state, losses

    return step_ways.Way(train, tx.init)


def measure(num_tasks: int, rounds: int, **sizes: int) -> dict[str, Any]:
    """Times, FLOPs and temporaries by way."""
    problem = step_models.problem("mlp", num_tasks, **sizes)
    steps = {name: step_ways.Step(way(name, problem), problem) for name in WAYS}
    before = timing.load_average()
    samples = timing.interleave(dict(steps), rounds)
    results = timing.summarise(samples, PLAIN)
    for name, step in steps.items():
        program = step.compiled
        results[name]["cpu_over_flat"] = timing.over(samples, name, [FLAT])[FLAT]["cpu"]
        results[name]["gflop"] = (program.cost_analysis() or {}).get("flops", 0) / 1e9
        temporaries = program.memory_analysis().temp_size_in_bytes
        results[name]["temporaries_mib"] = temporaries / MIB
    trunk = sum(x.nbytes for x in jax.tree.leaves(problem.params["trunk"]))
    load = [before, timing.load_average()]
    about = {"num_tasks": num_tasks, "trunk_mib": trunk / MIB, **sizes}
    return {**about, "rounds": rounds, "load_average": load, "results": results}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="sizes for seconds")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args(argv)
    environment = timing.environment()
    found = []
    for num_tasks in (2,) if options.quick else TASKS:
        sizes = {"width": 16, "batch": 8} if options.quick else {"width": WIDTH}
        found.append(measure(num_tasks, options.rounds, **{"batch": BATCH} | sizes))
        print(tables.flat_cost(found[-1]), flush=True)
    if options.out:
        record = {"benchmark": "flat_cost", "quick": options.quick, "sizes": found}
        timing.write_json(options.out, record | {"environment": environment})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
