"""The study of small towers: its runs, what it counts, and what it writes."""

import csv
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.studies.towers import problem as towers_problem
from benchmarks.studies.towers import rule, study
from mtl_optax.study.command import cli
from mtl_optax.study.data.digits import multi_digits
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, programs
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import MethodResult, PartResult

problem_of = cache(towers_problem.problem)
NOTHING = MethodResult(*(None,) * len(MethodResult._fields))
NOW = Now(0.0, jax.random.key(0))


def first(split, number):
    return jax.tree.map(lambda x: x[:number], split)


def test_few_scans_are_among_all_and_the_other_splits_stay():
    few, whole = multi_digits(2, train_scans=100), multi_digits(2)
    scans = {tuple(x[:8]) for x in few["train"].images}  # first rows of left digits
    assert len(scans) <= 100 < len({tuple(x[:8]) for x in whole["train"].images})
    for name in ("val", "test"):
        np.testing.assert_array_equal(few[name].labels, whole[name].labels)


@pytest.mark.optimized
@pytest.mark.slow
def test_runs_evaluated_together_are_those_evaluated_alone():
    """One float32 sum of many lanes is wrong in some of XLA's programs."""
    problem = problem_of("few", 0)
    split = problem.splits["test"]
    params = [
        jax.tree.map(lambda x, i=i: x * (1 + i / 10), problem.init(0)[0])
        for i in range(20)
    ]
    rest = (), split, NOW.key
    together = jax.jit(jax.vmap(problem.evaluate, in_axes=(0, None, None, None)))(
        jax.tree.map(lambda *x: jnp.stack(x), *params), *rest
    )
    alone = jax.jit(problem.evaluate)
    for i in (0, 10, 16, 19):
        for name, values in alone(params[i], *rest).items():
            np.testing.assert_allclose(together[name][i], values, rtol=1e-5)


def test_evaluation_does_not_read_the_auxiliary_towers():
    problem = problem_of("few", 16)
    (params, _), split = problem.init(0), first(problem.splits["test"], 64)
    jaxpr = jax.make_jaxpr(problem.evaluate)(params, (), split, NOW.key)
    used = {v for eqn in jaxpr.eqns for v in eqn.invars if not hasattr(v, "val")}
    owned = {
        jax.tree_util.keystr(path): variable in used
        for (path, _), variable in zip(
            jax.tree_util.tree_leaves_with_path(params),
            jaxpr.jaxpr.invars,
            strict=False,
        )
    }
    for name, is_used in owned.items():
        assert is_used != name.startswith("['own']"), name


@pytest.mark.slow
def test_gamma_and_task_weights_are_lanes():
    """gamma goes to the losses, the weight to the method, both by their names."""
    problem = problem_of("few", 16)
    (start, _), batch = problem.init(0), first(problem.splits["train"], 64)
    one = jax.jit(lambda **x: problem.losses(start, (), batch, NOW, **x)[0])
    plain, terms = (np.array(one(**x)) for x in ({}, {"gamma": 1.0}))
    gammas = np.array([0.0, 1.0, 3.0])
    lanes = Lanes(
        np.zeros(3, np.int32),
        np.full(3, 0.01),
        *(np.ones((3, 2)),) * 2,
        {"gamma": gammas, "later": np.array([1.0, 1.0, 0.5])},
    )
    method = study.STUDY.parts[0].known["self_auxiliary"]
    init, advance = programs(problem, method, Recipe(1, schedule="constant"))
    params = jax.tree.map(lambda x: jnp.stack([x] * 3), start)
    indices = np.broadcast_to(np.arange(64, dtype=np.int32), (1, 3, 64))
    carry = Carry(params, (), init(params, lanes))
    _, log = jax.jit(advance, static_argnums=4)(
        carry, indices, problem.splits["train"], lanes, 1
    )
    wanted = plain[None] + gammas[:, None] * (terms - plain)[None]
    np.testing.assert_allclose(log.losses[0], wanted, rtol=1e-4)
    weights = [[1, 1], [1, 1], [1, 0.5]]
    np.testing.assert_allclose(log.task_weights[0], weights)


def test_hypervolume_by_hand():
    points = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [5.0, 0.0], [3.5, 1.0]])
    # 3 x 1 + 2 x 1 + 0.5 x 1 of the square of side 4; two points add nothing
    assert rule.hypervolume(points, 4.0) == pytest.approx(5.5 / 16)
    assert rule.hypervolume(points[::-1], 4.0) == pytest.approx(5.5 / 16)
    assert rule.hypervolume(points[3:4], 4.0) == 0


def result_of(**methods):
    grids = {
        "weighted": {"later": (1.0,)},
        "self_auxiliary": {"gamma": (0.1, 1.0), "later": (1.0,)},
    }
    settings = Settings(tuple(grids), grids=grids)
    part = study.STUDY.parts[-1]
    return PartResult("towers", part, None, settings, methods, None)


def test_gamma_of_the_front_is_chosen_on_the_other_seeds():
    best = rule.WORST
    share = lambda *v: np.array(v)[:, None, :, None] * best  # noqa: E731

    def method(val, test):
        both = {"val": val, "test": test}
        return NOTHING._replace(
            metrics={
                name: {"loss": np.broadcast_to(x, (*x.shape[:3], 2))}
                for name, x in both.items()
            }
        )

    # Seed 0 alone likes gamma 1, the others like 0.1.
    val = share([0.5, 0.1, 0.1], [0.0, 0.2, 0.2])
    test = share([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    plain = method(val[:1], test[1:])
    found = rule.front(result_of(weighted=plain, self_auxiliary=method(val, test)))
    assert found.gammas == (0.0, 0.1, 1.0)
    assert found.losses.shape == (3, 1, 3, 2)
    np.testing.assert_allclose(found.volume[0], [36, 25, 16], rtol=1e-6)
    np.testing.assert_allclose(found.chosen, [81, 25, 16], rtol=1e-6)
    val, test = val[:, :, :1], test[:, :, :1]
    plain = method(val[:1], test[1:])
    alone = rule.front(result_of(weighted=plain, self_auxiliary=method(val, test)))
    assert alone.chosen is None  # there is no other seed
    np.testing.assert_allclose(alone.volume[0], [36], rtol=1e-6)


def test_methods_of_towers_are_known_to_their_study_only(capsys):
    assert cli.main(["study", "null", "--methods", "self_auxiliary"]) == 2
    assert cli.main(["study", "towers", "--methods", "unitary"]) == 2
    assert "of their own" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run(tmp_path, capsys, monkeypatch):
    parts = (study.part("few", 16), study.front("few", 16))
    quick = tuple(x._replace(quick=x.quick._replace(steps=4, points=2)) for x in parts)
    monkeypatch.setattr(study, "STUDY", study.STUDY._replace(quick=quick))
    assert cli.main(["study", "towers", "--quick", "--out", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    config = json.loads((tmp_path / "config.json").read_text())
    for sentence in config["words"]:
        assert sentence in shown
    assert set(config["parts"]) == {"few_16", "front"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2  # methods, seeds, tasks
    for row in rows:
        gap = float(row["test loss"]) - float(row["train loss"])
        assert float(row["gap"]) == pytest.approx(gap, abs=2e-4)
    assert {(row["method"], row["gamma"] == "0") for row in rows} == {
        ("unitary", True),
        ("self_auxiliary", False),
    }
