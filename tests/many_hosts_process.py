"""One of the processes that train together, each with its own part of every batch.

It joins, saves and goes on by the program in docs/many_hosts.md. Arguments: what to do,
one after the other, each as NAME:FOLDER:STEPS. "train" goes on in the folder until
there are so many steps. "move" writes what it restored, and all that follows, to
FOLDER-moved. "die:FOLDER:STEPS:PROCESS" goes on and on, but this process dies after so
many steps, as by `kill -9`, while a checkpoint is written.
"""

import os
import re
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
ROWS, FOREVER = 16, 10**6
TASKS = ("a", "b", "c")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "many_hosts.md"
CODE = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)[1]
program = {}
exec(compile(CODE, PAGE, "exec"), program)
program.update(SECONDS=20, SAVE_EVERY=20)


def transformation():
    """Made after `jax.distributed.initialize`, since a key is an array."""
    return optax.chain(mtl.pcgrad(len(TASKS), key=0), optax.adam(1e-2))


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


def restored(folder, mesh):
    """The last checkpoint there, on the devices of this mesh, whichever wrote it."""
    with ocp.CheckpointManager(folder) as manager:
        return program["last"](manager, *fresh(mesh))


def train(mesh, folder, steps, params, state, before=lambda number: None):
    """As the page does, in this folder; and the losses of each step."""
    history = {}

    def rows(number):
        before(number)
        history[number] = None
        return batch(number, mesh)

    def one(*args):
        *new, losses = step(*args)
        number = max(history)
        history[number] = jax.device_get(losses)
        print("step", number, *map(float.hex, history[number].tolist()), flush=True)
        return *new, losses

    return program["train"](folder, steps, one, rows, params, state), history


def perform(line, mesh):
    name, folder, steps, *victim = line.split(":")
    folder, last = Path(folder).absolute(), int(steps)

    def before(number):
        if number == last and victim == [str(jax.process_index())]:
            os.kill(os.getpid(), signal.SIGKILL)

    number, params, state = restored(folder, mesh)
    print(line, "from", number, flush=True)
    if name == "move":
        folder = folder.with_name(f"{folder.name}-moved")
        with ocp.CheckpointManager(folder) as manager:
            saved = ocp.args.StandardSave({"params": params, "state": state})
            manager.save(number, args=saved)
    train(mesh, folder, FOREVER if victim else last, params, state, before)


def main():
    # Whoever started this holds the other end, and is gone when it closes.
    watch = threading.Thread(target=lambda: os._exit(len(sys.stdin.read()) + 3))
    watch.daemon = True
    watch.start()
    program["join"]()
    for line in sys.argv[1:]:
        perform(line, mesh_of(jax.devices()))
    print("done", flush=True)


if __name__ == "__main__":
    main()
