"""Interleaved timing: contenders in rounds, and ratios within a round.

A round runs every contender once, in an order drawn anew. So whatever else the machine
does falls on all alike, and ratios are taken within a round before their median is.
Process CPU time counts all threads: it tells work from waiting when others use the
machine, but hides what parallel threads gain in wall time.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

READ = "one read"

Contender = Callable[[], Any]


class Probe(NamedTuple):
    """A read of `num_bytes`, timed as a contender of its own, `READ`."""

    run: Contender
    num_bytes: int


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Samples:
    """Seconds a call; entry r of every array is from round r."""

    wall: Mapping[str, NDArray[np.float64]]
    cpu: Mapping[str, NDArray[np.float64]]


def interleave(
    contenders: Mapping[str, Contender],
    rounds: int,
    warmup: int = 2,
    *,
    probe: Probe | None = None,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
) -> Samples:
    """Times every contender once a round, in an order drawn anew.

    Args:
      contenders: name -> a function of nothing, which blocks until its work is done.
      rounds: how often each is timed.
      warmup: calls of each before, which are not timed: the first one compiles.
      probe: a read of memory, timed in the same rounds as `READ`.
      wall: the clock, in seconds.
      cpu: that of all threads of this process.

    Returns:
      `Samples`, with `[rounds]` seconds of each contender and of the probe.

    Raises:
      ValueError: if a contender is called `READ`.

    Cost: `warmup + rounds` calls of each contender.

    When not to use it: for functions that return before their work is done, as compiled
    ones of JAX do; let the contender wait with `jax.block_until_ready`. And not to tell
    how long one call takes when nothing else was run before: caches are those of turns.

    Example:
      >>> from mtl_optax.analysis.interleave import interleave, ratios
      >>> samples = interleave(
      ...     {"few": lambda: sum(range(9)), "no": lambda: 0}, rounds=5
      ... )
      >>> samples.wall["few"].shape, ratios(samples.wall, "no")["no"].median
      ((5,), 1.0)
    """
    if READ in contenders:
        raise ValueError(f"interleave: {READ!r} is the name of the probe.")
    runs = dict(contenders) | ({READ: probe.run} if probe else {})
    for run in runs.values():
        for _ in range(warmup):
            run()
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            cpu_start, start = cpu(), wall()
            runs[name]()
            end, cpu_end = wall(), cpu()
            walls[name].append(end - start)
            cpus[name].append(cpu_end - cpu_start)
    return Samples(
        {name: np.asarray(values) for name, values in walls.items()},
        {name: np.asarray(values) for name, values in cpus.items()},
    )


def spread(values: Any) -> Spread:
    """Of an array of times or ratios."""
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(lower), float(upper))


def ratios(times: Mapping[str, NDArray[Any]], reference: str) -> dict[str, Spread]:
    """Spread of each contender's time over the reference's in the same round.

    Args:
      times: name -> `[rounds]`, of `Samples`.
      reference: one of the names.

    Returns:
      Name -> `Spread`; of ratios that a clock too coarse leaves unknown it is NaN.
    """
    base = times[reference]

    def over_base(values: NDArray[Any]) -> Spread:
        # A clock too coarse for the call gives 0/0: no ratio, not a warning.
        unknown = np.full(len(base), np.nan)
        return spread(np.divide(values, base, out=unknown, where=base > 0))

    return {name: over_base(values) for name, values in times.items()}
