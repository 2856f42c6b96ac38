#!/usr/bin/env bash
# JAX and optax: under jit, the state of an optimiser of sharded parameters is on one device.
#
# Package: jax 0.10.2, optax 0.2.8, CPU with four devices.
# Expected: jax.jit(optax.adam(1e-3).init)(params) gives moments sharded as the parameters,
#   as without jit, and as under jit on a mesh of Explicit axes.
# Seen: on a mesh of Auto axes all moments are on a single device: zeros do not depend on
#   the parameters, so nothing tells the compiler where they belong. In two processes each
#   has a state of its own then, which orbax refuses to save ("host local jax.Array").
# What it did here: nothing to mend; docs/recipes.md gives `out_shardings` to the jitted
#   `tx.init` or calls it without jit.
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
print("jax", jax.__version__, "optax", optax.__version__)
for axis_type in (AxisType.Explicit, AxisType.Auto):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    params = jax.device_put(jnp.ones(8), NamedSharding(mesh, PartitionSpec("data")))
    with jax.set_mesh(mesh):
        states = {"eager": init(params), "jitted": jax.jit(init)(params)}
    devices = {
        name: len(optax.tree.get(state, "mu").sharding.device_set)
        for name, state in states.items()
    }
    print(axis_type, "devices that hold the first moment:", devices)
    assert devices["eager"] == 4
    jitted = 4 if axis_type == AxisType.Explicit else 1
    assert devices["jitted"] == jitted, "changed: the jitted state is placed otherwise"
EOF
