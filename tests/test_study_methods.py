"""The study's model, its table of methods, and how they look."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax
from mtl_optax.study import studies
from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.data.digits import Split
from mtl_optax.study.engine import methods
from mtl_optax.study.engine.problem import stateless
from mtl_optax.study.engine.transformations import Ingredients, OnTwoBatches
from mtl_optax.study.report import styles


def test_only_the_trunk_is_shared():
    problem = digits_problem(4)
    params, _ = jax.eval_shape(lambda: problem.init(0))
    mask = jax.tree_util.tree_leaves_with_path(problem.shared(params))
    shared = {jax.tree_util.keystr(path) for path, is_shared in mask if is_shared}
    assert len(mask) == 2 * 2 + 4 * 2
    assert len(shared) == 4
    assert all("trunk" in path for path in shared)
    assert not any("trunk" in jax.tree_util.keystr(p) for p, yes in mask if not yes)


def test_the_table_has_every_public_method_or_the_reason_why_not():
    public = {
        name
        for name in mtl_optax.__all__
        if getattr(getattr(mtl_optax, name), "__module__", "").startswith(
            "mtl_optax.from_"
        )
    }
    assert not set(methods.METHODS) & set(methods.LEFT_OUT)
    assert public <= set(methods.METHODS) | set(methods.LEFT_OUT)
    assert set(methods.LEFT_OUT) <= public
    assert all(methods.LEFT_OUT.values())
    assert methods.ALL not in methods.METHODS


OWN = {
    f"{part.name}: {name}": method
    for study in map(studies.load, studies.STUDIES)
    for part in study.parts
    for name, method in part.methods.items()
}


@pytest.mark.parametrize("name", [*methods.METHODS, *OWN])
def test_every_known_method_trains(name):
    params = {"trunk": jnp.ones(3), "head": jnp.ones(2)}

    def two_losses(params):
        trunk = jnp.sum(params["trunk"] ** 2)
        return trunk, trunk + jnp.sum(params["head"] ** 2)

    def step(seed, trained):
        problem = two_leaves()
        of = Ingredients(problem, optax.sgd(0.1), jax.random.key(seed), trained)
        method = {**methods.METHODS, **OWN}[name]
        tx = optax.with_extra_args_support(method(of))
        losses, grads = mtl_optax.lazy_task_grads(two_losses)(params)
        extra = {"losses": losses, "losses_fn": two_losses}
        if isinstance(method, OnTwoBatches):
            extra["validation_losses_fn"] = two_losses
        return tx.update(grads, tx.init(params), params, **extra)[0]

    new = jax.eval_shape(step, jnp.int32(0), jnp.array([1.0, 0.0]))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, params)


def two_leaves():
    """Enough of a problem to build methods: a shared leaf, and a head of task 1."""
    return stateless(
        name="two leaves",
        tasks=("first", "second"),
        splits={"train": Split(np.zeros((256, 1)), np.zeros((256, 2), int))},
        init=lambda seed: None,
        losses=lambda params, batch: (),
        metrics=(),
        evaluate=lambda params, split: {},
        owner=lambda params: {"trunk": None, "head": 1},
        strength_fn=lambda params, state: {"trunk": jnp.ones((2, 3)), "head": None},
    )


def test_single_task_leaves_the_other_head_alone():
    params = {"trunk": jnp.zeros(1), "head": jnp.zeros(1)}
    grads = {"trunk": jnp.array([[1.0], [2.0]]), "head": jnp.array([[0.0], [4.0]])}

    def moved(trained):
        key, identity = jax.random.key(0), optax.identity()
        of = Ingredients(two_leaves(), identity, key, jnp.array(trained))
        tx = methods.METHODS[methods.SINGLE_TASK](of)
        new, _ = tx.update(grads, tx.init(params), params)
        return float(new["trunk"][0]), float(new["head"][0])

    assert moved([1.0, 0.0]) == (1.0, 0.0)
    assert moved([0.0, 1.0]) == (2.0, 4.0)
    assert moved([1.0, 1.0]) == (3.0, 4.0)


def test_methods_can_be_told_apart():
    found = styles.styles([*styles.FIRST, *methods.METHODS, *map(str, range(12))])
    assert set(methods.METHODS) <= set(found)
    looks = [(x.colour, x.marker, str(x.line)) for x in found.values()]
    assert len(set(looks)) == len(looks)
    assert len({look[0] for look in looks[: len(styles.FIRST)]}) == len(styles.FIRST)
    for name, look in found.items():
        if name not in (methods.BASELINE, methods.SINGLE_TASK):
            assert look.colour not in ("#000000", "#7F7F7F")


def test_usual_methods_keep_their_looks_and_others_have_those_of_their_place():
    found = styles.styles(["mine", "cagrad", "unitary", "yours"])
    assert found["unitary"].colour == "#000000"
    assert found["cagrad"] == ("#0072B2", "o", "solid")
    assert found["mine"] == ("#E69F00", "s", styles.DASHES[0])
    assert found["yours"].colour == "#0072B2"
    assert styles.styles(["cagrad"])["cagrad"] == found["cagrad"]
    assert found["mine"].glyph == "■"
