#!/usr/bin/env bash
# XLA on CPUs: one-hot cross entropies of many vmapped models come out wrong, in silence.
#
# Package: jaxlib 0.10.2 (jax 0.10.2), CPU, the newest for Python 3.11. jaxlib 0.12.0.1 is right.
# Expected: jit(vmap(f)) of 40 linear models on 1,000 examples gives for each model what
#   jit(f) gives it alone, where f is the mean, over the examples whose label is known, of
#   optax.softmax_cross_entropy(x @ w, one_hot(labels)).
# Seen: from 32,000 lanes times examples on, the losses of the last lanes are wrong by tens
#   of per cent (40 lanes of 1,000: lanes 32 to 39; 100 of 500: from lane 65). The losses of
#   single examples are wrong where they are written out. Integer labels, or a mean without
#   a mask, which XLA joins with the sum over classes, are right, and so are gradients.
# What it did here: evaluation of several seeds at once with missing labels was wrong.
#   Mended in mtl_optax.masked_mean: a plain sum beside the masked one, which may not be
#   taken out, changes what XLA joins; held by tests at 40 lanes of 1,000 examples.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 optax==0.2.8 numpy==2.4.1
"$work/env/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
import optax

LANES, EXAMPLES, CLASSES = 40, 1000, 3
draw = np.random.default_rng(0)
w = jnp.asarray(draw.standard_normal((LANES, 20, CLASSES)), jnp.float32)
x = jnp.asarray(draw.standard_normal((EXAMPLES, 20)), jnp.float32)
labels = jnp.asarray(draw.integers(0, CLASSES, EXAMPLES))
known = jnp.asarray(draw.random(EXAMPLES) < 0.3)


def one_hot(w):
    return optax.softmax_cross_entropy(x @ w, jax.nn.one_hot(labels, CLASSES))


def integer(w):
    return optax.softmax_cross_entropy_with_integer_labels(x @ w, labels)


def of_known(each):
    return lambda w: jnp.sum(jnp.where(known, each(w), 0)) / jnp.sum(known)


def worst(f):
    alone = jax.jit(f)
    wanted = np.array([alone(lane) for lane in w])
    return float(np.max(np.abs(jax.jit(jax.vmap(f))(w) / wanted - 1)))


masked, plain = worst(of_known(one_hot)), worst(lambda w: jnp.mean(one_hot(w)))
by_label, slopes = worst(of_known(integer)), jax.grad(of_known(one_hot))
alone = np.stack([jax.jit(slopes)(lane) for lane in w])
gradient = float(np.max(np.abs(jax.jit(jax.vmap(slopes))(w) - alone)))
print("jax", jax.__version__, "on", jax.default_backend())
print(f"relative error: one-hot, masked {masked:.1e}; one-hot, all {plain:.1e};")
print(f"integer labels, masked {by_label:.1e}; of the gradients {gradient:.1e}")
assert max(plain, by_label, gradient) < 1e-4
assert masked > 0.01, "changed: masked one-hot losses are right"
PY
