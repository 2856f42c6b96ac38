"""Two logic gates on one hidden layer: the task tensioner's demonstration.

XOR, with targets of 0 and 10, and AND, with 0 and 1, share two sigmoid units; each has
a linear head. After the authors' training script: heads follow their own gradients,
the method acts on the shared layer, SGD with momentum, two batches of two rows in an
epoch. Their settings name a factor for the learning rate that the script does not use.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from mtl_optax.study.data.classification import by_name
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.problem import Metric, Problem, epoch_indices, stateless
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Judgement, MethodResult, Part
from mtl_optax.study.report.figures.losses import losses as losses_figure

TASKS = ("and", "xor")
X = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
Y = {"and": (0.0, 0.0, 0.0, 1.0), "xor": (0.0, 10.0, 10.0, 0.0)}
EPOCHS, ERROR = 2500, 1e-3  # at most; below which a gate counts as learned
BATCHES = 2  # of two rows, an epoch

RULE = (
    f"A gate is learned in the first epoch in which the losses of its {BATCHES} "
    f"batches, summed and divided by 8 as the authors do, are below {ERROR:g}: a mean "
    f"squared error of {4 * ERROR:g}. A run succeeds if both gates are learned in "
    f"{EPOCHS} epochs."
)


def init(seed: int) -> Any:
    """Layers of two inputs, uniform in 1/sqrt(2), as PyTorch draws them."""

    def layer(key: jax.Array, outputs: int) -> dict[str, jax.Array]:
        bound, (weights, bias) = 2**-0.5, jax.random.split(key)
        return {
            "kernel": jax.random.uniform(weights, (2, outputs), float, -bound, bound),
            "bias": jax.random.uniform(bias, (outputs,), float, -bound, bound),
        }

    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = {"hidden": 2, "and": 1, "xor": 1}
    return {name: layer(k, n) for k, (name, n) in zip(keys, sizes.items(), strict=True)}


def losses(params: Any, rows: jax.Array) -> tuple[jax.Array, ...]:
    """Mean squared error of each gate on some of the four rows."""

    def through(layer: Any, x: jax.Array) -> jax.Array:
        product = jnp.matmul(x, layer["kernel"], precision=lax.Precision.HIGHEST)
        return product + layer["bias"][None, :]

    hidden = jax.nn.sigmoid(through(params["hidden"], jnp.asarray(X)[rows]))
    outputs = {name: through(params[name], hidden)[:, 0] for name in TASKS}
    return tuple(
        jnp.mean((outputs[name] - jnp.asarray(Y[name])[rows]) ** 2) for name in TASKS
    )


def problem() -> Problem:
    """For the engine; an example is the number of its row."""
    rows = np.arange(len(X))
    return stateless(
        name="Logic gates",
        tasks=TASKS,
        splits={"train": rows, "all rows": rows},
        init=init,
        losses=losses,
        metrics=(Metric("loss", "", higher_is_better=False),),
        loss=(Metric("squared error", "", higher_is_better=False),),
        evaluate=lambda params, rows: {"loss": jnp.stack(losses(params, rows))},
        # The hidden layer is shared, each head belongs to its task.
        owner=partial(by_name, {f"['{task}']": t for t, task in enumerate(TASKS)}),
        chosen_on="all rows",
        reported_on="all rows",
        draw=epoch_indices,
        about="All methods share starts and batches.",
        credits="The problem is that of Nakamura, Grassi and Wolf's code, 2022.",
    )


def learned(result: MethodResult) -> NDArray[np.bool_]:
    """Which gates each run learned at any time, `[seeds, T]`."""
    losses = result.losses[:, 0]
    epochs = losses.reshape(-1, BATCHES, *losses.shape[1:]).sum(axis=1) / 8
    return (epochs < ERROR).any(axis=0)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """In how many runs each method learns both gates."""
    words, sentences = {}, {}
    for method, own in results.items():
        gates = learned(own)
        words[method] = f"both in {gates.all(axis=1).sum()} of {len(gates)}"
        each = ", ".join(
            f"{t} in {n}" for t, n in zip(tasks, gates.sum(0), strict=True)
        )
        sentences[method] = f"{method} learns {words[method]} runs ({each})."
    counts = "; ".join(f"{method} {word}" for method, word in words.items())
    return Judgement(words, sentences, f"Gates learned: {counts}.")


_SETTINGS = Settings(
    (BASELINE, "cdtt", "imtl_g"),
    seeds=20,
    steps=EPOCHS * BATCHES,
    learning_rates=(0.05,),
    optimizer="sgd",
    schedule="constant",
    batch_size=2,
)

PART = Part(
    name="gates",
    title="Two logic gates",
    question="AND with targets 0 and 1, XOR with 0 and 10, two hidden units for both: "
    "does the task tensioner learn both where the plain sum learns the large one only? "
    "(imtl_g beside them is, for two tasks, its central direction without tension.)",
    problem=problem,
    settings=_SETTINGS,
    quick=_SETTINGS._replace(seeds=3, steps=400, quick=True),
    figures=(losses_figure,),
    rules=(RULE,),
    judge=judge,
    has_single_task=False,
)
