"""What an architecture costs: parameters, and the time of a training step.

A step is that of the engine, on one lane, compiled in a scan of 10; architectures take
turns, and ratios to the first one are taken within a round.
"""

from typing import NamedTuple

import jax
import pandas as pd

from mtl_optax.analysis.interleave import Contender, interleave, ratios, spread
from mtl_optax.study.engine.blocks import lanes
from mtl_optax.study.engine.methods import BASELINE, METHODS
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Carry, programs
from mtl_optax.study.engine.starts import prepare
from mtl_optax.study.engine.study import PartResult

STEPS = 10
ROUNDS = 15
QUICK_ROUNDS = 5


class Size(NamedTuple):
    """Numbers of parameters."""

    parameters: int
    shared: int  # by all tasks
    own: int  # those that belong to some task


def size(problem: Problem) -> Size:
    """Of the network of a problem."""
    params, _ = jax.eval_shape(lambda: problem.init(0))
    counts = [leaf.size for leaf in jax.tree.leaves(params)]
    are_shared = jax.tree.leaves(problem.shared(params))
    shared = sum(n for n, yes in zip(counts, are_shared, strict=True) if yes)
    return Size(sum(counts), shared, sum(counts) - shared)


def problems(parts: dict[str, PartResult]) -> list[dict[str, PartResult]]:
    """The parts in groups with the same tasks."""
    groups: dict[tuple[str, ...], dict[str, PartResult]] = {}
    for name, own in parts.items():
        groups.setdefault(own.tasks, {})[name] = own
    return list(groups.values())


def measure(parts: dict[str, PartResult]) -> pd.DataFrame:
    """A row a part, by its name; ratios are to the first part of the same problem."""
    return pd.concat(map(_of_one_problem, problems(parts)))


def _of_one_problem(parts: dict[str, PartResult]) -> pd.DataFrame:
    first = next(iter(parts))
    rounds = QUICK_ROUNDS if parts[first].settings.quick else ROUNDS
    sizes = {name: size(own.problem) for name, own in parts.items()}
    one, num_tasks = sizes[first], len(parts[first].tasks)
    table = pd.DataFrame(sizes.values(), index=pd.Index(sizes, name="architecture"))
    # A network of its own for each task, in place of hard sharing.
    table["single_tasks"] = num_tasks * one.shared + one.own
    table["of_single_tasks"] = table["parameters"] / table["single_tasks"]
    samples = interleave({name: steps(own) for name, own in parts.items()}, rounds)
    per_step = 1e3 / STEPS
    table["step_cpu_ms"] = [per_step * spread(samples.cpu[x]).median for x in parts]
    for kind, seconds in {"cpu": samples.cpu, "wall": samples.wall}.items():
        found = ratios(seconds, first)
        columns = [f"{kind}_{x}" for x in ("ratio", "lower", "upper")]
        table[columns] = [found[name] for name in parts]
    return table


def steps(result: PartResult) -> Contender:
    """A compiled function that takes so many steps of one run."""
    problem = result.problem
    rates = result.settings.learning_rates[:1]
    settings = result.settings._replace(seeds=1, tuning_seeds=0, learning_rates=rates)
    recipe = settings.recipe()._replace(steps=STEPS, record_every=STEPS)
    lane = lanes(len(problem.tasks), (1,), settings, BASELINE)
    common = prepare(problem, [0], recipe)
    # One lane: its axis leads, and in the indices of batches it follows that of steps.
    start = common.starts[0]
    params, state = jax.tree.map(lambda x: x[None], (start.params, start.state))
    batches = jax.tree.map(lambda x: x[:, None], start.batches)
    init, advance = programs(problem, METHODS[BASELINE], recipe)
    carry = Carry(params, state, jax.jit(init)(params, lane))
    arguments = carry, batches, common.data, lane
    run = jax.jit(advance, static_argnums=4).lower(*arguments, STEPS).compile()
    return lambda: jax.block_until_ready(run(*arguments))
