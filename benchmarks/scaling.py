"""Time and memory of a whole training step against tasks, parameters and batch.

Every way of coming by task gradients, on the MLP of `step_models.py` (three layers of
one width, a head a task), one size varied at a time around a base: the plain sum; a
method that sees losses only; UPGrad by the layer-wise Gramian, by stacked gradients, by
one backward pass a task, by a vmapped pull-back, at the features, on stale momenta.
`samples` takes every sample for a task, with `per_sample_grads`. `devices` spreads
parameters and optimizer state over virtual devices, by the last axis, and counts memory
of one; nothing runs.

    python -m benchmarks.scaling --quick
    python -m benchmarks.scaling --out scaling.json
    python -m benchmarks.scaling --axes devices --out scaling_devices.json
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks import per_sample, step_models, step_ways, tables, timing
from benchmarks.step_ways import FEATURES, LAZY, PASSES, PLAIN, STACKED, VMAPPED

MIB = 2**20
WAYS = (PLAIN, "uw", LAZY, STACKED, PASSES, VMAPPED, FEATURES, "stale upgrad")
BASE = {"tasks": 8, "width": 512, "batch": 128}
QUICK_BASE = {"tasks": 3, "width": 16, "batch": 8}
# Of each axis, the base among them
VALUES = {
    "tasks": (2, 4, 8, 16, 32),
    "width": (128, 256, 512, 1024),
    "batch": (32, 128, 512),
    "samples": (16, 64, 256),
    "devices": (1, 2, 4, 8),
}
QUICK_VALUES = {
    "tasks": (2, 3),
    "width": (8,),
    "batch": (4,),
    "samples": (4,),
    "devices": (1, 2),
}
QUICK_WAYS = (PLAIN, "uw", LAZY, FEATURES)
TIMED = ("tasks", "width", "batch", "samples")


def measure(compiled: dict[str, Any], run: dict[str, Any], rounds: int) -> Any:
    """Times, temporaries and FLOPs by way, and the load."""
    before = timing.load_average()
    samples = timing.interleave(run, rounds, warmup=1)
    results = timing.summarise(samples, PLAIN)
    for name, program in compiled.items():
        results[name]["temporaries_mib"] = _temporaries(program)
        results[name]["gflop"] = (program.cost_analysis() or {}).get("flops", 0) / 1e9
    load = [before, timing.load_average()]
    return {"rounds": rounds, "load_average": load, "results": results}


def _temporaries(program: Any) -> float:
    return program.memory_analysis().temp_size_in_bytes / MIB


def of_tasks(sizes: dict[str, int], names: Sequence[str], rounds: int) -> Any:
    """One size of the MLP."""
    problem = _problem(sizes)
    steps = {n: step_ways.Step(step_ways.make(n, problem), problem) for n in names}
    for name in step_ways.IN_TURN.keys() & names:
        for _ in range(problem.num_tasks):
            steps[name]()
    found = measure({n: s.compiled for n, s in steps.items()}, dict(steps), rounds)
    return found | {"num_params": _count(problem.params["trunk"])}


def _problem(sizes: dict[str, int]) -> step_models.Problem:
    width, batch = sizes["width"], sizes["batch"]
    return step_models.problem("mlp", sizes["tasks"], width=width, batch=batch)


def of_samples(batch: int, width: int, rounds: int) -> Any:
    """As many tasks as samples."""
    losses_fn, *args = per_sample.problem("mlp", batch, width)
    compiled = per_sample.programs(losses_fn, *args, "row sums")
    compiled["per_sample_grads"] = compiled.pop("ours")
    run: dict[str, Callable[[], Any]] = {
        name: lambda program=program: jax.block_until_ready(program(*args))
        for name, program in compiled.items()
    }
    return measure(compiled, run, rounds) | {"num_params": _count(args[0])}


def on_devices(number: int, sizes: dict[str, int], names: Sequence[str]) -> Any:
    """Memory of one of so many devices, of compiled steps that do not run."""
    problem = _problem(sizes)
    devices = jax.devices()[:number]
    mesh = jax.make_mesh((number,), ("x",), (AxisType.Auto,), devices=devices)

    def spread(leaf: Any) -> Any:
        shape = np.shape(leaf)
        fits = shape and shape[-1] % number == 0
        spec = PartitionSpec(*[None] * (len(shape) - 1), "x") if fits else ()
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.result_type(leaf), sharding=sharding)

    results = {}
    for name in names:
        way = step_ways.make(name, problem)
        state = jax.eval_shape(way.init, problem.params)
        args = jax.tree.map(spread, (problem.params, state))
        step = jax.jit(way.train, donate_argnums=(0, 1))
        program = step.lower(*args, *problem.data).compile()
        held = program.memory_analysis()
        results[name] = {
            "temporaries_mib": held.temp_size_in_bytes / MIB,
            "arguments_mib": held.argument_size_in_bytes / MIB,
        }
    load = [timing.load_average()] * 2
    num_params = _count(problem.params["trunk"])
    return {
        "rounds": 0,
        "load_average": load,
        "results": results,
        "num_params": num_params,
    }


def _count(params: Any) -> int:
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def points(axes: Sequence[str], options: argparse.Namespace) -> Iterator[Any]:
    """Each size of each axis, measured."""
    base = QUICK_BASE if options.quick else BASE
    rounds = options.rounds or (2 if options.quick else 7)
    values = QUICK_VALUES if options.quick else VALUES
    ways = options.ways or (QUICK_WAYS if options.quick else WAYS)
    for axis in axes:
        for value in options.values or values[axis]:
            sizes = base | ({axis: value} if axis in base else {})
            if axis == "samples":
                found = of_samples(value, sizes["width"], rounds)
            elif axis == "devices":
                found = on_devices(value, sizes, ways)
            else:
                found = of_tasks(sizes, ways, rounds)
            others = [f"{k} {v}" for k, v in base.items() if k != axis]
            if axis == "samples":
                others = [f"width {base['width']}; every sample is a task"]
            yield {"axis": axis, "value": value, "about": ", ".join(others)} | found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few rounds")
    parser.add_argument("--axes", nargs="+", choices=VALUES, default=[*TIMED])
    parser.add_argument("--values", nargs="+", type=int, help="on every axis")
    parser.add_argument("--ways", nargs="+", choices=step_ways.WAYS)
    parser.add_argument("--rounds", type=int, help="default 7, with --quick 2")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    if "devices" in options.axes:
        # Before anything asks for them; and not beside times, which they would change
        if options.axes != ["devices"]:
            parser.error("measure devices by itself: --axes devices")
        jax.config.update("jax_num_cpu_devices", max(VALUES["devices"]))
    record: dict[str, Any] = {
        "benchmark": "scaling",
        "quick": options.quick,
        "reference": PLAIN,
        "environment": timing.environment(),
        "sizes": [],
    }
    for size in points(options.axes, options):
        record["sizes"].append(size)
        print(f"{size['axis']} {size['value']} measured", flush=True)
    print(tables.scaling(record))
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
