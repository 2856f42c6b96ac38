"""Two tasks on one host or many: python train_many_hosts.py --steps 20 --out DIR

The same in each process: Slurm says who is who, or COORDINATOR_ADDRESS, NUM_PROCESSES
and PROCESS_ID do. Started again, in any number, it goes on from the last checkpoint.
"""

import argparse
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding

import mtl_optax as mtl

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", type=Path, required=True, help="a folder that all see")
given = parser.parse_args()
within = {"heartbeat_timeout_seconds": 30, "shutdown_timeout_seconds": 30}
if "PROCESS_ID" in os.environ:
    numbers = [int(os.environ[name]) for name in ("NUM_PROCESSES", "PROCESS_ID")]
    jax.distributed.initialize(os.environ["COORDINATOR_ADDRESS"], *numbers, **within)
elif "SLURM_JOB_ID" in os.environ:
    jax.distributed.initialize(**within)

BATCH, WIDTH, SAVE_EVERY = 64, 128, 10
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
by_rows, whole = NamedSharding(mesh, jax.P("data")), NamedSharding(mesh, jax.P())
tx = optax.chain(mtl.cagrad(num_tasks=2), optax.adam(1e-2))


def init(key):  # FSDP: each device holds a part of every parameter
    trunk, deep = jnp.split(jax.random.normal(key, (16 + WIDTH, WIDTH)), [16])
    heads = dict.fromkeys(("a", "b"), jnp.zeros(WIDTH))
    return {"trunk": trunk / 4, "deep": deep / WIDTH**0.5, **heads}


def rows(step):  # each process its share of a batch that is the same for any number
    rng = np.random.default_rng(step)
    x = rng.standard_normal((BATCH, 16), np.float32)
    known = rng.random(BATCH) < 0.3  # labels of b
    batch = x, np.sin(x[:, 0]), np.where(known, 3 * x[:, 1], 0), known
    own = np.arange(BATCH).reshape(jax.process_count(), -1)[jax.process_index()]
    place = jax.make_array_from_process_local_data
    return [place(by_rows, part[own]) for part in batch]


@jax.jit
def train_step(params, state, x, a, b, known):
    def losses_fn(params):  # of the whole batch; parameters come together here
        params = jax.lax.with_sharding_constraint(params, whole)
        h = jnp.tanh(jnp.tanh(x @ params["trunk"]) @ params["deep"])
        of_a, of_b = (h @ params["a"] - a) ** 2, (h @ params["b"] - b) ** 2
        return {"a": jnp.mean(of_a), "b": mtl.masked_mean(of_b, known)}

    losses, grads = mtl.lazy_task_grads(losses_fn)(params)
    active = jnp.stack([True, known.any()])
    updates, state = tx.update(grads, state, params, active=active)
    return optax.apply_updates(params, updates), state, losses


params = jax.jit(init, out_shardings=by_rows)(jax.random.key(0))
state = mtl.init_like(tx, params)  # moments lie where their parameters do
every = ocp.CheckpointManagerOptions(save_interval_steps=SAVE_EVERY)
with ocp.CheckpointManager(given.out.resolve(), options=every) as manager:
    if last := manager.latest_step() or 0:
        like = ocp.args.StandardRestore((params, state))
        params, state = manager.restore(last, args=like)
    for step in range(last + 1, given.steps + 1):
        params, state, losses = train_step(params, state, *rows(step))
        now = ocp.args.StandardSave((params, state))
        manager.save(step, args=now, force=step == given.steps)
        if jax.process_index() == 0:
            print(f"step {step} losses", *(f"{x:.6f}" for x in losses), flush=True)
