"""What compiled steps cost, held to the numbers in `costs.json`.

Record them anew, after a change that is meant to cost something, with
`MTL_OPTAX_RECORD_COSTS=1 uv run pytest -n 0 tests/test_costs.py`, and say why.
"""

import json
import os
import pathlib
import re
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mtl_optax as mtl

FILE = pathlib.Path(__file__).with_name("costs.json")
RECORD = "MTL_OPTAX_RECORD_COSTS" in os.environ
TABLE = json.loads(FILE.read_text()) if FILE.exists() else {"jax": "", "costs": {}}
pytestmark = [
    pytest.mark.optimized,
    pytest.mark.skipif(
        not RECORD and TABLE["jax"] != jax.__version__,
        reason=f"costs were recorded with jax {TABLE['jax']}, which the environment "
        f"of Python 3.11 has; this is {jax.__version__}, whose compiler counts "
        "otherwise",
    ),
]

# --- A small network: gradients of 190 kB outweigh all that is [T, T] -----------------

BATCH, WIDE = 16, 128
SHARED = {"trunk": True, "mid": False, "heads": False}
LAST = {"trunk": {"in": False, "out": True}, "mid": False, "heads": False}


def parameters(num_tasks):
    shapes = {
        "trunk": {"in": (64, WIDE), "out": (WIDE, WIDE)},
        "mid": (WIDE, WIDE),  # of the first two tasks
        "heads": {f"task{t}": (WIDE, 8) for t in range(num_tasks)},
    }
    return jax.tree.map(
        partial(jnp.full, fill_value=0.1),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def batch(num_tasks):
    return jnp.ones((BATCH, 64)), jnp.ones((num_tasks, BATCH, 8))


def features(params, x, y):
    return jnp.tanh(jnp.tanh(x @ params["trunk"]["in"]) @ params["trunk"]["out"])


def losses_at(params, z, x, y):
    mid = jnp.tanh(z @ params["mid"])
    heads = params["heads"]
    return {
        name: jnp.mean(((mid if t < 2 else z) @ heads[name] - y[t]) ** 2)
        for t, name in enumerate(sorted(heads))
    }


def losses_fn(params, x, y):
    return losses_at(params, features(params, x, y), x, y)


WAYS = {
    "stacked": partial(mtl.task_grads, losses_fn),
    "lazy": partial(mtl.lazy_task_grads, losses_fn),
    "features": partial(mtl.feature_task_grads, features, losses_at),
}

# --- Methods --------------------------------------------------------------------------


def inverse_norms():
    return mtl.Weighting(
        init=lambda num_tasks: (),
        update=lambda gramian, state, **_: (1 / jnp.sqrt(jnp.diag(gramian)), state),
    )


def labels_of(params):
    """The tasks that share each leaf, as `losses_at` uses them."""
    tasks = tuple(range(len(params["heads"])))
    heads = {name: (t,) for t, name in enumerate(sorted(params["heads"]))}
    return {"trunk": tasks, "mid": (0, 1), "heads": heads}


def owner_of(params):
    heads = {name: t for t, name in enumerate(sorted(params["heads"]))}
    return {"trunk": None, "mid": None, "heads": heads}


METHODS = {
    "unitary": mtl.unitary,
    "uw": mtl.uw,
    "mgda": mtl.mgda,
    "upgrad": mtl.upgrad,
    "aligned_mtl": mtl.aligned_mtl,
    "pcgrad_leaf": partial(mtl.pcgrad, key=0, granularity="leaf"),
    "gradnorm_leaves": partial(mtl.gradnorm, leaves=LAST),
    "db_mtl": mtl.db_mtl,
    "graddrop": partial(mtl.graddrop, key=0),
    "graddrop_features": partial(mtl.graddrop, key=0, at="features"),
    "trimmed_mean": mtl.trimmed_mean,
    "moco": mtl.moco,
    "every_k": lambda t: mtl.from_weighting(mtl.every_k(inverse_norms(), 2), t),
    "on_mask": lambda t: mtl.on_shared(mtl.mgda(t), SHARED),
    "on_mask_uw": lambda t: mtl.on_shared(mtl.uw(t), SHARED, rest="weights"),
    "on_mask_db_mtl": lambda t: mtl.on_shared(mtl.db_mtl(t), SHARED),
    "on_labels": lambda t: mtl.on_shared(mtl.mgda(t), labels=labels_of),
    "accumulate": lambda t: mtl.accumulate_tasks(mtl.mgda(t), t, every_k=4),
    "flat_mtl": lambda t: mtl.flat_mtl(mtl.mgda(t), rho_shared=0.05),
    "selective_groups": lambda t: mtl.selective_groups(
        t, optax.sgd(0.1), owner=owner_of, key=0
    ),
}


# --- Programs -------------------------------------------------------------------------


def ones(tree, lead=()):
    return jax.tree.map(lambda leaf: jnp.ones((*lead, *leaf.shape)), tree)


def aggregate(name, num_tasks, active=False):
    """The method alone, from stacked gradients."""
    tx, params = METHODS[name](num_tasks), parameters(num_tasks)
    mask = jnp.ones(num_tasks, bool) if active else None

    def update(grads, state, params, losses, mask):
        return tx.update(grads, state, params, losses=losses, active=mask)

    grads = ones(params, (num_tasks,))
    return update, (grads, tx.init(params), params, jnp.ones(num_tasks), mask)


def step(name, way, num_tasks, active=False, **options):
    """Losses, task gradients, the method, Adam."""
    tx, params = METHODS[name](num_tasks), parameters(num_tasks)
    if name != "selective_groups":  # has its own optimiser
        tx = optax.chain(tx, optax.adam(1e-3))
    mask = jnp.ones(num_tasks, bool) if active else None

    def update(params, state, x, y, mask):
        losses, grads = WAYS[way](**options)(params, x, y)
        updates, state = tx.update(
            *(grads, state, params),
            losses=losses,
            active=mask,
            losses_fn=lambda p: losses_fn(p, x, y),
        )
        return optax.apply_updates(params, updates), state, losses

    return update, (params, tx.init(params), *batch(num_tasks), mask)


def mapped(name, way, num_tasks):
    """The step in `jax.shard_map`, with the batch split over the devices."""
    update, (params, state, x, y, _) = step(name, way, num_tasks, axis_name="data")
    everywhere, split = PartitionSpec(), PartitionSpec("data")
    specs = everywhere, everywhere, split, PartitionSpec(None, "data")
    program = jax.shard_map(
        lambda *args: update(*args, None), in_specs=specs, out_specs=everywhere
    )
    return program, (params, state, x, y)


def put(tree, num_tasks=None):
    """On the mesh in use: matrices split over their last axis where it is wide."""
    lead = () if num_tasks is None else (None,)

    def one(leaf):
        wide = leaf.ndim == len(lead) + 2 and leaf.shape[-1] == WIDE
        spec = PartitionSpec(*lead, None, "data") if wide else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(jax.sharding.get_mesh(), spec))

    return jax.tree.map(one, tree)


def sharded(name, num_tasks):
    """The method alone, with parameters and gradients split over the devices."""
    update, (grads, _, params, losses, mask) = aggregate(name, num_tasks)
    params, grads = put(params), put(grads, num_tasks)
    state = jax.jit(METHODS[name](num_tasks).init)(params)
    return update, (grads, state, params, losses, mask)


def sharded_step(name, way, num_tasks):
    """The step with split parameters and a whole batch."""
    update, (params, _, x, y, mask) = step(name, way, num_tasks)
    params = put(params)
    tx = optax.chain(METHODS[name](num_tasks), optax.adam(1e-3))
    return update, (params, jax.jit(tx.init)(params), x, y, mask)


# --- Cases ----------------------------------------------------------------------------

ONE_DEVICE = {
    **{
        f"aggregate-{name}-T6": partial(aggregate, name, 6)
        for name in (
            *("unitary", "upgrad", "aligned_mtl", "pcgrad_leaf", "gradnorm_leaves"),
            *("db_mtl", "graddrop", "trimmed_mean", "moco"),
        )
    },
    **{
        f"aggregate-{name}-T6-active": partial(aggregate, name, 6, active=True)
        for name in ("uw", "mgda", "db_mtl")
    },
    "aggregate-unitary-T2": partial(aggregate, "unitary", 2),
    **{
        f"step-{name}-lazy-T2": partial(step, name, "lazy", 2)
        for name in (
            *("unitary", "uw", "mgda", "aligned_mtl", "pcgrad_leaf"),
            *("gradnorm_leaves", "db_mtl", "on_mask", "on_mask_uw"),
            *("every_k", "accumulate", "flat_mtl", "selective_groups"),
        )
    },
    **{
        f"step-{name}-lazy-T2-active": partial(step, name, "lazy", 2, active=True)
        for name in ("uw", "mgda", "gradnorm_leaves", "on_mask")
    },
    "step-on_labels-lazy-T6": partial(step, "on_labels", "lazy", 6),
    **{
        f"step-{name}-stacked-T2": partial(step, name, "stacked", 2)
        for name in ("uw", "mgda", "db_mtl", "on_mask")
    },
    **{
        f"step-{name}-features-T2": partial(step, name, "features", 2)
        for name in ("on_mask", "on_mask_uw", "on_mask_db_mtl", "graddrop_features")
    },
    "step-on_mask-features-T2-active": partial(
        step, "on_mask", "features", 2, active=True
    ),
}
FOLDERS = (
    *(("uw", "lazy"), ("mgda", "lazy"), ("db_mtl", "lazy")),
    ("on_mask", "features"),
)
# Collectives of programs on eight devices
SHARDED = {
    **{
        f"aggregate-{name}-T3-{kind.name}": (kind, partial(sharded, name, 3))
        for name in ("uw", "mgda", "db_mtl")
        for kind in (AxisType.Auto, AxisType.Explicit)
    },
    **{
        f"step-{name}-{way}-T3": (AxisType.Auto, partial(sharded_step, name, way, 3))
        for name, way in FOLDERS
    },
    **{
        f"mapped-{name}-{way}-T3": (AxisType.Auto, partial(mapped, name, way, 3))
        for name, way in FOLDERS
    },
}
# Little time for machine code, which nothing here runs. What was recorded is the same
# with XLA's defaults: these leave its passes over the program alone.
UNRUN = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_llvm_disable_expensive_passes": True,
}


def compiled(program, args):
    return jax.jit(program).lower(*args).compile(compiler_options=UNRUN)


def record(name, measured):
    TABLE["costs"][name] = measured
    costs = TABLE["costs"]
    known = [case for case in (*ONE_DEVICE, *SHARDED) if case in costs]
    lines = [f"{json.dumps(case)}: {json.dumps(costs[case])}" for case in known]
    FILE.write_text(
        f'{{"jax": "{jax.__version__}", "costs": {{\n' + ",\n".join(lines) + "\n}}\n"
    )


@pytest.mark.parametrize("name", ONE_DEVICE)
@pytest.mark.slow
def test_step_costs_no_more_than_was_recorded(name):
    program = compiled(*ONE_DEVICE[name]())
    cost, memory = program.cost_analysis(), program.memory_analysis()
    measured = {
        "flops": int(cost["flops"]),
        "temporaries": memory.temp_size_in_bytes,
    }
    if RECORD:
        record(name, measured)
    recorded = TABLE["costs"][name]
    room = slack(int(re.search(r"-T(\d+)", name)[1]), recorded)
    for what, number in measured.items():
        assert number <= recorded[what] + room[what], (what, measured, recorded)


def slack(num_tasks, recorded):
    """Room for arithmetic of T x T numbers, for nothing of the size of a gradient.

    One pass over a gradient here takes 43,000 FLOPs or more.
    """
    small = num_tasks**2
    return {
        "flops": 256 * small,
        "temporaries": 0.01 * recorded["temporaries"] + 64 * small,
    }


OPERATIONS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def collectives(text):
    """How often each result of a collective occurs in the compiled program."""
    found = re.findall(rf"= (.*?) ({OPERATIONS})(?:-start)?\(", text)
    sent = sorted(
        f"{operation} {shape}"
        for shapes, operation in found
        for shape in re.findall(r"\w+\[[\d,]*\]", shapes)
    )
    return dict(Counter(sent))


@pytest.mark.parametrize("name", SHARDED)
@pytest.mark.slow
def test_sharded_step_sends_what_was_recorded(name):
    kind, case = SHARDED[name]
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(kind,))):
        program, args = case()
        sent = collectives(compiled(program, args).as_text())
    if RECORD:
        record(name, sent)
    assert sent == TABLE["costs"][name]


@pytest.mark.skipif(RECORD, reason="recording")
def test_table_has_these_cases():
    assert TABLE["costs"].keys() == {*ONE_DEVICE, *SHARDED}
