"""The study of architectures: its networks, its clock, its rules, and its command."""

import csv
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.study import arch, arch_cost, arch_scores, cli, programs, runner, studies
from mtl_optax.study.arch_networks import ARCHITECTURES
from mtl_optax.study.compare import lanes
from mtl_optax.study.data import TASKS
from mtl_optax.study.model import cross_entropy
from mtl_optax.study.problem import Clock, Metric, Problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.verdicts import arch as verdicts

NAMES = tuple(TASKS)


@pytest.fixture(scope="module")
def problems():
    return {name: arch.digits(name, own) for name, own in ARCHITECTURES.items()}


def few(problem, count=16):
    return jax.tree.map(lambda x: jnp.asarray(x[:count]), problem.splits["train"])


# --- Networks -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.slow
def test_every_architecture_answers_all_tasks(name, problems):
    build = ARCHITECTURES[name].build
    images = jnp.ones((3, 144))
    found = jax.eval_shape(lambda: build(TASKS, rngs=nnx.Rngs(0))(images))
    assert {t: found[t].shape for t in found} == {t: (3, n) for t, n in TASKS.items()}
    problem = problems[name]
    params = jax.eval_shape(lambda: problem.init(0))
    clock = (Clock(0.5, jax.random.key(0)),) if problem.clocked else ()
    losses = jax.eval_shape(lambda p: problem.losses(p, few(problem), *clock), params)
    assert [x.shape for x in losses] == [()] * 4
    owners = jax.tree.leaves(problem.owner(params), is_leaf=lambda x: x is None)
    assert set(owners) == {None, 0, 1, 2, 3}


@pytest.mark.slow
def test_hard_sharing_is_the_network_of_transfer(problems):
    ours, theirs = problems["hard_sharing"], studies.TRANSFER.problem()
    batch = few(ours)
    found = [problem.losses(problem.init(3), batch) for problem in (ours, theirs)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["dselect_k", "self_auxiliary"])
@pytest.mark.slow
def test_auxiliary_terms_are_in_the_loss_of_their_task(name, problems):
    problem, batch = problems[name], few(problems[name])
    net = ARCHITECTURES[name].build(TASKS, rngs=nnx.Rngs(0))
    main = {
        task: cross_entropy(z, batch.labels[:, NAMES.index(task)])
        for task, z in net(batch.images).items()
    }
    if name == "dselect_k":
        terms = net.with_auxiliary(batch.images)[1]
    else:
        terms = {
            task: cross_entropy(tower(h), batch.labels[:, NAMES.index(task)])
            for task, h in net.base.representations(batch.images).items()
            for tower in [net.own[task]]
        }
    assert all(terms[task] > 0 for task in TASKS)
    np.testing.assert_allclose(
        problem.losses(problem.init(0), batch),
        [main[task] + terms[task] for task in TASKS],
        rtol=1e-6,
    )


@pytest.mark.slow
def test_branches_are_drawn_in_training_only(problems):
    problem, batch = problems["ltb"], few(problems["ltb"])
    params = problem.init(0)

    def losses(progress, seed):
        return problem.losses(params, batch, Clock(progress, jax.random.key(seed)))

    # In the warm-up all copies are summed up.
    np.testing.assert_array_equal(losses(0.0, 0), losses(0.0, 1))
    assert any(a != b for a, b in zip(losses(0.5, 0), losses(0.5, 1), strict=True))
    first, second = (problem.evaluate(params, batch)["accuracy"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_controls_are_no_smaller(problems):
    sizes = {name: arch_cost.size(problem) for name, problem in problems.items()}
    costs = {name: SimpleNamespace(size=size) for name, size in sizes.items()}
    view = arch_scores.View(problems, costs, None)
    found = {name: view.control(name) for name in problems}
    six = {"cgc", "ple", "ple_no_shared_gate"}
    for name, control in found.items():
        if name.startswith("hard_sharing"):
            assert control is None
        else:
            assert control == ("hard_sharing_x6" if name in six else "hard_sharing_x4")
    assert sizes["hard_sharing"] == (28_376, 26_816)
    assert arch_cost.single_nets(sizes["hard_sharing"], 4) == 108_824
    assert sizes["cgc"].own > 4 * sizes["hard_sharing"].shared


# --- Clock ----------------------------------------------------------------------------


def clocked(params, batch, clock):
    del params, batch
    return clock.progress, jax.random.uniform(clock.key)


def test_losses_see_the_progress_and_a_key_of_run_and_step(monkeypatch):
    monkeypatch.setattr(programs, "CHUNK", 2)  # three chunks
    problem = Problem(
        name="clocked",
        tasks=("progress", "draw"),
        splits={},
        init=lambda seed: {"trunk": jnp.ones(2)},
        losses=clocked,
        metrics=(Metric("none", ""),),
        evaluate=lambda params, split: {},
        owner=lambda params: {"trunk": None},
        clocked=True,
    )
    settings = Settings(("unitary",), seeds=2, steps=6)
    work = {"unitary": lanes(2, (1,), settings, "unitary")}
    run = runner.train_all(problem, work, settings.recipe(), lambda *event: None)
    losses = run["unitary"].record.losses  # [steps, runs, T]
    expected = np.tile(np.arange(6)[:, None] / 6, (1, 2))
    np.testing.assert_allclose(losses[:, :, 0], expected, rtol=1e-6)
    assert len(np.unique(losses[:, :, 1])) == 12


# --- Verdicts -------------------------------------------------------------------------


def points(*means):
    """Three seeds around these means, a task each."""
    return np.array(means)[None, :] + np.array([[-0.1], [0.0], [0.1]])


SINGLE = points(90.0, 90.0, 90.0, 90.0)
SHARED = points(84.0, 84.0, 87.0, 89.5)


def test_words_of_the_rule():
    own = points(89.0, 86.0, 86.9, 87.0)
    own[:, 2] = [83.0, 92.0, 90.0]  # near its own net on average, and never sure
    found = verdicts.words(verdicts.Scores(own, SHARED, SINGLE), NAMES)
    assert found == dict(
        zip(NAMES, ("repaired", "in part", "open", "harmed"), strict=True)
    )
    same = verdicts.words(verdicts.Scores(SHARED, SHARED, SINGLE), NAMES)
    assert same == dict.fromkeys(NAMES[:3], "not repaired")
    one = verdicts.Scores(own[:1] + 9, SHARED[:1], SINGLE[:1])
    assert set(verdicts.words(one, NAMES).values()) == {"open"}  # no interval


def test_words_on_size():
    down = points(-1.0)[:, 0]
    words = [verdicts.beyond_size(x) for x in (down, -down, 0.01 + 0 * down - down - 1)]
    assert words == ["more", "less", "as much"]
    assert verdicts.beyond_size(down[:1]) == "unknown"


def test_statement():
    own = points(89.0, 86.0, 88.5, 87.0)
    scores = {
        "hard_sharing": verdicts.Scores(SHARED, SHARED, SINGLE),
        "good": verdicts.Scores(own, SHARED, SINGLE),
    }
    text = verdicts.statement(scores, {"good": "less"}, NAMES)
    assert "left -6.00" in text
    assert "greater -0.50" not in text
    assert "left is repaired: good." in text
    assert "right is in part: good." in text
    assert "Tasks that lose elsewhere only: good (greater)." in text
    ending = "Do more than hard sharing of their size: none. Do less: good."
    assert text.endswith(ending)
    fine = {"hard_sharing": verdicts.Scores(SINGLE, SINGLE, SINGLE)}
    assert verdicts.statement(fine, {}, NAMES).startswith("No negative transfer")


def results_with(metrics, measures, rates=(3e-3, 1e-2), chosen=1):
    """Of a part; metrics are method -> name -> [candidates, seeds, T]."""
    outcomes = {
        method: SimpleNamespace(
            chosen=np.array([chosen]),
            metrics={"test": {name: x[:, None] for name, x in named.items()}},
        )
        for method, named in metrics.items()
    }
    settings = Settings(tuple(metrics), learning_rates=rates)
    problem = SimpleNamespace(
        metrics=(Metric("skill", "%"),), measures=measures, reported_on="test"
    )
    return SimpleNamespace(
        outcomes=outcomes, problem=problem, settings=settings, tasks=("a", "b")
    )


def test_delta_m_takes_metrics_with_their_directions():
    base = np.full((2, 3, 2), 4.0)
    skill = np.full((2, 3, 2), 50.0)
    own = base.copy()
    own[0] = [5.0, 3.0]  # the first rate: both better, by a quarter
    measures = Metric("one", ""), Metric("two", "", higher_is_better=False)
    first = results_with(
        {
            "unitary": {"skill": skill, "measure": own},
            "single_task": {"skill": skill, "measure": base},
        },
        measures,
    )
    fixed, best = arch_scores.views({"first": first}, {})
    np.testing.assert_allclose(fixed.delta_m("first"), [-25.0] * 3)
    np.testing.assert_allclose(best.delta_m("first"), [0.0] * 3)
    assert [view.rate for view in arch_scores.views({"x": first}, {})] == [3e-3, None]
    one = results_with({"unitary": {"skill": skill}}, (), rates=(1e-2,))
    assert [view.rate for view in arch_scores.views({"x": one}, {})] == [None]


# --- Command --------------------------------------------------------------------------


@pytest.mark.slow
def test_command_writes_one_page_on_all(tmp_path, monkeypatch, capsys):
    parts = [
        own._replace(quick=own.quick._replace(steps=2))
        for own in arch.SUITE.parts
        if own.name in ("hard_sharing", "hard_sharing_x4", "ltb")
    ]
    suite = arch.SUITE._replace(quick=tuple(parts))
    monkeypatch.setitem(studies.STUDIES, "arch", suite)
    monkeypatch.setattr(arch_cost, "QUICK_ROUNDS", 1)
    assert cli.main(["study", "arch", "--quick", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    for text in ("Negative transfer in hard_sharing", "108,824", "VMTL"):
        assert text in " ".join(shown.split())
        assert text in page
    assert page.count("<img") == 2
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["parts"]) == {own.name for own in parts}
    with open(tmp_path / "cost.csv", newline="") as file:
        costs = list(csv.DictReader(file))
    assert [row["parameters"] for row in costs] == ["28376", "113372", "108840"]
    assert costs[0]["cpu_ratio"] == "1.0000"
    with open(tmp_path / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(tmp_path / "ltb" / "metrics.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    for rates, kept in (("0.003", "0.003"), ("best", None)):
        row = next(
            x
            for x in rows
            if (x["rates"], x["architecture"], x["task"]) == (rates, "ltb", "parity")
        )
        values = [
            float(x["accuracy"])
            for x in runs
            if (x["split"], x["task"]) == ("test", "parity")
            and (x["learning_rate"] == kept if kept else x["chosen"] == "1")
        ]
        assert len(values) == 2
        assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-4)
