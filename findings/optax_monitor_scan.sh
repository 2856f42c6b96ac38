#!/usr/bin/env bash
# optax.monitor: its state changes structure in the first update.
#
# Package: optax 0.2.8 (jax 0.10.2).
# Expected: a chain with optax.monitor, as in its docstring, runs under jax.lax.scan, and
#   a jitted step is compiled once, as with other transformations.
# Seen: init gives an empty dict of measurements, update one with an entry a measure:
#   lax.scan raises a TypeError about the carry, lax.cond likewise, and a jitted step is
#   traced twice. A state saved before the first step cannot be restored into a later one.
# What it did here: mtl_optax.check_chain says that the state changes its structure,
#   whatever place monitor has in a chain (docs/optax_table.md). mtl_optax.metrics needs
#   no transformation in the chain.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
"$work/env/bin/python" - <<'EOF'
import jax
import jax.numpy as jnp
import optax

params = {"w": jnp.ones(3)}
tx = optax.chain(optax.monitor({"norm": optax.tree.norm}), optax.sgd(0.1))
state = tx.init(params)
traces = []


def step(state, _):
    traces.append(1)
    _, state = tx.update(params, state, params)
    return state, None


jitted = jax.jit(step)
after = jitted(jitted(state, None)[0], None)[0]
print("optax", optax.__version__, "measurements:", state[0].measurements, "then",
      after[0].measurements, "traces:", len(traces))
assert len(traces) == 2, "changed: a jitted step is traced once"
try:
    jax.lax.scan(step, state, None, length=2)
except TypeError as error:
    print("lax.scan:", str(error).splitlines()[0])
else:
    raise AssertionError("changed: optax.monitor runs under lax.scan")
EOF
