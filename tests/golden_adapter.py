"""How each reference method is called here, and which of its arrays are compared.

One entry of `ADAPTERS` a method of golden/cases.json: a function from a case's
arguments and arrays to the list of `Call`s that it takes. golden/README.md says what
the arrays mean and where they come from.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import flat, params_of, tree_of

import mtl_optax as mtl

ROOT = pathlib.Path(__file__).parent / "golden"


class Call(NamedTuple):
    """One update, and the arrays it must reproduce."""

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    direction: np.ndarray | None = None  # name in tol is `tolerance`
    tolerance: str = "direction"
    weights: np.ndarray | None = None
    weights_tolerance: str = "weights"
    static: tuple[tuple[str, Any], ...] = ()  # keywords that select code
    numeric: Mapping[str, Any] = {}  # keywords that are traced
    extras: Mapping[str, Any] = {}  # extra arguments [T ...] or [P]


@functools.cache
def _index():
    return json.loads((ROOT / "cases.json").read_text("utf-8"))


def methods():
    """Number of stored cases by method."""
    return {name: entry["n_cases"] for name, entry in _index()["methods"].items()}


def cases(method):
    """The stored cases of a method, each with its arrays."""
    with np.load(ROOT / f"{method}.npz", allow_pickle=False) as arrays:
        return [
            (case, {name: arrays[f"{case['id']}/{name}"] for name in case["arrays"]})
            for case in _index()["cases"]
            if case["method"] == method
        ]


@functools.cache
def _step(factory, num_tasks, static):
    """Compiled once for each method, task count and choice of code."""

    def step(gradients, numeric, extras):
        tx = factory(num_tasks, **dict(static), **numeric)
        params = params_of(gradients)
        return tx.update(gradients, tx.init(params), params, **extras)

    return jax.jit(step)


def run(call, matrix, width, dtype):
    """Direction [P], and weights [T] or None, of one call through `tx.update`."""
    gradients = tree_of(matrix, dtype, width)
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    extras = dict(call.extras)
    if "uniforms" in extras:
        extras["uniforms"] = tree_of(extras["uniforms"], dtype, width)
    if "losses" in extras:
        extras["losses"] = cast(extras["losses"])
    step = _step(call.factory, matrix.shape[0], call.static)
    update, state = step(gradients, cast(dict(call.numeric)), extras)
    weights = state.task_weights if hasattr(state, "task_weights") else None
    return flat(update, matrix.shape[1]), weights


def _linear(args, a):
    return [
        Call(mtl.mean, a["mean"], "mean"),
        Call(mtl.unitary, a["sum"], "sum"),
        Call(
            mtl.constant,
            a["constant"],
            "constant",
            numeric={"weights": a["constant_weights"]},
        ),
    ]


def _mgda(args, a):
    if args["normalization"] == "none":
        return [Call(mtl.mgda, a["direction"], weights=a.get("weights"))]
    return [
        Call(
            mtl.mgda,
            a[f"direction_{apply_to}"],
            f"direction_{apply_to}",
            # Ours are the weights on the raw rows; stored are those of the solver.
            weights=a.get("weights") if apply_to == "raw" else None,
            static=(
                ("apply_to", apply_to),
                ("normalization", args["normalization"]),
            ),
            extras={"losses": a["losses"]},
        )
        for apply_to in ("raw", "normalized")
        if f"direction_{apply_to}" in a
    ]


def _cagrad(args, a):
    return [
        Call(
            mtl.cagrad,
            a.get(f"direction_rescale{rescale}"),
            f"direction_rescale{rescale}",
            weights=a.get("weights_rescale0") if rescale == 0 else None,
            weights_tolerance="weights_rescale0",
            numeric={"c": args["c"], "rescale": rescale},
        )
        for rescale in args["rescale"]
    ]


def _pcgrad(args, a):
    return [
        Call(
            mtl.pcgrad,
            a["direction"][k],
            weights=a["weights"][k],
            static=(("key", 0), ("reduction", args["reduction"])),
            extras={"order": order},
        )
        for k, order in enumerate(a["orders"])
    ]


def _imtl_g(args, a):
    return [Call(mtl.imtl_g, a["direction"], weights=a.get("weights"))]


def _nash_mtl(args, a):
    # An infinite max_norm clips nothing, and shares the compilation with 1.
    if "direction" not in a:
        return [Call(mtl.nash_mtl, numeric={"max_norm": np.inf})]
    return [
        Call(
            mtl.nash_mtl,
            a["direction"],
            weights=a["weights"],
            numeric={"max_norm": np.inf},
        ),
        Call(
            mtl.nash_mtl,
            a["direction_maxnorm1"],
            "direction_maxnorm1",
            numeric={"max_norm": 1.0},
        ),
    ]


def _upgrad(args, a):
    numeric = {"preference": a["pref"]}
    exact = Call(
        mtl.upgrad,
        a["direction"],
        weights=a.get("weights"),
        numeric={**numeric, "reg_eps": 0.0},
    )
    if "direction_torchjd_reg" not in a:
        return [exact]
    name = "direction_torchjd_reg"
    regular = Call(mtl.upgrad, a[name], name, numeric={**numeric, "reg_eps": 1e-4})
    return [exact, regular]


def _aligned_mtl(args, a):
    return [
        Call(
            mtl.aligned_mtl,
            a["direction"],
            weights=a.get("weights"),
            static=(("scale_mode", args["scale_mode"]),),
            numeric={"preference": a["pref"]},
        )
    ]


def _graddrop(args, a):
    return [
        Call(
            mtl.graddrop,
            a["direction"][k],
            static=(("key", 0),),
            numeric={"leak": a["leak"]},
            extras={"uniforms": uniform},
        )
        for k, uniform in enumerate(a["uniform"])
    ]


OPTIMIZERS = {"sgd": optax.sgd, "adam": optax.adam}


@functools.cache
def _trajectory(factory, num_tasks, optimizer):
    def weights_over_steps(losses, learning_rate, init):
        inner = OPTIMIZERS[optimizer](learning_rate)
        tx = factory(num_tasks, optimizer=inner, init=init)
        params = {"w": jnp.zeros(1, losses.dtype)}
        gradients = {"w": jnp.ones((num_tasks, 1), losses.dtype)}

        def step(state, losses):
            _, state = tx.update(gradients, state, params, losses=losses)
            return state, mtl.task_weights(state)

        return jax.lax.scan(step, tx.init(params), losses)[1]

    return jax.jit(weights_over_steps)


def learned_weights(factory, args, losses, dtype):
    """Weights [S, T] used at each step by a method that learns a scalar a task."""
    run = _trajectory(factory, losses.shape[1], args["optimizer"])
    return run(jnp.asarray(losses, dtype), args["learning_rate"], args["init"])


class Adapter(NamedTuple):
    """Some or all cases of a reference method."""

    method: str
    calls: Callable[[Any, Any], list[Call]]
    where: Mapping[str, tuple[Any, ...]] = {}  # arguments of the cases meant
    slow: bool = False

    def cases(self):
        """The cases meant, each with its arrays."""
        return [
            (case, arrays)
            for case, arrays in cases(self.method)
            if all(case["args"][name] in known for name, known in self.where.items())
        ]


# Methods of one update from one matrix J.
ADAPTERS = {
    "linear": Adapter("linear", _linear),
    "mgda": Adapter("mgda", _mgda, {"normalization": ("none",)}),
    "mgda_normalized": Adapter(
        "mgda", _mgda, {"normalization": ("l2", "loss", "loss+")}, slow=True
    ),
    "cagrad": Adapter("cagrad", _cagrad, slow=True),
    "pcgrad": Adapter("pcgrad", _pcgrad),
    "imtl_g": Adapter("imtl_g", _imtl_g),
    "nash_mtl": Adapter("nash_mtl", _nash_mtl, slow=True),
    "upgrad": Adapter("upgrad", _upgrad, slow=True),
    "aligned_mtl": Adapter("aligned_mtl", _aligned_mtl, slow=True),
    "graddrop": Adapter("graddrop", _graddrop),
}
# Methods whose weights follow a sequence of losses.
LEARNED = {"uw": mtl.uw}
NOT_YET = {
    "config",
    "cr_mogm",
    "db_mtl",
    "dualproj",
    "dwa",
    "excess_mtl",
    "fairgrad",
    "famo",
    "gls",
    "gradnorm",
    "gradvac",
    "imtl_l",
    "krum",
    "moco",
    "modo",
    "pcd",
    "rlw",
    "sdmgrad",
    "stch",
    "trimmed_mean",
}
