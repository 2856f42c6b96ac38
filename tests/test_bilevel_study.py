"""The study of bilevel weights, and the second batch that the engine hands over."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.studies.bilevel import problem as damaged
from benchmarks.studies.bilevel import rule
from benchmarks.studies.bilevel.figure import weights
from benchmarks.studies.bilevel.study import STUDY
from mtl_optax.study.data.digits import Split
from mtl_optax.study.engine import checks
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.problem import stateless
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, programs
from mtl_optax.study.engine.transformations import OnTwoBatches

Own = namedtuple("Own", "score readings")


def line(**changes):
    """Training data are below zero, and those of validation their own numbers."""
    fields = {
        "name": "line",
        "tasks": ("a", "b"),
        "splits": {"train": -np.ones(8, np.float32), "val": np.arange(1.0, 1001.0)},
        "init": lambda seed: jnp.zeros(()),
        "losses": lambda p, batch: (jnp.mean(batch) + p, 0 * p),
        "metrics": (),
        "evaluate": lambda params, split: {},
        "owner": lambda params: None,
    }
    return stateless(**{**fields, **changes})


def seen_by(method, steps=3, seeds=(0, 1)):
    """The parameter after each step of each lane."""

    def update(updates, state, params=None, *, validation_losses_fn=None, **extra):
        del updates, extra
        if validation_losses_fn is None:
            return jnp.zeros(()), state
        return validation_losses_fn(0 * params)[0] - params, state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    made = method(lambda of: tx)
    problem = line(watch=lambda params, state: params)
    data = jax.tree.map(jnp.asarray, problem.splits)
    lanes = Lanes(np.array(seeds), *np.ones((3, len(seeds), 2)), {})
    lanes = lanes._replace(learning_rate=np.ones(len(seeds)))
    init, advance = programs(problem, made, Recipe(steps, batch_size=4))
    params = jnp.zeros(len(seeds))
    carry = Carry(params, (), init(params, lanes))
    batches = np.zeros((steps, len(seeds), 4), int)
    two = isinstance(made, OnTwoBatches)
    given = (data["train"], data["val"]) if two else data["train"]
    return np.asarray(advance(carry, batches, given, lanes, steps)[1].watched)


def test_a_method_on_two_batches_sees_the_validation_split():
    found = seen_by(OnTwoBatches)
    assert (found > 1).all()  # means of four of 1, 2, ..., 1000
    assert len(np.unique(found)) == found.size  # other ones at each step and seed
    np.testing.assert_array_equal(seen_by(OnTwoBatches, seeds=(1,))[:, 0], found[:, 1])
    assert not seen_by(lambda method: method).any()  # others are handed none


def test_a_problem_without_validation_data_says_so():
    of_two = line(splits={"train": np.ones(2), "test": np.ones(2)})
    with pytest.raises(ValueError, match=r"moml learns from a second batch.*'val'"):
        checks.held_out(of_two, "moml")
    assert checks.held_out(line(splits={"end": None}), "moml") is None
    assert isinstance(METHODS["moml"], OnTwoBatches)


def test_labels_of_one_task_are_wrong_and_of_no_other():
    labels = np.stack([np.arange(100) % 10] * 4, axis=1)
    split = damaged.with_wrong_labels(Split(np.zeros((100, 1)), labels), share=0.8)
    changed = split.labels != labels
    assert changed.sum(axis=0).tolist() == [0, 80, 0, 0]
    assert set(np.unique(split.labels)) <= set(range(10))


def test_the_primary_task_decides():
    tasks, up = ("left", "right"), np.array([0.0, 0.1, 0.2])
    better = np.stack([90 + up, 10 - up], axis=1)[None]
    worse = np.stack([80 + up[::-1], 90 + up], axis=1)[None]
    results = {"unitary": Own(worse, {}), "moml": Own(better, {})}
    found = rule.judge(results, tasks)
    assert found.verdicts == {"unitary": "baseline", "moml": "better"}
    assert "moml, better: left 90.10 %, +10.00 [" in found.sentences["moml"]
    assert "unitary, baseline: left 80.10 %." in found.sentences["unitary"]
    assert found.statement == "Against unitary, left is: moml better."
    assert "possible without" in rule.judge({"moml": Own(better, {})}, tasks).statement


def test_weights_are_drawn_where_they_move():
    moving = np.linspace(0, 1, 8).reshape(2, 1, 2, 2)  # [records, scales, seeds, T]
    part = STUDY.parts[0]
    result = namedtuple("Result", "methods tasks settings")(
        {
            "unitary": Own(None, {"task_weights": np.ones_like(moving)}),
            "moml": Own(None, {"task_weights": moving}),
            "forum": Own(
                None, {"task_weights": 0 * moving, "objective_weights": moving}
            ),
        },
        ("left", "right"),
        part.settings,
    )
    drawn = weights(result)
    assert [ax.get_title() for ax in drawn.figure.axes] == ["moml", "forum"]
    assert "moml, forum" in drawn.caption
    assert weights(result._replace(methods={})) is None
