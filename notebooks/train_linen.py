"""Two tasks on the digits of scikit-learn, with Flax Linen: python train_linen.py"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mtl_optax as mtl
from mtl_optax.flax_support import MultiTaskTrainState

HEADS = {"digit": 10, "parity": 2}


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        h = nn.Dropout(0.2, deterministic=not train)(nn.relu(norm(nn.Dense(64)(x))))
        return {key: nn.Dense(n, name=key)(h) for key, n in HEADS.items()}


class State(MultiTaskTrainState):
    batch_stats: dict


@jax.jit
def train_step(state, x, y):
    def losses_fn(params):
        key = jax.random.fold_in(jax.random.key(1), state.step)  # a new dropout mask
        variables = {"params": params, "batch_stats": state.batch_stats}
        kwargs = {"mutable": ["batch_stats"], "rngs": {"dropout": key}}
        out, new = state.apply_fn(variables, x, train=True, **kwargs)
        ce = optax.softmax_cross_entropy_with_integer_labels
        losses = {"digit": ce(out["digit"], y), "parity": 10 * ce(out["parity"], y % 2)}
        return jax.tree.map(jnp.mean, losses), new

    (_, new), grads = mtl.lazy_task_grads(losses_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads).replace(**new)


x, x_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
variables = Model().init(jax.random.key(0), x[:1], train=False)
shared = {key: key not in HEADS for key in variables["params"]}
tx = optax.chain(mtl.on_shared(mtl.cagrad(num_tasks=2), shared), optax.adam(2e-3))
state = State.create(apply_fn=Model().apply, tx=tx, **variables)
steps, rng = int(os.environ.get("MTL_OPTAX_STEPS", 300)), np.random.default_rng(0)
for batch in rng.integers(len(x), size=(steps, 128)):
    state = train_step(state, x[batch] / 16, y[batch])
variables = {"params": state.params, "batch_stats": state.batch_stats}
for task, out in Model().apply(variables, x_test / 16, train=False).items():
    right = out.argmax(-1) == (y_test if task == "digit" else y_test % 2)
    print(f"{task} accuracy {right.mean():.3f}")
print("task weights", mtl.task_weights(state.opt_state))
print("cosine", mtl.task_cosines(state.opt_state)[0, 1])
