#!/usr/bin/env bash
# JAX and optax: under jit, the state of an optimiser of sharded parameters is not sharded.
#
# Package: jax 0.10.2, optax 0.2.8, CPU with four devices.
# Expected: jax.jit(optax.adam(1e-3).init)(params) gives moments sharded as the parameters,
#   as without jit, and as under jit on a mesh of Explicit axes.
# Seen: on a mesh of Auto axes whole moments are on one device, or with jax.set_mesh on
#   each: zeros do not depend on the parameters, so nothing tells the compiler where they
#   belong. In two processes each has a state of its own then, which orbax refuses to save
#   ("host local jax.Array").
# What it did here: `mtl.init_like` places the state with its parameters.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.1 optax==0.2.8
"$work/env/bin/python" - <<'EOF'
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

jax.config.update("jax_num_cpu_devices", 4)
init = optax.adam(1e-3).init


def held(state):  # elements of the first moment on each device that has any
    moment = optax.tree.get(state, "mu")
    return [shard.data.size for shard in moment.addressable_shards]


def look(axis_type):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    params = jax.device_put(jnp.ones(8), NamedSharding(mesh, PartitionSpec("data")))
    eager, jitted = held(init(params)), None
    if axis_type == AxisType.Auto:
        jitted = held(jax.jit(init)(params))
    with jax.set_mesh(mesh):
        found = eager, jitted, held(jax.jit(init)(params))
    print(axis_type, "eager, jitted, jitted in jax.set_mesh:", *found)
    return found


print("jax", jax.__version__, "optax", optax.__version__)
assert look(AxisType.Explicit) == ([2] * 4, None, [2] * 4)
changed = "changed: the jitted state is placed otherwise"
assert look(AxisType.Auto) == ([2] * 4, [8], [8] * 4), changed
EOF
