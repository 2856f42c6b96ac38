"""What an architecture costs: parameters, and the time of a training step.

A step is that of the runner, on one lane, compiled in a scan of 10; architectures take
turns, and ratios to the first one are taken within a round.
"""

from typing import Any, NamedTuple

import jax

from mtl_optax.study import compare
from mtl_optax.study.compare import Results
from mtl_optax.study.interleave import Contender, Spread, interleave, ratios, spread
from mtl_optax.study.methods import BASELINE
from mtl_optax.study.programs import programs
from mtl_optax.study.starts import prepare

STEPS = 10
ROUNDS = 15
QUICK_ROUNDS = 5


class Size(NamedTuple):
    """Numbers of parameters."""

    total: int
    shared: int  # by all tasks

    @property
    def own(self) -> int:
        """Those that belong to some task."""
        return self.total - self.shared


class Cost(NamedTuple):
    """Of a training step, and in parameters."""

    size: Size
    milliseconds: float  # CPU time of a step, median
    cpu: Spread  # over that of the first architecture
    wall: Spread


def size(problem: Any) -> Size:
    """Of the network of a problem."""
    params = jax.eval_shape(lambda: problem.init(0))
    counts = [leaf.size for leaf in jax.tree.leaves(params)]
    shared = jax.tree.leaves(problem.shared(params))
    return Size(
        sum(counts), sum(n for n, yes in zip(counts, shared, strict=True) if yes)
    )


def single_nets(base: Size, num_tasks: int) -> int:
    """Parameters of a network of its own for each task, in place of hard sharing."""
    return num_tasks * base.shared + base.own


def measure(results: dict[str, Results]) -> dict[str, Cost]:
    """Of architectures on one problem."""
    first = next(iter(results))
    rounds = QUICK_ROUNDS if results[first].settings.quick else ROUNDS
    samples = interleave({x: steps(results[x]) for x in results}, rounds)
    cpu, wall = ratios(samples.cpu, first), ratios(samples.wall, first)
    return {
        name: Cost(
            size(own.problem),
            1e3 * spread(samples.cpu[name]).median / STEPS,
            cpu[name],
            wall[name],
        )
        for name, own in results.items()
    }


def steps(results: Results) -> Contender:
    """A compiled function that takes so many steps of one run."""
    problem = results.problem
    settings = results.settings._replace(
        seeds=1,
        tuning_seeds=0,
        steps=STEPS,
        points=1,
        learning_rates=results.settings.learning_rates[:1],
    )
    recipe = settings.recipe()
    lanes = compare.lanes(len(problem.tasks), (1,), settings, BASELINE)
    common = prepare(problem, [0], recipe)
    start = jax.tree.map(lambda x: x[None], common.starts[0].params)
    batches = common.starts[0].batches
    if batches is not None:
        batches = batches[:, None]
    init, advance = programs(problem, BASELINE, recipe)
    arguments = start, jax.jit(init)(start, lanes), batches, common.data, lanes
    run = jax.jit(advance, static_argnums=5).lower(*arguments, STEPS).compile()
    return lambda: jax.block_until_ready(run(*arguments))
