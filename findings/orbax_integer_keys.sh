#!/usr/bin/env bash
# Orbax: integer keys of a dict come back as strings if there is no target.
#
# Package: orbax-checkpoint 0.12.8 (jax 0.10.2).
# Expected: StandardCheckpointer.restore(path) gives the tree that was saved.
# Seen: {"experts": {0: ..., 1: ...}} comes back as {"experts": {"0": ..., "1": ...}},
#   without a warning; restore(path, target) gives integers. Flax's bridge makes such dicts
#   of lists (nnx.bridge.to_linen on a module with an nnx.List), and its `apply` then fails
#   with KeyError 0.
# What it did here: networks with lists (experts, stages) in Linen, restored without a
#   target, do not run. docs/recipes.md restores into a target and says why.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.1 orbax-checkpoint==0.12.8
"$work/env/bin/python" - "$work/checkpoint" <<'EOF'
import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

saved = {"experts": {0: jnp.zeros(2), 1: jnp.ones(2)}}
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(sys.argv[1], saved)
    checkpointer.wait_until_finished()
    into_target = checkpointer.restore(sys.argv[1], saved)
    plain = checkpointer.restore(sys.argv[1])
print("orbax-checkpoint", version("orbax-checkpoint"), "jax", jax.__version__)
print("saved", list(saved["experts"]), "restored into a target", list(into_target["experts"]))
print("restored without", list(plain["experts"]))
assert set(into_target["experts"]) == {0, 1}
assert set(plain["experts"]) == {"0", "1"}, "changed: integer keys stay integers"
EOF
