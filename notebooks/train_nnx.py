"""Two tasks on the digits of scikit-learn, with Flax NNX: python train_nnx.py"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mtl_optax as mtl
from mtl_optax.flax_support import nnx_update


class Model(nnx.Module):
    def __init__(self, rngs):
        self.trunk = nnx.Linear(64, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.digit, self.parity = (nnx.Linear(64, n, rngs=rngs) for n in (10, 2))

    def __call__(self, x):
        h = self.dropout(nnx.relu(self.norm(self.trunk(x))))
        return {"digit": self.digit(h), "parity": self.parity(h)}


def shared(params):  # True on the leaves that both tasks use
    return jax.tree.map_with_path(lambda k, _: k[0].key in ("trunk", "norm"), params)


@nnx.jit
def train_step(model, optimizer, x, y):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses_fn(params):
        copy = nnx.merge(graphdef, params, rest, copy=True)  # leaves `model` alone
        out, ce = copy(x), optax.softmax_cross_entropy_with_integer_labels
        losses = {"digit": ce(out["digit"], y), "parity": 10 * ce(out["parity"], y % 2)}
        return jax.tree.map(jnp.mean, losses), nnx.state(copy, nnx.Not(nnx.Param))

    (_, new_rest), grads = mtl.lazy_task_grads(losses_fn, has_aux=True)(params)
    nnx.update(model, new_rest)  # batch statistics and dropout's counter
    nnx_update(optimizer, model, grads)


x, x_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
model, method = Model(nnx.Rngs(0)), mtl.on_shared(mtl.cagrad(num_tasks=2), shared)
optimizer = nnx.Optimizer(model, optax.chain(method, optax.adam(2e-3)), wrt=nnx.Param)
steps, rng = int(os.environ.get("MTL_OPTAX_STEPS", 300)), np.random.default_rng(0)
for batch in rng.integers(len(x), size=(steps, 128)):
    train_step(model, optimizer, x[batch] / 16, y[batch])
model.eval()
for task, out in model(jnp.asarray(x_test / 16)).items():
    right = out.argmax(-1) == (y_test if task == "digit" else y_test % 2)
    print(f"{task} accuracy {right.mean():.3f}")
print("task weights", mtl.task_weights(optimizer.opt_state))
print("cosine", mtl.task_cosines(optimizer.opt_state)[0, 1])
