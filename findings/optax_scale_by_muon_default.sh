#!/usr/bin/env bash
# optax.contrib.scale_by_muon() without arguments takes no tree of parameters.
#
# Package: optax 0.2.8 (jax 0.10.2).
# Expected: a tree of matrices goes through, for its docstring says of
#   weight_dimension_numbers that "None implies that all parameters are 2D matrices".
# Seen: one array goes through; a dict of one raises "pytree structure error: different
#   types at key path", for None is taken for a tree like the parameters. optax.contrib.muon
#   is not affected, and weight_dimension_numbers=lambda tree: jax.tree.map(lambda _:
#   optax.contrib.MuonDimensionNumbers(), tree) helps.
# What it did here: mtl_optax.check_chain tells that scale_by_muon raises behind a method
#   too, and that this is not about tasks (docs/optax_table.md).
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


def updates(tx, params):
    return tx.update(params, tx.init(params), params)[0]


def numbers(tree):
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), tree)


default, matrix = optax.contrib.scale_by_muon(), jnp.eye(3, 4)
told = optax.contrib.scale_by_muon(weight_dimension_numbers=numbers)
print("optax", optax.__version__, "one array:", updates(default, matrix).shape)
print("a dict, told that it is of matrices:", updates(told, {"w": matrix})["w"].shape)
try:
    updates(default, {"w": matrix})
except ValueError as error:
    print("a dict:", str(error).splitlines()[0])
else:
    raise AssertionError("changed: a dict of matrices goes through")
EOF
