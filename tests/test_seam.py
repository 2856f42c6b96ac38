"""The seam between gradients and methods: one door, and imports that point one way."""

import ast
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl
from mtl_optax.core.task_grads.as_task_grads import as_task_grads

PACKAGE = pathlib.Path(mtl.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
# What each folder of core may import from core, itself aside.
BELOW = {
    "trees": set(),
    "solvers": set(),
    "arguments": {"trees"},
    "layerwise": {"trees"},
    "task_grads": {"trees", "arguments", "layerwise"},
    "per_sample": {"trees", "arguments", "layerwise", "task_grads"},
    "chains": {"arguments", "task_grads"},
}


def imported(path):
    """The modules that a file imports, each with what it takes of it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from names


@pytest.mark.parametrize("folder", BELOW)
def test_nothing_in_core_imports_upwards(folder):
    files = sorted((PACKAGE / "core" / folder).glob("*.py"))
    assert files
    allowed = {f"mtl_optax.core.{name}." for name in (folder, *BELOW[folder])}
    for path in files:
        ours = [name for name in imported(path) if name.startswith("mtl_optax")]
        for name in ours:
            assert any(name.startswith(prefix) for prefix in allowed), (path, name)


def test_core_imports_no_method_and_no_flax():
    for path in (PACKAGE / "core").rglob("*.py"):
        for name in imported(path):
            assert not name.startswith("flax"), (path, name)
            ours = name.startswith("mtl_optax")
            assert not ours or name.startswith("mtl_optax.core."), (path, name)


def test_who_needs_flax():
    """As CONTRIBUTING, `flax_support` and `nn` say."""
    needing = {"flax": set(), "mtl_optax.nn": set()}
    for path in SOURCES:
        folder = path.relative_to(PACKAGE).parts[0]
        for name in imported(path):
            for package, users in needing.items():
                if f"{name}.".startswith(f"{package}."):
                    users.add(folder)
    assert needing["flax"] == {"flax_support.py", "nn", "rl", "study", "training"}
    assert needing["mtl_optax.nn"] == {"nn", "rl", "study", "training"}


def test_one_file_asks_in_which_form_gradients_come():
    def asks(path):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            call = isinstance(node, ast.Call) and ast.unparse(node)
            if call and call.startswith("isinstance("):
                yield from (form for form in FORMS if form in call)

    FORMS = ("LazyTaskGrads", "FeatureTaskGrads", "Deferred")
    asking = {path.name for path in SOURCES if list(asks(path))}
    assert asking == {"as_task_grads.py"}


T = 3
PARAMS = {"w": jnp.zeros((4, 2)), "b": jnp.zeros(2)}
ACTIVE = jnp.array([True, False, True])
WEIGHTS = jnp.array([0.5, 0.0, -2.0])


def losses_fn(params):
    rows = np.random.default_rng(0).standard_normal((T, 10)).astype(np.float32)
    flat = jnp.concatenate([jnp.ravel(params["w"]), params["b"]])
    return {f"task{t}": 1.0 + t + jnp.vdot(rows[t], flat) for t in range(T)}


def given(form):
    losses, stacked = mtl.task_grads(losses_fn)(PARAMS)
    if form == "stacked":
        return as_task_grads(stacked, T, PARAMS, losses=losses, active=ACTIVE)
    lazy = mtl.lazy_task_grads(losses_fn)(PARAMS)[1]
    lazily = as_task_grads(lazy, T, PARAMS, active=ACTIVE)
    return lazily.computed() if form == "rows" else lazily


FORMS = ("stacked", "rows", "lazy")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_every_form_answers_alike(form):
    gradients = given(form)
    stack = mtl.task_grads(losses_fn)(PARAMS)[1]
    stack = jax.tree.map(lambda g: g.at[1].set(0), stack)
    mixing = jnp.array([[1.0, 5.0, -1.0], [0.0, 0.0, 2.0]])
    close = {"rtol": 1e-5, "atol": 1e-6}
    assert gradients.num_tasks == T
    np.testing.assert_array_equal(gradients.losses, [1.0, 1.0, 3.0])
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients.like(), PARAMS)
    chex.assert_trees_all_close(gradients.stack(), stack, **close)
    chex.assert_trees_all_close(gradients.gramian(), mtl.gramian(stack), **close)
    wanted = mtl.combine(stack, WEIGHTS)
    chex.assert_trees_all_close(gradients.pull(WEIGHTS), wanted, **close)
    mixed = gradients.mix(mixing)
    for s in range(2):
        row = mtl.combine(stack, mixing[s])
        chex.assert_trees_all_close(mixed.row(s), row, **close)
    for t in range(T):
        row = jax.tree.map(lambda g, t=t: g[t], stack)
        chex.assert_trees_all_close(gradients.row(t), row, **close)
    by_leaf = gradients.pull(jnp.stack([WEIGHTS, 2 * WEIGHTS]), (0, 1))
    doubled = {"b": wanted["b"], "w": 2 * wanted["w"]}
    chex.assert_trees_all_close(by_leaf, doubled, **close)
    each = gradients.gramian((0, 1))
    chex.assert_trees_all_close(each.sum(0), mtl.gramian(stack), **close)


@pytest.mark.parametrize("form", FORMS)
def test_the_door_may_be_passed_twice(form):
    once = given(form)
    twice = as_task_grads(once, T, PARAMS)
    np.testing.assert_array_equal(twice.losses, once.losses)
    np.testing.assert_array_equal(twice.active, once.active)
    assert twice.names == once.names
    chex.assert_trees_all_equal(twice.pull(WEIGHTS), once.pull(WEIGHTS))


@pytest.mark.parametrize("form", FORMS)
def test_selected_leaves(form):
    selected = given(form).select((True, False))
    assert jax.tree.map(jnp.shape, selected.like())["b"] == (2,)
    assert len(jax.tree.leaves(selected.like())) == 1
    update = selected.pull(WEIGHTS)
    np.testing.assert_allclose(update["b"], given(form).pull(WEIGHTS)["b"], rtol=1e-5)


def test_lazy_gradients_know_their_names():
    lazy = mtl.lazy_task_grads(losses_fn)(PARAMS)[1]
    assert as_task_grads(lazy, T, PARAMS).names == ("task0", "task1", "task2")
    with pytest.raises(ValueError, match="named differently"):
        as_task_grads(lazy, T, PARAMS, losses={"a": 1.0, "b": 1.0, "c": 1.0})


def test_combine_compares_names():
    lazy = mtl.lazy_task_grads(losses_fn)(PARAMS)[1]
    other = dict.fromkeys("abc", True)
    with pytest.raises(ValueError, match="named differently"):
        mtl.combine(lazy, jnp.ones(T), active=other)
    with pytest.raises(ValueError, match="named differently"):
        mtl.combine(lazy.stack(), dict.fromkeys("abd", 1.0), active=other)


@pytest.mark.parametrize("old", ["precomputed_gramian", "cross_gramian"])
@pytest.mark.parametrize("name", ["trimmed_mean", "moco", "unitary"])
def test_arguments_of_former_versions_raise_in_every_family(name, old):
    tx = getattr(mtl, name)(T)
    stacked = mtl.task_grads(losses_fn)(PARAMS)[1]
    with pytest.raises(ValueError, match=f"{old}= is now gramian="):
        tx.update(stacked, tx.init(PARAMS), PARAMS, **{old: jnp.eye(T)})


def test_a_method_is_no_weighting():
    cure = r"mtl_optax.mgda.weighting\(\)"
    for wrong in (mtl.mgda, mtl.mgda(T), mtl.mgda.weighting):
        for wrap in (
            lambda w: mtl.from_weighting(w, T),
            lambda w: mtl.every_k(w, 2),
            mtl.cr_mogm,
        ):
            with pytest.raises(ValueError, match=cure):
                wrap(wrong)


@pytest.mark.parametrize("weights", [jnp.ones((T, 1)), jnp.ones(1), [1.0, 2.0]])
def test_a_weighting_that_returns_something_else(weights):
    rule = mtl.Weighting(lambda t: (), lambda gramian, state, **_: (weights, state))
    tx = mtl.from_weighting(rule, T)
    stacked = mtl.task_grads(losses_fn)(PARAMS)[1]
    with pytest.raises(ValueError, match="must return one weight a task"):
        tx.update(stacked, tx.init(PARAMS), PARAMS)


def test_weights_of_other_types_become_those_of_the_state():
    def rule(dtype):
        ones = jnp.ones(T, dtype)
        return mtl.Weighting(lambda t: (), lambda gramian, state, **_: (ones, state))

    stacked = mtl.task_grads(losses_fn)(PARAMS)[1]
    for dtype in ("int32", "bfloat16"):
        tx = mtl.from_weighting(rule(dtype), T)
        state = tx.init(PARAMS)
        update, new = tx.update(stacked, state, PARAMS)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        chex.assert_trees_all_close(update, mtl.combine(stacked, jnp.ones(T)))
