"""The training of `long_run.py`: one process, which may be killed at any moment.

A transformer in bfloat16 with three tasks whose labels are missing at random, UPGrad
around Adam. All of a step follows from its number, so that a process goes on from the
last checkpoint without anything else to restore.
"""

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax import monitoring

import mtl_optax as mtl
from benchmarks import step_models

TASKS = ("class", "depth", "normal")
KNOWN = 0.1  # share of the labels that are known
BATCH, LENGTH, VOCABULARY = 4, 8, 200
COMPILED = "/jax/core/compile/backend_compile_duration"


class Plan(NamedTuple):
    """How long, and what happens when."""

    steps: int
    save_every: int
    nan_every: int
    width: int
    blocks: int  # of the transformer
    die_at: int = -1  # the step at which the process begins to die
    die_after: float = 0.0  # seconds after it


def in_float32(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """As in docs/recipes.md: moments of bfloat16 parameters."""

    def up(tree: Any) -> Any:
        return optax.tree.cast(tree, jnp.float32)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return optimizer.update(up(updates), state, up(params))

    return optax.GradientTransformation(lambda p: optimizer.init(up(p)), update)


def transformation() -> optax.GradientTransformationExtraArgs:
    """A Gramian method that a NaN in one task must not stop."""
    chain = optax.chain(mtl.upgrad(len(TASKS)), in_float32(optax.adam(1e-3)))
    return mtl.skip_nonfinite_tasks(chain, len(TASKS))


def fresh(width: int, blocks: int) -> tuple[Any, Any]:
    """Parameters in bfloat16, and the optimiser's state."""
    random = np.random.default_rng(0)
    sizes = width, VOCABULARY, blocks, LENGTH
    trunk = step_models.transformer_trunk(random, *sizes)
    heads = {
        task: {"kernel": random.normal(size=(width, 1)) / 8, "bias": np.zeros(1)}
        for task in TASKS
    }
    params = {"trunk": trunk, "heads": heads}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params)
    return params, transformation().init(params)


def batch(number: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens `[B, L]`, targets and which of them are known `[T, B, L]`, of a step."""
    key = jax.random.fold_in(jax.random.key(0), number)
    at, noise, known = jax.random.split(key, 3)
    tokens = jax.random.randint(at, (BATCH, LENGTH), 0, VOCABULARY)
    # Neighbouring tasks pull apart.
    places = (2 * jnp.arange(len(TASKS)))[:, None, None]
    means = jnp.sin(tokens.astype(jnp.float32)[None] + places)
    shape = len(TASKS), BATCH, LENGTH
    targets = means + 0.1 * jax.random.normal(noise, shape)
    return tokens, targets, jax.random.bernoulli(known, KNOWN, shape)


def bad(number: Any, nan_every: int) -> jax.Array:
    """`[T]`, whose loss is NaN in this step: one task's in every so many steps."""
    number = number + 1
    due = (number // nan_every) % len(TASKS) == jnp.arange(len(TASKS))
    return due & (number % nan_every == 0)


def skips(plan: Plan) -> list[int]:
    """How often each task must be skipped: its loss is NaN, and it has a label."""
    numbers = jnp.arange(plan.nan_every - 1, plan.steps, plan.nan_every)

    def skipped(number: jax.Array) -> jax.Array:
        active = batch(number)[2].any(axis=(1, 2))
        return bad(number, plan.nan_every) & active

    return np.asarray(jax.vmap(skipped)(numbers).sum(axis=0)).tolist()


def losses_fn(params: Any, tokens: Any, targets: Any, known: Any, lost: Any) -> Any:
    """Squared errors of what is known, on a trunk that computes in bfloat16."""
    features = step_models.transformer(params["trunk"], tokens)
    losses = {}
    for t, (task, head) in enumerate(params["heads"].items()):
        said = features @ head["kernel"] + head["bias"].reshape(1, 1, 1)
        errors = (said[..., 0].astype(jnp.float32) - targets[t]) ** 2
        losses[task] = mtl.masked_mean(errors, known[t]) * jnp.where(
            lost[t], jnp.nan, 1
        )
    return losses


def make_step(plan: Plan) -> Any:
    """One donated program, for all steps."""
    tx = transformation()

    def step(params: Any, opt_state: Any, number: Any) -> tuple[Any, Any, Any]:
        tokens, targets, known = batch(number)
        lost = bad(number, plan.nan_every)
        losses, grads = mtl.lazy_task_grads(losses_fn)(
            params, tokens, targets, known, lost
        )
        active = known.any(axis=(1, 2))
        updates, opt_state = tx.update(grads, opt_state, params, active=active)
        return optax.apply_updates(params, updates), opt_state, losses

    return jax.jit(step, donate_argnums=(0, 1))


def held() -> float:
    """MiB of memory that this process has now."""
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def manager(folder: Path) -> Any:
    """Of the checkpoints; each is written beside the training, as orbax does."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    return ocp.CheckpointManager(folder / "checkpoints", options=options)


def restored(checkpoints: Any, plan: Plan) -> tuple[Any, Any]:
    """Parameters and state of the last checkpoint that is whole."""
    like = jax.eval_shape(partial(fresh, plan.width, plan.blocks))
    args = ocp.args.StandardRestore(like)
    return tuple(checkpoints.restore(checkpoints.latest_step(), args=args))


def die() -> None:
    """As `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, plan: Plan) -> None:
    """From the last checkpoint to the end, or to the process's own; a line a save."""
    compiled: list[str] = []
    monitoring.register_event_duration_secs_listener(
        lambda event, _, **more: compiled.append(event) if event == COMPILED else None
    )
    halves = len(list(folder.glob("checkpoints/*orbax-checkpoint-tmp*")))
    log = folder / f"log{len(list(folder.glob('log*'))):02}.jsonl"
    step, death = make_step(plan), None
    with manager(folder) as checkpoints, open(log, "w") as lines:
        first = checkpoints.latest_step() or 0
        run = restored(checkpoints, plan) if first else fresh(plan.width, plan.blocks)
        for number in range(first, plan.steps):
            if 0 <= plan.die_at <= number and death is None:
                death = threading.Timer(plan.die_after, die)
                death.start()
            *run, losses = step(*run, np.int32(number))
            if (number + 1) % plan.save_every == 0:
                args = ocp.args.StandardSave(tuple(run))
                checkpoints.save(number + 1, args=args)
                line = {
                    **{"first": first, "step": number + 1, "halves": halves},
                    **{"rss_mib": held(), "arrays": len(jax.live_arrays())},
                    **{"compiled": len(compiled), "programs": step._cache_size()},
                    **{"wall": time.monotonic(), "cpu": time.process_time()},
                    "losses": np.asarray(losses).tolist(),
                }
                print(json.dumps(line), file=lines, flush=True)
        if death is not None:
            death.join()
            time.sleep(60)  # the signal is on its way


if __name__ == "__main__":
    train(Path(sys.argv[1]), Plan(*map(json.loads, sys.argv[2:])))
