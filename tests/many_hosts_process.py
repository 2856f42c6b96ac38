"""One of the processes that train together, each with its own part of every batch.

Arguments: its number, how many there are, the coordinator's address, and what to do,
one after the other. "train:FOLDER:LAST" goes on from the last checkpoint in the folder,
if there is one, to step LAST. "move:FOLDER:LAST" does so too, but writes what it
restored, and all that follows, to FOLDER-moved. "die:FOLDER:LAST:PROCESS" trains on and
on, but this process dies after LAST steps, as by `kill -9`, as it writes a checkpoint.
"""

import itertools
import os
import signal
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mtl_optax as mtl

DEVICES = 4  # of all processes together
ROWS, SAVE_EVERY = 16, 20
HEARTBEAT = 20  # seconds without a sign of life, after which a process counts as dead
TASKS = ("a", "b", "c")


def transformation():
    """Made after `jax.distributed.initialize`, since a key is an array."""
    return optax.chain(mtl.pcgrad(len(TASKS), key=0), optax.adam(1e-2))


def start(process, processes, address):
    jax.config.update("jax_num_cpu_devices", DEVICES // processes)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address, processes, process, heartbeat_timeout_seconds=HEARTBEAT
    )


def mesh_of(devices):
    return jax.make_mesh(
        (len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,)
    )


def fresh(mesh):
    """Parameters, one of them cut over all devices, and their state."""
    rng = np.random.default_rng(0)
    params = {"trunk": rng.standard_normal((8, 4)) / 3}
    params |= {task: rng.standard_normal(4) / 2 for task in TASKS}
    places = {name: NamedSharding(mesh, P()) for name in params}
    places["trunk"] = NamedSharding(mesh, P("data"))
    params = jax.tree.map(lambda p: p.astype(np.float32), params)
    params = jax.device_put(params, places)
    return params, mtl.init_like(transformation(), params)


def batch(step, mesh):
    """This process's part of the rows of a step; the last rows have no label of c."""
    rng = np.random.default_rng(step)
    x = rng.standard_normal((ROWS, 8)).astype(np.float32)
    y = {task: np.sin(x[:, t]) for t, task in enumerate(TASKS)}
    share = np.linspace(1.0, 0.0, ROWS)  # of labels that are known
    known = {task: rng.uniform(size=ROWS) < share**t for t, task in enumerate(TASKS)}
    own = len([d for d in mesh.devices.flat if d.process_index == jax.process_index()])
    size = ROWS * own // mesh.size
    rows = slice(jax.process_index() * size, (jax.process_index() + 1) * size)
    by_rows = NamedSharding(mesh, P("data"))
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(by_rows, a[rows]),
        (x, y, known),
    )


def losses_fn(params, x, y, known):
    h = jnp.tanh(x @ params["trunk"])
    return {
        task: mtl.masked_mean((h @ params[task] - y[task]) ** 2, known[task])
        for task in TASKS
    }


@jax.jit
def step(params, state, x, y, known):
    losses, grads = mtl.lazy_task_grads(losses_fn)(params, x, y, known)
    updates, state = transformation().update(grads, state, params)
    return optax.apply_updates(params, updates), state, losses


def checkpoints(folder):
    return ocp.CheckpointManager(Path(folder).absolute())


def save(manager, number, params, state):
    """Begun when this returns; the one before is on disk then."""
    saved = ocp.args.StandardSave({"params": params, "state": state})
    manager.save(number, args=saved)


def restored(manager, number, mesh):
    """On the devices of this mesh, whichever wrote it."""
    params, state = fresh(mesh)
    like = ocp.args.StandardRestore({"params": params, "state": state})
    found = manager.restore(number, args=like)
    return found["params"], found["state"]


def train(params, state, numbers, mesh, after=lambda *found: None):
    """The losses of each step; `after` sees its number and what came of it."""
    history = {}
    for number in numbers:
        params, state, losses = step(params, state, *batch(number, mesh))
        history[number] = jax.device_get(losses)
        after(number, params, state, history[number])
    return history


def perform(line, mesh):
    name, folder, last, *victim = line.split(":")

    def after(number, params, state, losses):
        print("step", number, *map(float.hex, losses.tolist()), flush=True)
        if (number + 1) % SAVE_EVERY == 0:
            save(manager, number + 1, params, state)
        if number + 1 == int(last) and victim == [str(jax.process_index())]:
            os.kill(os.getpid(), signal.SIGKILL)

    with checkpoints(folder) as manager:
        first = manager.latest_step() or 0
        params, state = restored(manager, first, mesh) if first else fresh(mesh)
    print(line, "from", first, flush=True)
    numbers = itertools.count(first) if name == "die" else range(first, int(last))
    with checkpoints(folder + "-moved" * (name == "move")) as manager:
        if name == "move":
            save(manager, first, params, state)
        train(params, state, numbers, mesh, after)


def main():
    process, processes, address, *lines = sys.argv[1:]
    # Whoever started this holds the other end, and is gone when it closes.
    watch = threading.Thread(target=lambda: os._exit(len(sys.stdin.read()) + 3))
    watch.daemon = True
    watch.start()
    start(int(process), int(processes), address)
    for line in lines:
        perform(line, mesh_of(jax.devices()))
    print("done", flush=True)


if __name__ == "__main__":
    main()
