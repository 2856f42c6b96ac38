"""What a front costs in one program, against its runs one after the other."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import mtl_optax as mtl
from benchmarks import timing


class Work(NamedTuple):
    """What every run trains."""

    losses: Callable[..., Any]  # (params, batch)
    params: Any
    batches: Any  # leading axis of steps
    after: optax.GradientTransformation


def compare(
    method_of: Any, preferences: Any, work: Work, rounds: int
) -> dict[str, Any]:
    """Times of both, interleaved in one process, and those of compiling them.

    The run that is called once for each preference is compiled once, as a user would
    who knows that a preference may be an argument.
    """
    front = jax.jit(lambda p: _front(method_of, p, work))
    single = jax.jit(lambda p: _run(method_of, p, work))
    together, whole = _compiled(front, preferences)
    one, alone = _compiled(single, preferences[0])
    rows = list(preferences)
    for row in rows:  # the same answers, or the times mean nothing
        jax.block_until_ready(alone(row))

    contenders = {
        "front": lambda: jax.block_until_ready(whole(preferences)),
        "one by one": lambda: [jax.block_until_ready(alone(row)) for row in rows],
    }
    samples = timing.interleave(contenders, rounds, warmup=1)
    walls = {name: timing.spread(times) for name, times in samples.wall.items()}
    wall, cpu = (timing.ratios(t, "front") for t in (samples.wall, samples.cpu))
    compiling = {"front": together, "one by one": one}
    total = {name: compiling[name] + walls[name].median for name in walls}
    return {
        "count": len(rows),
        "steps": len(jax.tree.leaves(work.batches)[0]),
        "rounds": rounds,
        "wall_s": {name: each._asdict() for name, each in walls.items()},
        "compile_s": compiling,
        "wall_ratio": wall["one by one"]._asdict(),
        "cpu_ratio": cpu["one by one"]._asdict(),
        "with_compilation": total["one by one"] / total["front"],
        "with_all_compilations": (
            (one * len(rows) + walls["one by one"].median) / total["front"]
        ),
        "load_average": timing.load_average(),
    }


def _compiled(program: Any, argument: Any) -> tuple[float, Any]:
    """Seconds to trace and compile, and the program."""
    start = time.perf_counter()
    done = program.lower(argument).compile()
    return time.perf_counter() - start, done


def _front(method_of: Any, preferences: Any, work: Work) -> Any:
    last = jax.tree.map(lambda x: x[-1], work.batches)
    return mtl.pareto_front(
        method_of,
        preferences,
        losses_fn=work.losses,
        params=work.params,
        batches=work.batches,
        optimizer=work.after,
        evaluate=lambda params: work.losses(params, last),
    ).params


def _run(method_of: Any, preference: Any, work: Work) -> Any:
    """The loop that a user writes for one network."""
    tx = optax.chain(method_of(preference), work.after)

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        params, state = carry
        _, grads = mtl.lazy_task_grads(work.losses)(params, batch)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = work.params, tx.init(work.params)
    return jax.lax.scan(step, start, work.batches)[0][0]
