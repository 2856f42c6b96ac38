"""Every public transformation of optax in every place of a chain, and what comes of it.

`python tests/optax_places.py` writes docs/optax_table.md anew.
"""

import inspect
import pathlib
import types
import warnings

import jax.numpy as jnp
import optax
from optax import contrib, transforms

import mtl_optax as mtl

try:
    from optax.experimental import aggregating
except ImportError:  # older than the table
    aggregating = types.ModuleType("aggregating")

VERSION = "0.2.8"  # of optax, of which the table is
T = 2
PARAMS = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
LABELS = {"w": "a", "b": "b"}
MASK = {"w": True, "b": False}
MODULES = {
    "optax": optax,
    "optax.contrib": contrib,
    "optax.transforms": transforms,
    "optax.experimental.aggregating": aggregating,
}
# Public names of transformations, or of classes used like one, that say it otherwise.
UNANNOTATED = {
    "MultiSteps",
    "dog",
    "dowg",
    "monitor",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_factored_rms",
    "hutchinson_estimator_diag_hessian",
}


def every(step, **extra):
    return step % 2 == 0


# What a factory needs to be called, but for a learning rate.
ARGUMENTS = {
    "accumulate_avg_updates": {"accumulation_steps": 2},
    "average_incrementally_updates": {"per_elt_axis": None, "accumulation_steps": 2},
    "add_decayed_weights": {"weight_decay": 0.1},
    "add_noise": {"eta": 0.1, "gamma": 0.5, "key": 0},
    "adaptive_grad_clip": {"clipping": 0.1},
    "apply_every": {"k": 2},
    "clip": {"max_delta": 1.0},
    "clip_by_block_rms": {"threshold": 1.0},
    "clip_by_global_norm": {"max_norm": 1.0},
    "differentially_private_aggregate": {
        "l2_norm_clip": 1.0,
        "noise_multiplier": 0.1,
        "key": 0,
    },
    "dpsgd": {
        "l2_norm_clip": 1.0,
        "noise_multiplier": 0.1,
        "seed": 0,
    },
    "ema": {"decay": 0.9},
    "freeze": {"mask": MASK},
    "galore": {"rank": 2},
    "scale_by_galore": {"rank": 2},
    "measure_with_ema": {"measure": optax.tree.norm, "decay": 0.9},
    "monitor": {"measures": {"norm": optax.tree.norm}},
    "noisy_sgd": {"key": 0},
    "polyak_sgd": {"max_learning_rate": 0.1},
    "scale": {"step_size": 0.5},
    "scale_by_backtracking_linesearch": {"max_backtracking_steps": 3},
    "scale_by_zoom_linesearch": {"max_linesearch_steps": 3},
    "scale_by_schedule": {"step_size_fn": lambda count: 0.5},
    "snapshot": {"measure_name": "norm", "measure": optax.tree.norm},
    "stateless": {"f": lambda updates, params: updates},
    "stateless_with_tree_map": {"f": lambda update, param: update},
    "trace": {"decay": 0.9},
}
# Those that hold another one.
WRAPPERS = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "chain": lambda tx: optax.chain(tx),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, every),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, every),
    "flatten": optax.flatten,
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda: tx)(),
    "inject_stateful_hyperparams": lambda tx: optax.inject_stateful_hyperparams(
        lambda: tx
    )(),
    "lookahead": lambda tx: optax.lookahead(tx, 2, 0.5),
    "masked": lambda tx: optax.masked(tx, MASK),
    "mechanize": contrib.mechanize,
    "multi_transform": lambda tx: optax.multi_transform({"a": tx, "b": tx}, LABELS),
    "named_chain": lambda tx: optax.named_chain(("one", tx)),
    "partition": lambda tx: optax.partition({"a": tx, "b": tx}, LABELS),
    "process": lambda tx: aggregating.process(
        *map(optax.with_extra_args_support, (optax.identity(), tx, optax.identity()))
    ),
    "sam": lambda tx: contrib.sam(tx, tx, opaque_mode=True),
    "schedule_free": lambda tx: contrib.schedule_free(tx, 0.1),
    "selective_transform": lambda tx: optax.selective_transform(tx, freeze_mask=MASK),
    "split_real_and_imaginary": contrib.split_real_and_imaginary,
    "with_extra_args_support": optax.with_extra_args_support,
}


def public():
    """Name of each public transformation, and where it is."""
    found = {}
    for place, module in MODULES.items():
        for name, value in vars(module).items():
            if name.startswith("_") or not callable(value) or name in found:
                continue
            told = inspect.isfunction(value) and "Transformation" in str(
                inspect.signature(value).return_annotation
            )
            if told or name in UNANNOTATED:
                found[name] = f"{place}.{name}"
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def make(name, held=None):
    """The transformation, around `held` if it is a wrapper."""
    if name in WRAPPERS:
        return WRAPPERS[name](optax.scale(0.5) if held is None else held)
    factory = next(vars(m)[name] for m in MODULES.values() if name in vars(m))
    arguments = ARGUMENTS.get(name, {})
    if "learning_rate" in inspect.signature(factory).parameters:
        arguments = {"learning_rate": 0.1, **arguments}
    return factory(**arguments)


METHOD = mtl.mean
# The optimiser behind it all, where one can follow.
PLACES = {
    "before": lambda name: optax.chain(make(name), METHOD(T), optax.sgd(0.1)),
    "behind": lambda name: optax.chain(METHOD(T), make(name)),
    "around": lambda name: make(name, METHOD(T)),
    "in `on_shared`": lambda name: optax.chain(
        mtl.on_shared(optax.chain(METHOD(T), make(name)), MASK), optax.sgd(0.1)
    ),
    "in `per_task`": lambda name: optax.chain(
        mtl.per_task(make(name), T), METHOD(T), optax.sgd(0.1)
    ),
}
# What an error says, and its letter in the table.
KINDS = {
    "changes shape in one update": "state",
    "changes every task's": "mixes",
    "does more than multiply": "step",
    "is that of an optimiser": "step",
    "come out stacked": "stacked",
    "around the method": "around",
    "before the method raised": "raises",
    "behind the method raised": "raises",
    "inside mtl_optax.per_task raised": "raises",
    "a part of the chain raised": "raises",
    "there is no method in it": "raises",
    "the updates have": "raises",
    "changes its structure": "state",
    "What stands before the method handed": "raises",
}


def outcome(name, place):
    """One word, and the whole message."""
    if place == "around" and name not in WRAPPERS:
        return "", ""
    try:
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
            mtl.check_chain(PLACES[place](name), PARAMS, T)
    except Exception as error:  # what is none of ours shows in the table
        text = str(error)
        word = next((w for part, w in KINDS.items() if part in text), None)
        return word or type(error).__name__, text
    return "yes", ""


def row(name):
    words = [outcome(name, place)[0] for place in PLACES]
    return f"| `{public()[name]}` | " + " | ".join(words) + " |"


HEAD = """# Every transformation of optax, in every place of a chain

What `mtl_optax.check_chain` says of each public transformation of optax {version}, with
two tasks: before a method, behind it, around it (wrappers), with it inside
`mtl_optax.on_shared`, and inside `mtl_optax.per_task` before a method. Wrappers hold
`optax.scale` but where they stand around the method. Made by
`python tests/optax_places.py`; a test holds it.

* yes: it may stand there.
* state: its state changes shape, for it keeps some for each parameter. Put it behind
  the method, or inside `per_task` before it.
* mixes: it does more than multiply entries by numbers, for all tasks at once. Put it
  behind the method, or inside `per_task` before it.
* step: it makes a step of a gradient, or changes its length, on shared leaves only. Put
  it behind `on_shared`.
* stacked: leaves that it keeps from the method come out `[T, *param]`. Use `on_shared`,
  or give these leaves `mtl_optax.unitary`; to freeze, see below.
* around: it compares or reshapes what goes in and what comes out. Put it behind the
  method, around the optimiser; or use `accumulate_tasks`, `skip_nonfinite_tasks`.
* raises: it raises an error of its own, which is explained. Before the method it gets
  `[T, *param]`: put it behind, or inside `per_task`. Elsewhere it raises without tasks
  too: it wants other parameters or extra arguments (`lookahead`, `scale_by_muon`,
  `sam` with keywords), gives another tree (`measure_with_ema`), or aggregates itself.

`optax.monitor` has another state after its first update, with any gradients.

A leaf is frozen in the method's view, so that its gradients count in the Gramian, by
`optax.chain(method, optimiser, optax.transforms.freeze(mask))`, and out of its view by
`optax.chain(optax.transforms.freeze(mask), method, optimiser)`; after an optimiser
with weight decay only the former freezes.
"""


def table():
    header = "| transformation | " + " | ".join(PLACES) + " |"
    rule = "|---" * (len(PLACES) + 1) + "|"
    head = HEAD.format(version=optax.__version__)
    return "\n".join([head, header, rule, *map(row, public())]) + "\n"


PATH = pathlib.Path(__file__).parents[1] / "docs" / "optax_table.md"

if __name__ == "__main__":
    PATH.write_text(table(), "utf-8")
