"""What `gpu_check.py` asks beside single aggregations: the other benchmarks, briefly.

A part knows its rows before it runs, so that a page can show what was not measured.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks import (
    aggregate,
    memory,
    peers,
    solvers,
    step,
    step_models,
    step_ways,
    tables,
    timing,
)
from benchmarks.gpu_checks import Part, Row, checks

UNMEASURED = "unmeasured"
MODELS = (("mlp", 2), ("mlp", 10), ("transformer", 8), ("cnn", 3))
WAYS = (step_ways.PLAIN, step_ways.PASSES, step_ways.STACKED, step_ways.LAZY)
TASKS = (2, 4, 8, 16, 32, 64)
METHODS = ("upgrad", "mgda", "pcgrad", "imtl_g", "graddrop", "uw")
ROUNDS, READ_BYTES, QUICK_BYTES = 7, 2_000_000_000, 16_000_000


def _steps(model: str, num_tasks: int, quick: bool) -> Part:
    problem = partial(step_models.problem, model, num_tasks, quick=quick)

    def run() -> dict[str, Row]:
        given = problem()
        # Checks that the weights agree, too
        found = step.measure(given, WAYS, peers.NONE, rounds=ROUNDS)["results"]
        needed = memory.measure(given, WAYS, peers.NONE, processes=False)["results"]
        return {
            way: Row(
                f"{tables.quartiles(found[way]['wall_ms'])} ms, "
                f"{tables.median(found[way]['wall_ratio'])} of the plain step, "
                f"{needed[way]['temporaries_mib']:.3g} MiB of temporaries"
            )
            for way in WAYS
        }

    return Part(f"step: {model}, T={num_tasks}", WAYS, run)


def _solvers(num_tasks: int) -> Part:
    names = tuple(solvers.RULES)

    def run() -> dict[str, Row]:
        found = solvers.measure(num_tasks, names, peers.NONE, ROUNDS)["results"]
        return {
            name: Row(
                f"{tables.quartiles(found[name]['wall_ms'])} ms, "
                f"{tables.median(found[name]['wall_ratio'])} of a launch"
            )
            for name in names
        }

    return Part(f"rule alone: T={num_tasks}", names, run)


def _aggregate(num_tasks: int, size: int, quick: bool) -> Part:
    def run() -> dict[str, Row]:
        found = aggregate.measure(
            *(num_tasks, size, METHODS),
            rounds=ROUNDS,
            warmup=2,
            probe=timing.read_probe(QUICK_BYTES if quick else READ_BYTES),
        )["results"]
        return {
            name: Row(
                f"{tables.quartiles(found[name]['wall_ms'])} ms, "
                f"{tables.median(found[name]['wall_ratio'])} of Adam alone, "
                f"{tables.median(found[name]['wall_over_floor'])} of the floor"
            )
            for name in METHODS
        }

    return Part(f"method and Adam: T={num_tasks}, P={size:,}", METHODS, run)


def parts(*, quick: bool = False) -> list[Part]:
    """All, the checks first."""
    sizes = aggregate.QUICK_SIZES if quick else aggregate.SIZES
    tasks = solvers.QUICK_TASKS if quick else TASKS
    models = MODELS[:1] if quick else MODELS
    return [
        *checks(),
        *(_steps(*model, quick) for model in models),
        *(_aggregate(*size, quick) for size in sizes),
        *(_solvers(num_tasks) for num_tasks in tasks),
    ]


def page(found: dict[str, dict[str, Row]], header: str, *, quick: bool = False) -> str:
    """In Markdown, every row of every part."""
    lines = []
    for part in parts(quick=quick):
        rows = found.get(part.name, {})
        for name in part.rows:
            row = rows.get(name, Row(UNMEASURED))
            lines.append([part.name, name, row.text if row.ok else f"**{row.text}**"])
    return f"# On a GPU\n\n{header}\n\n{tables.table(('what', 'of', 'found'), lines)}\n"


def shown(environment: dict[str, Any]) -> str:
    """Device and versions, in a line."""
    versions: Sequence[str] = [f"{k} {v}" for k, v in environment["versions"].items()]
    return f"{environment['device']}, {environment['date']}. {', '.join(versions)}."
