#!/usr/bin/env bash
# XLA on CPUs: under jit (c / x)^2 of a constant c is taken as c^2 / x^2.
#
# Package: jaxlib 0.10.2 (jax 0.10.2), CPU.
# Expected: the norm of a row c = (3e25, 4e25), computed as it should be, with c divided by
#   its largest entry before it is squared, is 5e25, as it is eagerly, and jitted where c
#   is an argument.
# Seen: where c is a constant of the jitted program, the squares are moved inwards: c^2
#   overflows and 1 / max(c)^2 underflows, so that the norm is NaN; likewise of (3e-25,
#   4e-25), where c^2 is 0 and the other infinite.
# What it did here: mtl.safe_normalize, and the norms of flat_mtl, were wrong for constant
#   gradients of such sizes. Mended by a clip to [-1, 1] after the division, which changes
#   no number, core/stacked.py, and held by a test.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.1
"$work/env/bin/python" - <<'EOF'
import jax
import jax.numpy as jnp
import numpy as np


def norm(c):
    largest = jnp.max(jnp.abs(c), axis=1)
    return largest * jnp.sqrt(jnp.sum((c / largest[:, None]) ** 2, axis=1))


print("jax", jax.__version__, "on", jax.default_backend())
wrong = 0
for size in (1e25, 1e-25):
    c = np.float32(size) * np.array([[3, 4]], np.float32)
    argument, constant = jax.jit(norm)(c), jax.jit(lambda: norm(jnp.asarray(c)))()
    print("eagerly", norm(c), "jitted, an argument", argument, "a constant", constant)
    assert np.isclose(argument, 5 * size, rtol=1e-5)
    wrong += not np.isclose(constant, 5 * size, rtol=1e-5)
assert wrong, "changed: constants are divided before they are squared"
EOF
