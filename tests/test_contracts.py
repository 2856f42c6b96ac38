"""What every method owes its caller, whatever it computes: one row, all checks.

Values are compared with `compiled(method)`, one jitted update of T = 3 tasks that most
checks share, because the solvers take a second to compile.
"""

import functools
import math
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from conftest import precision
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from methods import METHODS

import mtl_optax as mtl

T = 3
SHAPES = {"kernel": (8, 2), "bias": (8,), "scale": ()}
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def gradients(num_tasks=T, seed=0, dtypes="float32"):
    """Stacked gradients of the parameters below; `dtypes` one, or one a leaf."""
    names = list(SHAPES)
    dtypes = [dtypes] * len(names) if isinstance(dtypes, str) else dtypes
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.standard_normal((num_tasks, *SHAPES[name])), dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    }


def params_like(stacked):
    return jax.tree.map(lambda g: jnp.zeros_like(g[0]), stacked)


PARAMS = params_like(gradients())


def updater(method, num_tasks=T, **hyper):
    """`(gradients, state, params, extras) -> (update, state)`, and the method."""
    tx = method.make(num_tasks, **hyper)
    return tx, lambda g, state, params, extras: tx.update(g, state, params, **extras)


@functools.cache
def compiled(method, num_tasks=T):
    """The method, and its jitted update."""
    tx, update = updater(method, num_tasks)
    return tx, jax.jit(update)


@functools.cache
def compiled_with_hyper(method):
    """One update of a fresh state, hyper-parameters as tracers."""

    def step(hyper, stacked, extras):
        tx, update = updater(method, **hyper)
        params = params_like(stacked)
        return update(stacked, tx.init(params), params, extras)

    return jax.jit(step)


def expected(method, stacked=None, extras=None):
    """The plain update of a fresh state."""
    tx, update = compiled(method)
    params = PARAMS if stacked is None else params_like(stacked)
    stacked = gradients() if stacked is None else stacked
    extras = method.extras(T, params) if extras is None else extras
    return update(stacked, tx.init(params), params, extras)


def assert_close(method, got, wanted, factor=1.0):
    """Equal within rounding, relative to the largest entry of the update."""
    chex.assert_trees_all_equal_shapes_and_dtypes(got, wanted)
    size = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(wanted))
    bound = factor * method.tolerance * float(size)
    assert np.isfinite(bound)
    chex.assert_trees_all_close(got, wanted, rtol=0, atol=bound)


def is_statistic(path):
    """Neither the key nor the record of the last update."""
    last = [getattr(entry, "name", "") for entry in path]
    return not {"key", "task_weights", "task_gramian"} & set(last)


def statistics(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [leaf for path, leaf in leaves if is_statistic(path)]


@pytest.mark.contract
def test_rows_and_public_factories_agree():
    families, apart = {}, []
    for name in mtl.__all__:
        module = getattr(getattr(mtl, name), "__module__", "").split(".")
        if len(module) < 3 or not module[1].startswith("from_"):
            continue
        family = module[1].removeprefix("from_")
        if family == "grad_fn":  # needs a function, no argument of a jitted update
            apart.append(name)
        else:
            families[name] = family
    assert families == {method.name: method.family for method in METHODS}
    assert len(METHODS) == len({method.name for method in METHODS})
    for name in apart:
        assert (Path(__file__).parent / f"test_{name}.py").exists()


@EACH
@pytest.mark.contract
def test_compiles_once_and_ignores_unknown_arguments(method):
    tx, update = compiled(method)
    state, extras = tx.init(PARAMS), method.extras(T, PARAMS)
    (_, state), before = (
        update(gradients(), state, PARAMS, extras),
        update._cache_size(),
    )
    update(gradients(seed=1), state, PARAMS, method.extras(T, PARAMS, seed=1))
    assert update._cache_size() == before
    unknown = {**extras, "unknown": jnp.ones(2), "value": 1.0}
    jax.eval_shape(lambda: tx.update(gradients(), state, PARAMS, **unknown))


@EACH
@pytest.mark.contract
def test_scan_cond_and_chain_keep_the_types_of_the_state(method):
    tx = optax.chain(method.make(T), optax.adam(1e-2))
    extras = method.extras(T, PARAMS)

    def step(carry, present):
        params, state = carry

        def move(params, state):
            updates, state = tx.update(gradients(), state, params, **extras)
            return optax.apply_updates(params, updates), state

        return lax.cond(present, move, lambda *same: same, params, state), None

    start = PARAMS, tx.init(PARAMS)
    end, _ = jax.eval_shape(lambda: lax.scan(step, start, jnp.array([True, False])))
    chex.assert_trees_all_equal_shapes_and_dtypes(end, start)


@EACH
@pytest.mark.contract
def test_dtypes_are_kept_and_sums_are_float32(method):
    mixed = gradients(dtypes=["float16", "bfloat16", "float32"])
    params = params_like(mixed)
    same_values = jax.tree.map(lambda g: g.astype("float32"), mixed)
    extras = method.extras(T, params_like(same_values))
    update, state = expected(method, mixed, extras)
    wanted, wide_state = expected(method, same_values, extras)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        statistics(state), statistics(wide_state)
    )
    for name, leaf in update.items():
        eps = float(jnp.finfo(leaf.dtype).eps) + method.tolerance
        np.testing.assert_allclose(
            np.asarray(leaf, np.float64), wanted[name], rtol=eps, atol=eps
        )


@EACH
@pytest.mark.contract
def test_float64_is_kept_where_it_is_on(method):
    with precision("float64"):
        mixed = gradients(dtypes=["float64", "bfloat16", "float32"])
        params = params_like(mixed)
        tx = method.make(T)
        extras = method.extras(T, params)
        init = jax.eval_shape(tx.init, params)
        update, state = jax.eval_shape(
            lambda g: tx.update(g, tx.init(params), params, **extras), mixed
        )
    chex.assert_trees_all_equal_shapes_and_dtypes(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, init)
    weights = getattr(state, "task_weights", None)
    assert weights is None or weights.dtype == "float64"


@EACH
def test_initial_states_share_no_buffer(method):
    """Else whoever donates the state to a step could not start again."""
    tx = method.make(T)
    leaves = jax.tree.leaves((tx.init(PARAMS), tx.init(PARAMS)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@EACH
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for(method, platform):
    tx, update = compiled(method)
    args = gradients(), tx.init(PARAMS), PARAMS, method.extras(T, PARAMS)
    assert update.trace(*args).lower(lowering_platforms=(platform,)).as_text()


def equations(jaxpr):
    """All equations of a jaxpr, those of loops and branches included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@EACH
def test_products_have_full_precision(method):
    tx, update = compiled(method)
    half = gradients(dtypes="bfloat16")
    extras = method.extras(T, PARAMS)
    args = half, tx.init(PARAMS), params_like(half), extras
    products = [
        equation.params
        for equation in equations(jax.make_jaxpr(update)(*args).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert products or method.family != "gramian"
    for product in products:
        assert product["precision"] == (lax.Precision.HIGHEST,) * 2
        wide = product["preferred_element_type"]
        assert wide is None or wide == jnp.float32


@EACH
def test_empty_tree_gives_an_empty_tree(method):
    tx = method.make(T)
    update, _ = tx.update({}, tx.init({}), {}, **method.extras(T, {}))
    assert update == {}


def inject(method, hyper):
    """`optax.inject_hyperparams` around the public factory."""
    static = {"num_tasks": T, **method.static}
    wrap = optax.inject_hyperparams(
        method.factory, static_args=tuple(static), hyperparam_dtype=jnp.float32
    )
    return wrap(**static, **hyper)


@EACH
@pytest.mark.contract
def test_injected_hyperparameters_and_seeds_under_vmap(method):
    """Two settings and two gradients at once give what each gives alone."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), gradients(seed=1), gradients())
    pairs = [jnp.stack([jnp.asarray(v) for v in two]) for two in method.hyper.values()]
    hypers = dict(zip(method.hyper, pairs, strict=True))
    extras = method.extras(T, PARAMS)

    def step(hyper, stacked):
        tx = inject(method, hyper)
        state = tx.init(PARAMS)
        for name, value in hyper.items():
            chex.assert_trees_all_equal_shapes(state.hyperparams[name], value)
        return tx.update(stacked, state, PARAMS, **extras)

    updates, states = jax.jit(jax.vmap(step))(hypers, stacked)
    for i in range(2):
        hyper, one, update, state = jax.tree.map(
            lambda x, i=i: x[i], (hypers, stacked, updates, states.inner_state)
        )
        if method.hyper:
            wanted, plain = compiled_with_hyper(method)(hyper, one, extras)
        else:
            wanted, plain = expected(method, one, extras)
        assert_close(method, update, wanted)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, plain)


@EACH
def test_orbax_restores_a_trajectory(method, tmp_path):
    tx, update = compiled(method)
    extras = method.extras(T, PARAMS)
    state = tx.init(PARAMS)
    for seed in range(2):
        _, state = update(gradients(seed=seed), state, PARAMS, extras)
    # With the parameters, for a method may have no state, and nothing is no checkpoint.
    saved = {"params": PARAMS, "state": state}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
        checkpointer.wait_until_finished()
        like = jax.tree.map(jnp.zeros_like, saved)
        restored = checkpointer.restore(tmp_path / "state", like)["state"]
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal(
        update(gradients(seed=2), restored, PARAMS, extras),
        update(gradients(seed=2), state, PARAMS, extras),
    )


@EACH
def test_lazy_gradients_give_the_same_update(method):
    tx = method.make(T)
    offsets = jnp.linspace(0.5, 2.0, T)
    draws = method.extras(T, PARAMS)
    draws.pop("losses", None)

    @jax.jit
    def lazily(stacked):
        def losses_fn(params):
            return tuple(
                sum(jnp.sum(stacked[name][t] * params[name]) for name in SHAPES)
                + offsets[t]
                for t in range(T)
            )

        losses, lazy = mtl.lazy_task_grads(losses_fn)(PARAMS)
        return losses, tx.update(lazy, tx.init(PARAMS), PARAMS, **draws)

    losses, (update, state) = lazily(gradients())
    np.testing.assert_allclose(losses, offsets)
    wanted, stacked_state = expected(method)
    assert_close(method, update, wanted)
    chex.assert_trees_all_close(state, stacked_state, rtol=1e-4, atol=1e-5)


# --- Missing tasks --------------------------------------------------------------------

ACTIVE = np.array([True, False, True])
ALL, NONE = np.ones(T, bool), np.zeros(T, bool)


def has_task_sized_hyper(method):
    return any(np.shape(two[1]) == (T,) for two in method.hyper.values())


# Hyper-parameters at the defaults of the row (the weights of `constant` there restrict
# to those for two tasks), and [T] ones given, to be restricted.
ACTIVE_CASES = [
    pytest.param(
        method,
        given,
        id=f"{method.name}-{'given' if given else 'default'}",
        marks=[pytest.mark.slow] if given else [],
    )
    for method in METHODS
    for given in (False, True)
    if not given or has_task_sized_hyper(method)
]
EACH_ACTIVE = pytest.mark.parametrize(("method", "given"), ACTIVE_CASES)


class Masked:
    """A method of T tasks with `active`, and the method on the active tasks alone."""

    def __init__(self, method, given):
        hyper = {}
        if given:
            hyper = {k: jnp.asarray(two[1]) for k, two in method.hyper.items()}
        restricted = jax.tree.map(lambda x: x[ACTIVE] if x.ndim else x, hyper)
        self.method = method
        self.tx = method.make(T, **hyper)
        self.alone = method.make(2, **restricted)
        self._masked, self._plain = jax.jit(self.tx.update), jax.jit(self.alone.update)

    def start(self):
        return self.tx.init(PARAMS)

    def update(self, stacked, state, active, extras):
        return self._masked(stacked, state, PARAMS, active=active, **extras)

    def update_alone(self, stacked, extras, state=None):
        kept = jax.tree.map(lambda g: g[ACTIVE], stacked)
        extras = self.method.restrict(extras, ACTIVE)
        state = self.alone.init(PARAMS) if state is None else state
        return self._plain(kept, state, PARAMS, **extras)


masked = functools.cache(Masked)


@EACH_ACTIVE
def test_active_tasks_get_what_they_would_alone(method, given):
    both, extras = masked(method, given), method.extras(T, PARAMS)
    wanted, alone = both.update_alone(gradients(), extras)
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), gradients())
    if method.losses:
        extras["losses"] = extras["losses"].at[1].set(jnp.nan)
    update, state = both.update(broken, both.start(), ACTIVE, extras)
    assert_close(method, update, wanted, factor=5)
    chex.assert_tree_all_finite(state)
    pairs = zip(statistics(restricted(state)), statistics(alone), strict=True)
    for mine, other in pairs:
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    if hasattr(state, "task_weights"):
        weights = mtl.task_weights(state)
        np.testing.assert_array_equal(weights[~ACTIVE], 0)
        np.testing.assert_allclose(weights[ACTIVE], alone.task_weights, rtol=1e-4)


@EACH_ACTIVE
def test_statistics_of_inactive_tasks_stay(method, given):
    both, extras = masked(method, given), method.extras(T, PARAMS)
    _, before = both.update(gradients(), both.start(), ALL, extras)
    _, after = both.update(gradients(seed=1), before, ACTIVE, extras)
    for old, new in zip(statistics(before), statistics(after), strict=True):
        if old.shape[:1] == (T,):
            np.testing.assert_array_equal(new[~ACTIVE], old[~ACTIVE])
        if old.shape[1:2] == (T,):
            np.testing.assert_array_equal(new[:, ~ACTIVE], old[:, ~ACTIVE])


def restricted(tree, active=ACTIVE):
    """State of the method on the active tasks alone: their entries of every T axis."""

    def among(leaf):
        for axis in range(min(leaf.ndim, 2)):
            if leaf.shape[axis] == T:
                leaf = jnp.compress(active, leaf, axis=axis)
        return leaf

    return jax.tree.map(among, tree)


@EACH
def test_active_tasks_go_on_alone_and_the_others_come_back(method):
    """From a state in mid-course; the mask changes from step to step."""
    both = masked(method, False)
    steps = [method.extras(T, PARAMS, seed) for seed in range(4)]
    state = both.start()
    for seed in range(2):
        _, state = both.update(gradients(seed=seed), state, ALL, steps[seed])
    wanted, alone = both.update_alone(gradients(seed=2), steps[2], restricted(state))
    update, away = both.update(gradients(seed=2), state, ACTIVE, steps[2])
    assert_close(method, update, wanted, factor=5)
    chex.assert_trees_all_close(
        statistics(restricted(away)), statistics(alone), rtol=1e-4, atol=1e-5
    )
    update, back = both.update(gradients(seed=3), away, ALL, steps[3])
    chex.assert_tree_all_finite((update, back))
    if hasattr(back, "task_weights"):
        assert np.all(np.isfinite(mtl.task_weights(back)))


@EACH_ACTIVE
def test_without_an_active_task_nothing_moves(method, given):
    both, extras = masked(method, given), method.extras(T, PARAMS)
    _, before = both.update(gradients(), both.start(), ALL, extras)
    nan = jax.tree.map(lambda g: jnp.full_like(g, jnp.nan), gradients())
    update, after = both.update(nan, before, NONE, extras)
    chex.assert_trees_all_equal(update, PARAMS)
    chex.assert_trees_all_equal(statistics(after), statistics(before))
    if hasattr(after, "task_weights"):
        np.testing.assert_array_equal(mtl.task_weights(after), 0)


@EACH
def test_all_tasks_active_is_the_default(method):
    both, extras = masked(method, False), method.extras(T, PARAMS)
    update, state = both.update(gradients(), both.start(), ALL, extras)
    wanted, plain = expected(method)
    assert_close(method, update, wanted)
    chex.assert_trees_all_close(state, plain, rtol=1e-5, atol=1e-6)


# --- Randomness -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.draw], ids=lambda method: method.name
)
def test_draws_come_from_the_key_in_the_state(method):
    tx = method.make(T)
    update = jax.jit(tx.update)
    start = tx.init(PARAMS)

    def trajectory(state):
        updates = []
        for _ in range(6):
            new, state = update(gradients(), state, PARAMS)
            updates.append(new)
        return updates

    once = trajectory(start)
    chex.assert_trees_all_equal(once, trajectory(start))
    assert len({np.asarray(new["kernel"]).tobytes() for new in once}) > 1
    other = trajectory(method.make(T, key=1).init(PARAMS))
    differ = [
        np.any(a["kernel"] != b["kernel"]) for a, b in zip(once, other, strict=True)
    ]
    assert any(differ)


# --- Beside other transformations -----------------------------------------------------


@EACH
@pytest.mark.slow
def test_partition_gives_the_method_its_own_leaves(method):
    tx = optax.partition(
        {"method": method.make(T), "rest": mtl.unitary(T)},
        {"kernel": "method", "bias": "rest", "scale": "method"},
    )
    extras = method.extras(T, PARAMS)
    stacked = gradients()
    # A leaf that is zero for all tasks changes no inner product.
    apart = {**stacked, "bias": jnp.zeros_like(stacked["bias"])}
    wanted, _ = expected(method, apart, extras)
    if method.draw == "uniforms":
        extras["uniforms"] = {k: extras["uniforms"][k] for k in ("kernel", "scale")}
    update, _ = jax.jit(tx.update)(stacked, tx.init(PARAMS), PARAMS, **extras)
    wanted["bias"] = jnp.sum(stacked["bias"], axis=0)
    assert_close(method, update, wanted)


# --- Sharding over eight devices ------------------------------------------------------

SPECS = {
    "kernel": PartitionSpec("data", None),
    "bias": PartitionSpec("data"),
    "scale": PartitionSpec(),
}


def put(tree, mesh, lead=()):
    """The tree on the mesh, parameter axes sharded, `lead` for axes before them."""
    return {
        name: jax.device_put(
            leaf, NamedSharding(mesh, PartitionSpec(*lead, *SPECS[name]))
        )
        for name, leaf in tree.items()
    }


def reduced_sizes(text):
    """Number of elements of each result of each all-reduce in the compiled program."""
    shapes = [
        shape
        for line in text.splitlines()
        for results in re.findall(r"= (.*?) all-reduce(?:-start)?\(", line)
        for shape in re.findall(r"\w+\[([\d,]*)\]", results)
    ]
    return [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


@EACH
@pytest.mark.parametrize(
    "axis_type",
    [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.optimized
def test_sharded_parameters_stay_where_they_are(method, axis_type):
    wanted, _ = expected(method)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        params, stacked = put(PARAMS, mesh), put(gradients(), mesh, (None,))
        extras = method.extras(T, PARAMS)
        if method.draw == "uniforms":
            extras["uniforms"] = put(extras["uniforms"], mesh)
        tx, update = updater(method)
        state = jax.jit(tx.init)(params)
        program = jax.jit(update).lower(stacked, state, params, extras).compile()
        got, new = program(stacked, state, params, extras)
    assert_close(method, jax.device_get(got), jax.device_get(wanted))
    for mine, given in zip(*map(jax.tree.leaves, (got, params)), strict=True):
        assert mine.sharding.is_equivalent_to(given.sharding, mine.ndim)
        if axis_type == AxisType.Explicit:
            assert jax.typeof(mine) == jax.typeof(given)
    if axis_type == AxisType.Explicit:
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    text = program.as_text()
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    assert max(reduced_sizes(text), default=0) <= T * T
    assert reduced_sizes(text) or method.family != "gramian"
