"""resize_tasks: tasks added, removed and replaced, whatever is around a method."""

from typing import Annotated, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_runs import EACH, PARAMS, gradients
from flax import nnx

import mtl_optax as mtl
from mtl_optax.flax_support import MultiTaskTrainState, nnx_update

AC, ABC = ("a", "c"), ("a", "b", "c")


def numbered(state, start):
    """The same state with numbers that tell each entry from all others."""
    leaves, treedef = jax.tree.flatten(state)
    firsts = start + np.cumsum([0, *(leaf.size for leaf in leaves)])
    return jax.tree.unflatten(
        treedef,
        [
            jnp.arange(first, first + leaf.size).astype(leaf.dtype).reshape(leaf.shape)
            for first, leaf in zip(firsts, leaves, strict=False)
        ],
    )


def task_axes(method):
    """For each leaf of a method's state the axes that follow the number of tasks."""
    few, many = (
        jax.tree.leaves(jax.eval_shape(method.make(n).init, PARAMS)) for n in (11, 13)
    )
    for one, other in zip(few, many, strict=True):
        pairs = enumerate(zip(one.shape, other.shape, strict=True))
        yield [axis for axis, (a, b) in pairs if a != b]


@EACH
def test_every_method_keeps_what_stays_and_starts_what_is_new(method):
    num_old = max(2, method.min_tasks)
    old = [f"task{t}" for t in range(num_old)]
    new = [*old, "task0b"]  # between the first and the second
    place = [0, *range(2, num_old + 1)]
    before = numbered(method.make(num_old).init(PARAMS), 3)
    tx = method.make(num_old + 1)
    fresh = numbered(tx.init(PARAMS), 5000)
    got = mtl.resize_tasks(before, old, new, fresh)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, fresh)
    leaves = zip(*map(jax.tree.leaves, (before, got, fresh)), strict=True)
    for (was, now, start), axes in zip(leaves, task_axes(method), strict=True):
        kept, added = np.asarray(now), np.asarray(now)
        for axis in axes:
            np.testing.assert_array_equal(
                np.take(added, 1, axis), np.take(np.asarray(start), 1, axis)
            )
            kept = np.take(kept, place, axis)
        np.testing.assert_array_equal(kept, was)
    chex.assert_trees_all_equal(mtl.resize_tasks(got, new, old), before)

    extras = method.extras(num_old + 1, PARAMS)
    state = mtl.resize_tasks(
        method.make(num_old).init(PARAMS), old, new, tx.init(PARAMS)
    )
    jax.eval_shape(lambda: tx.update(gradients(num_old + 1), state, PARAMS, **extras))


# --- A training that goes on ----------------------------------------------------------


def params_of(names):
    heads = {name: jnp.full(2, 0.5 + ord(name) / 100) for name in names}
    return {"heads": heads, "trunk": jnp.array([0.3, -0.2])}


def losses_fn(params):
    return {
        name: jnp.sum((params["trunk"] * head - ord(name) / 100) ** 2)
        for name, head in params["heads"].items()
    }


def train(tx, params, state, steps=1):
    def step(carry, _):
        params, state = carry
        losses, grads = mtl.task_grads(losses_fn)(params)
        named = dict(zip(sorted(params["heads"]), losses, strict=True))
        updates, state = tx.update(grads, state, params, losses=named)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), None, length=steps)[0]


def owner(params):
    heads = {name: name for name in params["heads"]}
    return {"heads": heads, "trunk": None}


def labels(params):
    names = tuple(sorted(params["heads"]))
    return {"heads": {name: (name,) for name in names}, "trunk": names}


def labels_by_index(params):
    names = sorted(params["heads"])
    heads = {name: (t,) for t, name in enumerate(names)}
    return {"heads": heads, "trunk": tuple(range(len(names)))}


def one_head_each(params):
    return jax.tree.map(lambda _: "rest", params) | {"trunk": "trunk"}


WRAPPED = {
    "chain": lambda n: optax.chain(mtl.dwa(n), optax.adam(0.01)),
    "blocks": lambda n: mtl.gradvac(n, key=0, granularity=one_head_each),
    "accumulated": lambda n: mtl.accumulate_tasks(
        optax.chain(mtl.moco(n), optax.adam(0.01)), n, 2
    ),
    "accumulated sum": lambda n: mtl.accumulate_tasks(mtl.uw(n), n, 2),
    "per task": lambda n: optax.chain(
        mtl.per_task(optax.chain(optax.add_noise(0.1, 0.5, key=1), optax.adam(1.0)), n),
        mtl.mean(n),
    ),
    "skipping": lambda n: mtl.skip_nonfinite_tasks(mtl.db_mtl(n), n),
    "shared": lambda n: mtl.on_shared(
        mtl.excess_mtl(n), lambda p: {"heads": False, "trunk": True}
    ),
    "labels": lambda n: mtl.on_shared(mtl.excess_mtl(n), labels=labels),
    "labels by index": lambda n: mtl.on_shared(mtl.moco(n), labels=labels_by_index),
    "partition": lambda n: optax.partition(
        {
            "trunk": mtl.gradnorm(n),
            "rest": optax.chain(mtl.unitary(n), optax.adam(0.1)),
        },
        one_head_each,
    ),
    "hyperparameters": lambda n: optax.inject_hyperparams(
        mtl.cagrad, static_args="num_tasks", hyperparam_dtype=jnp.float32
    )(n, c=0.3, preference=jnp.arange(1.0, n + 1)),
    "schedule": lambda n: mtl.pcd(n, primary=0, tau=lambda step: 0.1 / (step + 1)),
    "held": lambda n: mtl.from_weighting(mtl.every_k(mtl.uw.weighting(), 2), n),
    "smooth": lambda n: mtl.from_weighting(mtl.cr_mogm(mtl.sdmgrad.weighting()), n),
    "affinity": lambda n: mtl.task_affinity(
        n,
        losses_fn=losses_fn,
        owner=owner,
        optimizer=optax.adam(0.1),
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_through_everything_around_a_method(name):
    """Without the new task all is as it was, to the bit; and training goes on."""
    make, params = WRAPPED[name], params_of(AC)
    tx = make(2)
    if name == "affinity":
        state = numbered(tx.init(params), 3)
    else:
        params, state = train(tx, params, tx.init(params), steps=3)
    more, after = {**params}, make(3)
    more["heads"] = {**params["heads"], "b": jnp.full(2, 0.7)}
    grown = mtl.resize_tasks(state, AC, ABC, after.init(more))
    chex.assert_trees_all_equal_shapes_and_dtypes(grown, after.init(more))
    shrunk = mtl.resize_tasks(grown, ABC, AC, tx.init(params))
    if name == "hyperparameters":  # arguments are the new method's
        state = state._replace(hyperparams=tx.init(params).hyperparams)
    chex.assert_trees_all_equal(shrunk, state)
    if name != "affinity":
        jax.eval_shape(lambda: train(after, more, grown))


def test_by_hand():
    """Moments of what stays, nothing of what is new; names in any order."""
    make = WRAPPED["accumulated"]
    params, state = train(make(2), params_of(AC), make(2).init(params_of(AC)), 3)
    more = params | {"heads": {**params["heads"], "b": jnp.ones(2)}}
    grown = mtl.resize_tasks(
        state, ["c", "a"], dict.fromkeys(tuple("bca")), make(3).init(more)
    )
    np.testing.assert_array_equal(grown.gathered_counts, [1, 0, 1])
    for leaf in ("trunk", "heads"):
        had, has = (jax.tree.leaves(s.gathered[leaf])[0] for s in (state, grown))
        np.testing.assert_array_equal(has[jnp.array([0, 2])], had)
        np.testing.assert_array_equal(has[1], 0)
    (moco, (adam, _)), (old_moco, (old_adam, _)) = grown.inner, state.inner
    np.testing.assert_array_equal(moco.steps, [1, 0, 1])
    np.testing.assert_array_equal(moco.shares[1], 1)
    np.testing.assert_array_equal(
        moco.tracked["heads"]["c"][2], old_moco.tracked["heads"]["c"][1]
    )
    np.testing.assert_array_equal(moco.tracked["heads"]["b"], 0)
    chex.assert_trees_all_equal(adam.mu["trunk"], old_adam.mu["trunk"])
    chex.assert_trees_all_equal(adam.mu["heads"]["c"], old_adam.mu["heads"]["c"])
    np.testing.assert_array_equal(adam.mu["heads"]["b"], 0)
    assert int(adam.count) == 1

    other = mtl.resize_tasks(
        grown, ABC, tuple("bde"), make(3).init(params_of(tuple("bde")))
    )
    np.testing.assert_array_equal(other.gathered_counts, [0, 0, 0])
    np.testing.assert_array_equal(other.inner[1][0].mu["trunk"], adam.mu["trunk"])
    assert sorted(other.inner[1][0].mu["heads"]) == ["b", "d", "e"]


def test_pairs_move_on_both_axes():
    state = mtl.gradvac(2, key=0).init(PARAMS)
    phi = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    state = state._replace(weighting=state.weighting._replace(phi=phi))
    fresh = numbered(mtl.gradvac(3, key=0).init(PARAMS), 10)
    start = fresh.weighting.phi
    got = mtl.resize_tasks(state, ["b", "c"], ["a", "b", "c"], fresh).weighting.phi
    np.testing.assert_array_equal(got[1:, 1:], phi)
    np.testing.assert_array_equal(got[0], start[0])
    np.testing.assert_array_equal(got[:, 0], start[:, 0])


@pytest.mark.parametrize("by", ["name", "index"])
def test_what_tasks_own_goes_with_them(by):
    """An optimiser for each task's own leaves, and groups of tasks by their indices."""

    def make(names):
        def owns(params):
            heads = {n: n if by == "name" else t for t, n in enumerate(names)}
            return {"heads": heads, "trunk": None}

        return mtl.selective_groups(len(names), optax.adam(0.1), owner=owns, key=0)

    state = numbered(make("bcd").init(params_of("bcd")), 3)
    state = state._replace(groups=jnp.array([1, 0, 1]))
    fresh = make("acd").init(params_of("acd"))
    got = mtl.resize_tasks(state, tuple("bcd"), tuple("acd"), fresh)
    np.testing.assert_array_equal(got.groups, [0, 1, 2])
    np.testing.assert_array_equal(got.affinity[1:, 1:], state.affinity[1:, 1:])
    parts, before = got.inner.inner_states, state.inner.inner_states
    for part in ("c", "d", "shared") if by == "name" else ("1", "2", "shared"):
        chex.assert_trees_all_equal(
            jax.tree.leaves(parts[part]), jax.tree.leaves(before[part])
        )
    start = parts["a" if by == "name" else "0"]
    assert not any(map(np.any, jax.tree.leaves(start)))
    together = state._replace(groups=jnp.array([0, 2, 2]))
    got = mtl.resize_tasks(together, tuple("bcd"), tuple("acd"), fresh)
    np.testing.assert_array_equal(got.groups, [0, 1, 1])


def test_a_group_of_leaves_goes_on_with_more_tasks():
    """The trunk of all stays that of all; a group of other tasks starts."""

    def make(names, middle):
        own = {"heads": {n: (n,) for n in names}, "trunk": tuple(names), "mid": middle}
        return mtl.on_shared(mtl.moco(len(names)), labels=own)

    def params(names):
        return params_of(names) | {"mid": jnp.ones(3)}

    state = numbered(make("abc", ("a", "b")).init(params("abc")), 3)
    fresh = make("abcd", ("c", "d")).init(params("abcd"))
    got = mtl.resize_tasks(state, tuple("abc"), tuple("abcd"), fresh)
    assert list(got) == ["a,b,c,d", "c,d"]
    np.testing.assert_array_equal(got["a,b,c,d"].steps[:3], state["a,b,c"].steps)
    chex.assert_trees_all_equal(got["c,d"], fresh["c,d"])
    for args in (tuple("abc"), tuple("ab")), (range(3), range(4), fresh):
        with pytest.raises(ValueError, match=r"groups of tasks \['a,b', 'a,b,c'\]"):
            mtl.resize_tasks(state, *args)


def test_a_linen_state_whole():
    """Its parameters too: what it has stays, what is new is that of the new state."""

    def make(names):
        return MultiTaskTrainState.create(
            apply_fn=None, params=params_of(names), tx=WRAPPED["chain"](len(names))
        )

    state = make(AC)
    for _ in range(2):
        losses, grads = mtl.task_grads(losses_fn)(state.params)
        state = state.apply_gradients(grads=grads, losses=losses)
    fresh = make(ABC)
    got = mtl.resize_tasks(state, AC, ABC, fresh)
    assert int(got.step) == 2
    assert got.tx is fresh.tx
    chex.assert_trees_all_equal(got.params["trunk"], state.params["trunk"])
    chex.assert_trees_all_equal(got.params["heads"]["b"], fresh.params["heads"]["b"])
    losses, grads = mtl.task_grads(losses_fn)(got.params)
    got.apply_gradients(grads=grads, losses=losses)


class Net(nnx.Module):
    def __init__(self, names):
        start = params_of(names)
        self.trunk = nnx.Param(start["trunk"])
        self.heads = nnx.data({n: nnx.Param(x) for n, x in start["heads"].items()})


def nnx_step(net, optimizer):
    params = nnx.state(net, nnx.Param)

    def losses(params):
        pure = nnx.to_pure_dict(params)
        return losses_fn({"trunk": pure["trunk"], "heads": pure["heads"]})

    nnx_update(optimizer, net, mtl.lazy_task_grads(losses)(params)[1])


def test_nnx():
    net = Net(AC)
    optimizer = nnx.Optimizer(net, WRAPPED["chain"](2), wrt=nnx.Param)
    nnx_step(net, optimizer)
    more = Net(ABC)
    grown = nnx.Optimizer(more, WRAPPED["chain"](3), wrt=nnx.Param)
    state = mtl.resize_tasks(optimizer.opt_state, AC, ABC, grown.opt_state)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.tree.leaves(state), jax.tree.leaves(grown.opt_state)
    )
    old, new = (optax.tree.get(s, "mu") for s in (optimizer.opt_state, state))
    np.testing.assert_array_equal(new["trunk"][...], old["trunk"][...])
    np.testing.assert_array_equal(new["heads"]["c"][...], old["heads"]["c"][...])
    np.testing.assert_array_equal(new["heads"]["b"][...], 0)
    grown.opt_state = state
    nnx_step(more, grown)
    assert int(optax.tree.get(grown.opt_state, "mu")["heads"]["b"].size) == 2


def test_seeds_under_vmap():
    tx, more = mtl.moco(2), mtl.moco(3)
    seeds = jax.vmap(tx.init)(jnp.ones((5, 4)))
    fresh = jax.vmap(more.init)(jnp.ones((5, 4)))
    resized = jax.vmap(lambda s, f: mtl.resize_tasks(s, AC, ABC, f))(seeds, fresh)
    chex.assert_trees_all_equal_shapes(resized, fresh)


# --- States of one's own, and errors --------------------------------------------------


class Marked(NamedTuple):
    rows: Annotated[jax.Array, "[T, ...]"]
    table: jax.Array


def own_weighting(start):
    def update(gramian, state, *, active, **extra):
        return jnp.ones(active.shape), state

    return mtl.Weighting(start, update, uses_gramian=False)


STARTS: dict[str, Any] = {
    "a vector": jnp.zeros,
    "one for each lag": lambda n: {"last": jnp.zeros((n, 2))},
    "marked": lambda n: Marked(jnp.zeros((n, 2)), jnp.ones(2)),
    "no task's": lambda n: jnp.zeros(3),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_weighting_of_ones_own(start):
    """By its marks, or else by the sizes of two task counts where these tell."""
    tx, more = (mtl.from_weighting(own_weighting(STARTS[start]), n) for n in (2, 3))
    state = numbered(tx.init(PARAMS), 3)
    grown = mtl.resize_tasks(state, AC, ABC, more.init(PARAMS))
    chex.assert_trees_all_equal_shapes(grown, more.init(PARAMS))
    chex.assert_trees_all_equal(mtl.resize_tasks(grown, ABC, AC, state), state)
    if start in ("marked", "no task's"):
        got = mtl.resize_tasks(state, AC, tuple("ab"), tx.init(PARAMS))
        assert start != "marked" or not np.any(got.weighting.rows[1])
    else:
        with pytest.raises(ValueError, match=r"does not say which of its axes.*Annot"):
            mtl.resize_tasks(state, AC, tuple("ab"), tx.init(PARAMS))


def test_errors():
    def state(n):
        return optax.chain(mtl.moco(n), optax.adam(0.1)).init(PARAMS)

    def raises(message, *args):
        with pytest.raises(ValueError, match=message):
            mtl.resize_tasks(*args)

    raises(r"new tasks, \['b'\].*fresh=tx.init", state(2), AC, ABC)
    raises(r"task_weights has shape \(2,\).*3 tasks.*old_names", state(2), ABC, AC)
    raises(r"make it with tx.init for the.*new_names=", state(2), AC, ABC, state(4))
    raises("each once; got", state(2), ("a", "a"), AC)
    raises("must name all tasks; got 'ab'", state(2), "ab", AC)
    raises("their types differ", state(2), (0, "a"), AC)
    raises("every task, each once", state(2), AC, ())
    wide = optax.adam(0.1).init({"w": jnp.ones((4, 3))})
    narrow = optax.adam(0.1).init({"w": jnp.ones((4, 2))})
    raises(r"\['w'\] has shape \(4, 2\).*one head for each", narrow, AC, ABC, wide)
    longer = optax.chain(mtl.moco(3), optax.clip(1.0), optax.adam(0.1)).init(PARAMS)
    raises("of 2 parts, in fresh= of 3", state(2), AC, ABC, longer)
    raises("an array in one of both", {"w": jnp.ones(2)}, AC, AC, {"w": {"x": wide}})
    other = mtl.uw(3).init(PARAMS)
    more, less = (mtl.mgda(n, granularity="leaf").init([1.0] * n) for n in (3, 2))
    raises("granularity= makes blocks.*their number must stay", less, AC, ABC, more)
    raises("in fresh= a WeightingState", mtl.moco(2).init(PARAMS), AC, ABC, other)


def test_the_same_tasks_are_the_same_state():
    tx = WRAPPED["per task"](2)
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(mtl.resize_tasks(state, AC, ["c", "a"]), state)
