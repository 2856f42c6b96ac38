"""The one training loop on which every study stands.

A study is a problem, methods and lanes. A lane is one training run, described by traced
numbers, so that all lanes of a method are one compiled program.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.checkpoints import Checkpoints, Saved
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Lanes, Recipe, Record, programs
from mtl_optax.study.starts import Common, precision, prepare

# Methods at a time: one compiles, on one core, while another trains.
WORKERS = max(2, min(4, (os.cpu_count() or 2) // 2))

Tick = Callable[[str, str, int], None]


class Run(NamedTuple):
    """What one method did in all its lanes."""

    record: Record  # of arrays [records, L, ...]
    metrics: dict[str, dict[str, NDArray]]  # split -> name -> [L, T], after training
    compile_seconds: float
    run_seconds: float


def train_all(
    problem: Problem,
    work: dict[str, Lanes],
    recipe: Recipe,
    tick: Tick,
    store: Checkpoints | None = None,
) -> dict[str, Run]:
    """Trains each method in its lanes, some methods at a time; see `train`."""
    seeds = sorted({int(seed) for lanes in work.values() for seed in lanes.seed})
    common = prepare(problem, seeds, recipe)
    stop = threading.Event()

    def tick_or_stop(method: str, stage: str, done: int) -> None:
        if stop.is_set():
            raise InterruptedError(f"{method} was stopped.")
        tick(method, stage, done)

    with ThreadPoolExecutor(WORKERS) as pool:
        runs = {
            method: pool.submit(
                train, problem, method, lanes, common, recipe, tick_or_stop, store
            )
            for method, lanes in work.items()
        }
        try:
            return {method: run.result() for method, run in runs.items()}
        except BaseException:  # Ctrl-C too: without this the pool would finish all
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def train(
    problem: Problem,
    method: str,
    lanes: Lanes,
    common: Common,
    recipe: Recipe,
    tick: Tick,
    store: Checkpoints | None = None,
) -> Run:
    """Trains every lane and evaluates the last parameters.

    Args:
      problem: what is trained.
      method: one of `methods.KNOWN`.
      lanes: the runs.
      common: from `prepare`.
      recipe: steps, optimiser, and how often to record.
      tick: called with the method, "compiling" or "training", and the steps done.
      store: where to continue from, and to write to.
    """
    with precision(problem):  # a setting of this thread
        return _train(problem, method, lanes, common, recipe, tick, store)


def _train(
    problem: Problem,
    method: str,
    lanes: Lanes,
    common: Common,
    recipe: Recipe,
    tick: Tick,
    store: Checkpoints | None,
) -> Run:
    tick(method, "compiling", 0)
    start = time.perf_counter()
    own = [common.starts[int(seed)] for seed in lanes.seed]
    params = jax.tree.map(lambda *x: jnp.stack(x), *[x.params for x in own])
    batches = jax.tree.map(lambda *x: np.stack(x, axis=1), *[x.batches for x in own])
    init, advance = programs(problem, method, recipe)
    opt_state = jax.jit(init)(params, lanes)
    chunk = recipe.chunk

    def batch(done: int) -> Any:
        return jax.tree.map(lambda x: x[done : done + chunk], batches)

    # The data are arguments: closed over, XLA would fold them into the program.
    data = common.data, lanes
    lowered = jax.jit(advance, donate_argnums=(0, 1), static_argnums=5).lower(
        params, opt_state, batch(0), *data, chunk, np.int32(0)
    )
    of_record = jax.tree.structure(lowered.out_info[2])
    run_chunk = lowered.compile()
    compiled = written = time.perf_counter()
    saved = store.load(method) if store is not None else None
    done, spent = 0, 0.0
    records: list[list[NDArray]] = []  # a list a chunk, in the order of Record
    if saved is not None:
        done, spent, records = saved.done, saved.seconds, [list(saved.records)]
        structure = jax.tree.structure((params, opt_state))
        state = jax.tree.unflatten(structure, map(jnp.asarray, saved.leaves))
        params, opt_state = state
    tick(method, "training", done)

    while done < recipe.steps:
        begun = time.perf_counter()
        params, opt_state, record = run_chunk(
            params, opt_state, batch(done), *data, np.int32(done)
        )
        records.append([np.asarray(x) for x in jax.tree.leaves(record)])  # waits
        done += chunk
        now = time.perf_counter()
        spent += now - begun
        last = done == recipe.steps
        if store is not None and (last or now - written >= store.seconds):
            leaves = list(map(np.asarray, jax.tree.leaves((params, opt_state))))
            store.save(method, Saved(done, leaves, _joined(records), spent))
            written = time.perf_counter()
        tick(method, "training", done)
    metrics = {
        name: {k: np.asarray(v) for k, v in common.evaluate(params, split).items()}
        for name, split in problem.splits.items()
        if name != "train"
    }
    record = jax.tree.unflatten(of_record, _joined(records))
    return Run(record, metrics, compiled - start, spent)


def _joined(records: list[list[NDArray]]) -> tuple[NDArray, ...]:
    return tuple(map(np.concatenate, zip(*records, strict=True)))
