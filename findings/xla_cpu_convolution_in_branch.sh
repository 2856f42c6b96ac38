#!/usr/bin/env bash
# XLA on CPUs: a convolution's gradient inside a branch or a loop takes tens of times as
# long as the same gradient outside.
#
# Package: jaxlib 0.10.2 (jax 0.10.2), CPU.
# Expected: a kernel's gradient costs about the same under jax.lax.cond, jax.lax.switch or
#   jax.lax.fori_loop as it does in the program itself; that of a dense layer does.
# Seen: for a 3x3 kernel with 64 channels, 16 images of 16x16, the gradient takes 50 times
#   as much CPU time in a branch or a loop; the matrix product's takes the same.
# What it did here: mtl.stale pulls one task back in a branch. In networks that convolve
#   there it pulls all back outside instead on a CPU (core/task_grads/traced_task.py).
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.1
"$work/env/bin/python" - <<'EOF'
import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

images = jax.random.normal(jax.random.key(0), (16, 16, 16, 64))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 64, 64)) / 20
rows = jax.random.normal(jax.random.key(2), (1024, 512))
weight = jax.random.normal(jax.random.key(3), (512, 512)) / 20


def convolved(w):
    layout = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(images, w, (1, 1), "SAME", dimension_numbers=layout)
    return jnp.sum(jnp.tanh(y))


def multiplied(w):
    return jnp.sum(jnp.tanh(rows @ w))


def ratio(loss, w):
    """CPU time in a branch over that outside, of interleaved runs."""
    plain = jax.jit(jax.grad(loss))
    branch = jax.jit(lambda yes, w: lax.cond(yes, jax.grad(loss), jnp.zeros_like, w))
    calls = (lambda: plain(w)), (lambda: branch(jnp.array(True), w))
    for call in calls:
        jax.block_until_ready(call())
    times = [[], []]
    for _ in range(9):
        for call, seen in zip(calls, times):
            start = time.process_time()
            jax.block_until_ready(call())
            seen.append(time.process_time() - start)
    return statistics.median(times[1]) / statistics.median(times[0])


found = ratio(convolved, kernel), ratio(multiplied, weight)
print("jax", jax.__version__, "in a branch over outside: convolution %.1f, product %.1f" % found)
assert found[1] < 3
assert found[0] > 10, "changed: a convolution's gradient is no longer slow in a branch"
EOF
