"""The one training loop on which every study stands.

A study is a problem, methods and lanes. A lane is one training run, described by traced
numbers, so that all lanes of a method are one compiled program.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.checkpoints import Checkpoints, Saved, as_before, numbers
from mtl_optax.study.engine.checks import held_out
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Lanes, Recipe, StepLog, programs
from mtl_optax.study.engine.starts import (
    Block,
    Common,
    evaluated,
    precision,
    prepare,
)
from mtl_optax.study.engine.transformations import Method, OnTwoBatches

# Methods at a time: one compiles, on one core, while another trains.
WORKERS = max(2, min(4, (os.cpu_count() or 2) // 2))

Tick = Callable[[str, str, int], None]


def quiet(method: str, stage: str, done: int) -> None:
    """A tick that nobody sees."""
    del method, stage, done


class Work(NamedTuple):
    """What one method trains."""

    problem: Problem
    method: Method
    lanes: Lanes
    blocks: NDArray[np.int64] | None = None  # of blocks.py; None: all lanes are one

    def each(self) -> list[Lanes]:
        """The lanes of each block."""
        rows = [slice(None)] if self.blocks is None else list(self.blocks)
        return [jax.tree.map(lambda x, at=at: x[at], self.lanes) for at in rows]


class LanesResult(NamedTuple):
    """What one method did in all its lanes, or in some, block by block."""

    log: StepLog  # of arrays [records, L, ...]
    metrics: dict[str, dict[str, NDArray]]  # split -> name -> [L, T], after training
    compile_seconds: float
    run_seconds: float


def train_all(
    work: dict[str, Work],
    recipe: Recipe,
    tick: Tick = quiet,
    store: Checkpoints | None = None,
) -> dict[str, LanesResult]:
    """Trains each method in its lanes, some methods at a time; see `train`."""
    every = (block.seed for own in work.values() for block in own.each())
    seeds = sorted({int(seed) for block in every for seed in block})
    common: dict[int, Common] = {}
    for own in work.values():
        if id(own.problem) not in common:
            common[id(own.problem)] = prepare(own.problem, seeds, recipe)
    stop = threading.Event()

    def tick_or_stop(method: str, stage: str, done: int) -> None:
        if stop.is_set():
            raise InterruptedError(f"{method} was stopped.")
        tick(method, stage, done)

    with ThreadPoolExecutor(WORKERS) as pool:
        runs = {
            name: pool.submit(
                train, name, own, common[id(own.problem)], recipe, tick_or_stop, store
            )
            for name, own in work.items()
        }
        try:
            return {name: run.result() for name, run in runs.items()}
        except BaseException:  # Ctrl-C too: without this the pool would finish all
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def train(
    name: str,
    work: Work,
    common: Common,
    recipe: Recipe,
    tick: Tick = quiet,
    store: Checkpoints | None = None,
) -> LanesResult:
    """Trains every lane of a method and evaluates what training ended with.

    Args:
      name: of the method, for `tick` and `store`.
      work: problem, method and runs.
      common: from `prepare`.
      recipe: steps, optimiser, and how often to record.
      tick: called with the name, "compiling" or "training", and the steps done.
      store: where to continue from, and to write to.
    """
    with precision(work.problem):  # a setting of this thread
        return _train(name, work, common, recipe, tick, store)


def _train(
    name: str,
    work: Work,
    common: Common,
    recipe: Recipe,
    tick: Tick,
    store: Checkpoints | None,
) -> LanesResult:
    tick(name, "compiling", 0)
    start = time.perf_counter()
    problem, method = work.problem, work.method
    make = problem.programs or partial(programs, problem)
    init, advance = make(method, recipe)
    init, chunk = jax.jit(init), recipe.chunk
    blocks = [Block(lanes, common) for lanes in work.each()]
    carries = [block.carry(init) for block in blocks]
    # The data are arguments: closed over, XLA would fold them into the program.
    data = common.data
    if isinstance(method, OnTwoBatches):
        data = data, jax.tree.map(jnp.asarray, held_out(problem, name))
    lowered = jax.jit(advance, donate_argnums=0, static_argnums=4).lower(
        *(carries[0], blocks[0].batch(0, chunk), data, blocks[0].lanes),
        *(chunk, np.int32(0)),
    )
    of_log = jax.tree.structure(lowered.out_info[1])
    run_chunk = lowered.compile()
    compiled = written = time.perf_counter()
    saved = store.load(name) if store is not None else None
    done, spent = 0, 0.0
    logs: list[list[NDArray]] = []  # a list a chunk, in the order of StepLog
    if saved is not None:
        done, spent, logs = saved.done, saved.seconds, [list(saved.records)]
        leaves, structure = jax.tree.flatten(carries)
        carries = jax.tree.unflatten(structure, map(as_before, leaves, saved.leaves))
    tick(name, "training", done)

    while done < recipe.steps:
        begun = time.perf_counter()
        found = []
        for number, block in enumerate(blocks):
            batch = block.batch(done, chunk)
            args = carries[number], batch, data, block.lanes, np.int32(done)
            carries[number], log = run_chunk(*args)
            found.append(list(map(np.asarray, jax.tree.leaves(log))))  # waits
        logs.append([np.concatenate(x, axis=1) for x in zip(*found, strict=True)])
        done += chunk
        now = time.perf_counter()
        spent += now - begun
        last = done == recipe.steps
        if store is not None and (last or now - written >= store.seconds):
            leaves = list(map(numbers, jax.tree.leaves(carries)))
            store.save(name, Saved(done, leaves, _joined(logs), spent))
            written = time.perf_counter()
        tick(name, "training", done)
    log = jax.tree.unflatten(of_log, _joined(logs))
    metrics = evaluated(problem, common, blocks, carries)
    return LanesResult(log, metrics, compiled - start, spent)


def _joined(logs: list[list[NDArray]]) -> tuple[NDArray, ...]:
    return tuple(map(np.concatenate, zip(*logs, strict=True)))
