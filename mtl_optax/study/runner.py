"""The one training loop on which every study stands.

A study is a problem, methods and lanes. A lane is one training run, described by traced
numbers, so that all lanes of a method are one compiled program. Lanes of the same seed
start at the same parameters and see the same batches, whatever the method: what differs
between them is the method alone.
"""

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
from mtl_optax.study.model import Problem
from mtl_optax.study.programs import Lanes, Recipe, programs

BATCH_SIZE = 64
CHUNK = 50  # steps between two signs of progress
WORKERS = 2  # methods at a time: one compiles, on one core, while another trains

Tick = Callable[[str, str, int], None]


class Start(NamedTuple):
    """What the runs of one seed have in common, whatever the method."""

    params: Any
    batches: NDArray[np.int32]  # [steps, BATCH_SIZE], indices of images


class Run(NamedTuple):
    """What one method did in all its lanes."""

    losses: NDArray[np.float32]  # [steps, L, T], before scaling
    task_weights: NDArray[np.float32]  # [steps, L, T], NaN if the method has none
    accuracy: dict[str, NDArray[np.float32]]  # split -> [L, T] after training, in %
    compile_seconds: float
    run_seconds: float


def batch_indices(seed: int, num_images: int, steps: int) -> NDArray[np.int32]:
    """The batches of a seed `[steps, BATCH_SIZE]`, drawn outside of any jit."""
    rng = np.random.default_rng(seed)
    return rng.integers(num_images, size=(steps, BATCH_SIZE), dtype=np.int32)


def train_all(
    problem: Problem,
    work: dict[str, Lanes],
    recipe: Recipe,
    tick: Tick,
    store: Checkpoints | None = None,
) -> dict[str, Run]:
    """Trains each method in its lanes, two methods at a time; see `train`."""
    seeds = sorted({int(seed) for lanes in work.values() for seed in lanes.seed})
    # Drawn here, outside of any jit, once for all methods.
    size = len(problem.splits["train"].images)
    steps = recipe.steps
    starts = {s: Start(problem.init(s), batch_indices(s, size, steps)) for s in seeds}
    stop = threading.Event()

    def tick_or_stop(method: str, stage: str, done: int) -> None:
        if stop.is_set():
            raise InterruptedError(f"{method} was stopped.")
        tick(method, stage, done)

    with ThreadPoolExecutor(WORKERS) as pool:
        runs = {
            method: pool.submit(
                train, problem, method, lanes, starts, recipe, tick_or_stop, store
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
    starts: dict[int, Start],
    recipe: Recipe,
    tick: Tick,
    store: Checkpoints | None = None,
) -> Run:
    """Trains every lane and evaluates the last parameters.

    Args:
      problem: data and model.
      method: one of `methods.KNOWN`.
      lanes: the runs.
      starts: seed -> parameters and batches to start with.
      recipe: steps and optimiser.
      tick: called with the method, "compiling" or "training", and the steps done.
      store: where to continue from, and to write to.
    """
    tick(method, "compiling", 0)
    start = time.perf_counter()
    images, labels = map(jnp.asarray, problem.splits["train"])
    own = [starts[int(seed)] for seed in lanes.seed]
    params = jax.tree.map(lambda *x: jnp.stack(x), *[start.params for start in own])
    batches = np.stack([start.batches for start in own], axis=1)
    steps = recipe.steps
    init, advance = programs(problem, method, recipe)
    opt_state = jax.jit(init)(params, lanes)
    chunk = max(n for n in range(1, CHUNK + 1) if steps % n == 0)
    # The data are arguments: closed over, XLA would fold them into the program.
    data = images, labels, lanes
    advance = (
        jax.jit(advance, donate_argnums=(0, 1))
        .lower(params, opt_state, batches[:chunk], *data)
        .compile()
    )
    compiled = written = time.perf_counter()
    saved = store.load(method) if store is not None else None
    done, spent, records = 0, 0.0, []
    if saved is not None:
        done, spent, records = saved.done, saved.seconds, [saved.records]
        structure = jax.tree.structure((params, opt_state))
        state = jax.tree.unflatten(structure, map(jnp.asarray, saved.leaves))
        params, opt_state = state
    tick(method, "training", done)

    while done < steps:
        begun = time.perf_counter()
        batch = batches[done : done + chunk]
        params, opt_state, record = advance(params, opt_state, batch, *data)
        records.append(jax.tree.map(np.asarray, record))  # waits for the chunk
        done += chunk
        now = time.perf_counter()
        spent += now - begun
        if store is not None and (done == steps or now - written >= store.seconds):
            leaves = list(map(np.asarray, jax.tree.leaves((params, opt_state))))
            store.save(method, Saved(done, leaves, _joined(records), spent))
            written = time.perf_counter()
        tick(method, "training", done)
    losses, task_weights = _joined(records)
    accuracy = {name: evaluate(problem, params, name) for name in ("val", "test")}
    return Run(losses, task_weights, accuracy, compiled - start, spent)


def _joined(records: list[Any]) -> tuple[NDArray, NDArray]:
    losses, task_weights = map(np.concatenate, zip(*records, strict=True))
    return losses, task_weights


def evaluate(problem: Problem, params: Any, split: str) -> NDArray[np.float32]:
    """Accuracy `[L, T]` in percent."""
    over_lanes = jax.jit(jax.vmap(problem.accuracy, in_axes=(0, None, None)))
    return np.asarray(over_lanes(params, *map(jnp.asarray, problem.splits[split])))
