"""The study of architectures: its networks, its clock, its rules, and its command."""

import csv
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from benchmarks.studies.arch import compared, cost, document, rule, study
from benchmarks.studies.arch.networks import ARCHITECTURES
from mtl_optax.study import studies
from mtl_optax.study.command import cli
from mtl_optax.study.data.classification import cross_entropy
from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.engine import program
from mtl_optax.study.engine.blocks import lanes
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.problem import Metric, Now, Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.engine.train import Work, train_all
from mtl_optax.study.report import html
from mtl_optax.study.report.document import Document, Table

NAMES = tuple(TASKS)


@pytest.fixture(scope="module")
def problems():
    return {name: study.digits(name, own) for name, own in ARCHITECTURES.items()}


def few(problem, count=16):
    return jax.tree.map(lambda x: jnp.asarray(x[:count]), problem.splits["train"])


def losses(problem, params, batch, progress=0.5, seed=0):
    now = Now(progress, jax.random.key(seed))
    return problem.losses(params, (), batch, now)[0]


# --- Networks -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.slow
def test_every_architecture_answers_all_tasks(name, problems):
    build = ARCHITECTURES[name].build
    images = jnp.ones((3, 144))
    found = jax.eval_shape(lambda: build(TASKS, rngs=nnx.Rngs(0))(images))
    assert {t: found[t].shape for t in found} == {t: (3, n) for t, n in TASKS.items()}
    problem = problems[name]
    params, state = jax.eval_shape(lambda: problem.init(0))
    assert state == ()
    found = jax.eval_shape(lambda p: losses(problem, p, few(problem)), params)
    assert [x.shape for x in found] == [()] * 4
    owners = jax.tree.leaves(problem.owner(params), is_leaf=lambda x: x is None)
    assert set(owners) == {None, 0, 1, 2, 3}


@pytest.mark.slow
def test_hard_sharing_is_the_network_of_transfer(problems):
    ours, theirs = problems["hard_sharing"], studies.load("transfer").parts[0].problem()
    batch = few(ours)
    found = [losses(problem, problem.init(3)[0], batch) for problem in (ours, theirs)]
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
        losses(problem, problem.init(0)[0], batch),
        [main[task] + terms[task] for task in TASKS],
        rtol=1e-6,
    )
    assert str(problem.loss[0]) == "training loss / nat"  # more than a cross-entropy
    assert str(problems["mmoe"].loss[0]) == "cross-entropy / nat"


@pytest.mark.slow
def test_branches_are_drawn_in_training_only(problems):
    problem, batch = problems["ltb"], few(problems["ltb"])
    params, state = problem.init(0)

    def drawn(progress, seed):
        return losses(problem, params, batch, progress, seed)

    # In the warm-up all copies are summed up.
    np.testing.assert_array_equal(drawn(0.0, 0), drawn(0.0, 1))
    assert any(a != b for a, b in zip(drawn(0.5, 0), drawn(0.5, 1), strict=True))
    keys = map(jax.random.key, range(2))
    found = [problem.evaluate(params, state, batch, key)["accuracy"] for key in keys]
    np.testing.assert_array_equal(*found)


def test_controls_are_no_smaller(problems):
    sizes = {name: cost.size(problem) for name, problem in problems.items()}
    counts = pd.Series({name: size.parameters for name, size in sizes.items()})
    found = compared.controls(counts)
    six = {"cgc", "ple", "ple_no_shared_gate"}
    for name in problems:
        if name.startswith("hard_sharing"):
            assert name not in found
        else:
            wide = "hard_sharing_x6" if name in six else "hard_sharing_x4"
            assert found[name] == wide
    assert sizes["hard_sharing"][:2] == (28_376, 26_816)
    assert sizes["cgc"].own > 4 * sizes["hard_sharing"].shared
    assert compared.controls(counts[["hard_sharing", "cgc"]]) == {}


# --- The moment of a step -------------------------------------------------------------


def of_the_moment(params, state, batch, now):
    del params, batch
    return (now.progress, jax.random.uniform(now.key)), state


def test_losses_see_the_progress_and_a_key_of_run_and_step(monkeypatch):
    monkeypatch.setattr(program, "CHUNK", 2)  # three chunks
    problem = Problem(
        name="moment",
        tasks=("progress", "draw"),
        splits={},
        init=lambda seed: ({"trunk": jnp.ones(2)}, ()),
        losses=of_the_moment,
        metrics=(Metric("none", ""),),
        evaluate=lambda params, state, split, key: {},
        owner=lambda params: {"trunk": None},
    )
    settings = Settings(("unitary",), seeds=2, steps=6)
    own = Work(problem, METHODS["unitary"], lanes(2, (1,), settings, "unitary"))
    run = train_all({"unitary": own}, settings.recipe())
    losses = run["unitary"].log.losses  # [steps, runs, T]
    expected = np.tile(np.arange(6)[:, None] / 6, (1, 2))
    np.testing.assert_allclose(losses[:, :, 0], expected, rtol=1e-6)
    assert len(np.unique(losses[:, :, 1])) == 12


# --- Verdicts -------------------------------------------------------------------------


def points(*means):
    """Three seeds around these means, a task each."""
    return np.array(means)[None, :] + np.array([[-0.1], [0.0], [0.1]])


SINGLE = points(90.0, 90.0, 90.0, 90.0)
SHARED = points(84.0, 84.0, 87.0, 89.5)


def scores(seeds=3, **others):
    """Those of single tasks and of hard sharing before others."""
    every = {"single_task": SINGLE, "hard_sharing": SHARED, **others}
    return {name: own[:seeds] for name, own in every.items()}


def test_words_of_the_rule():
    own = points(89.0, 86.0, 86.9, 87.0)
    own[:, 2] = [83.0, 92.0, 90.0]  # near its own net on average, and never sure
    found = rule.words(scores(own=own, same=SHARED), NAMES)
    words = "repaired", "in part", "open", "harmed"
    assert found["own"] == dict(zip(NAMES, words, strict=True))
    assert found["same"] == dict.fromkeys(NAMES[:3], "not repaired")
    assert found["hard_sharing"] == dict.fromkeys(NAMES[:3], "loses")
    one = rule.words(scores(seeds=1, own=own + 9), NAMES)["own"]
    assert set(one.values()) == {"open"}  # no interval


def test_words_on_size():
    down = points(-1.0)[:, 0]
    words = [rule.beyond_size(x) for x in (down, -down, 0.01 + 0 * down - down - 1)]
    assert words == ["more", "less", "as much"]
    assert rule.beyond_size(down[:1]) == "unknown"


def test_statement():
    own = points(89.0, 86.0, 88.5, 87.0)
    text = rule.statement(scores(good=own), {"good": "less"}, NAMES)
    assert "left -6.00" in text
    assert "greater -0.50" not in text
    assert "left is repaired: good." in text
    assert "right is in part: good." in text
    assert "Tasks that lose elsewhere only: good (greater)." in text
    ending = "Do more than hard sharing of their size: none. Do less: good."
    assert text.endswith(ending)
    fine = {"single_task": SINGLE, "hard_sharing": SINGLE}
    assert rule.statement(fine, {}, NAMES).startswith("No negative transfer")


def test_scores_alone_have_no_verdict():
    own = {
        name: SimpleNamespace(score=score[None])
        for name, score in (("unitary", SHARED), ("single_task", SINGLE))
    }
    both = rule.alone(own, NAMES).sentences
    assert both["single_task"].startswith("single_task: 90.00 % over tasks (left 90.0,")
    assert "In points from single tasks: left -6.00 [-6" in both["unitary"]
    one = rule.alone({"unitary": own["unitary"]}, NAMES)
    each = "left 84.0, right 84.0, parity 87.0, greater 89.5"
    assert one.sentences == {"unitary": f"unitary: 86.12 % over tasks ({each})."}
    assert one.verdicts == {"unitary": "see above"}


def results_with(metrics, measures, rates=(3e-3, 1e-2), chosen=1):
    """Of a part; metrics are method -> name -> [candidates, seeds, T]."""
    settings = Settings(tuple(metrics), learning_rates=rates)
    methods = {
        method: SimpleNamespace(
            candidates=settings.candidates(method),
            chosen=np.array([chosen]),
            metrics={"test": {name: x[:, None] for name, x in named.items()}},
        )
        for method, named in metrics.items()
    }
    problem = SimpleNamespace(
        name="Two, net",
        tasks=("a", "b"),
        metrics=(Metric("skill", "%"),),
        measures=measures,
        reported_on="test",
    )
    return SimpleNamespace(
        methods=methods, problem=problem, settings=settings, tasks=problem.tasks
    )


COSTS = pd.DataFrame({"parameters": [5], "single_tasks": [8]}, index=["first"])


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
    fixed, best = compared.views({"first": first}, COSTS)
    assert (fixed.rate, best.rate) == (3e-3, None)
    assert (fixed.rates["first"], best.rates["first"]) == (3e-3, 1e-2)
    np.testing.assert_allclose(fixed.delta_m["first"], [-25.0] * 3)
    np.testing.assert_allclose(best.delta_m["first"], [0.0] * 3)
    table = fixed.table().set_index(["architecture", "task", "baseline"])["difference"]
    assert table.loc["first", "all", "single_task"] == pytest.approx(-25)
    assert table.loc["first", "a", "single_task"] == 0
    assert len(table) == 3 + 3  # single tasks, and the first against them
    both = {"unitary": {"skill": skill[:1]}, "single_task": {"skill": skill[:1]}}
    (one,) = compared.views(
        {"first": results_with(both, (), rates=(1e-2,), chosen=0)}, COSTS
    )
    assert one.title == "all at the rate 0.01"


def test_the_page_on_both_halves_has_both_credits():
    one = np.full((1, 3, 2), 50.0)
    both = {"unitary": {"skill": one}, "single_task": {"skill": one}}
    own = results_with(both, (), rates=(3e-3,), chosen=0)
    problem = SimpleNamespace(**{**vars(own.problem), "name": "Three, net"})
    other = SimpleNamespace(**{**vars(own), "tasks": ("c", "d"), "problem": problem})
    parts = {"first": own, "second": other}
    columns = "parameters", "shared", "own", "single_tasks"
    columns += "of_single_tasks", "step_cpu_ms", "cpu_ratio", "cpu_lower", "cpu_upper"
    costs = pd.DataFrame(1, index=list(parts), columns=columns)
    documents = {
        name: Document(name, "", [], [], credits=[f"Data of {name}."]) for name in parts
    }
    found = document.document(
        StudyResult(study.STUDY, parts, "", 1.0, costs), documents
    )
    page = html.page(found)
    assert "Data of first." in page
    assert "Data of second." in page
    titles = [block.title for block in found.body if isinstance(block, Table)]
    assert len(titles) == 6
    assert titles[::3] == ["Costs: Two", "Costs: Three"]


# --- Command --------------------------------------------------------------------------


@pytest.mark.slow
def test_command_writes_one_page_on_all(tmp_path, monkeypatch, capsys):
    parts = [
        own._replace(quick=own.quick._replace(steps=2))
        for own in study.STUDY.parts
        if own.name in ("hard_sharing", "hard_sharing_x4", "ltb")
    ]
    monkeypatch.setattr(study, "STUDY", study.STUDY._replace(quick=tuple(parts)))
    monkeypatch.setattr(cost, "QUICK_ROUNDS", 1)
    assert cli.main(["study", "arch", "--quick", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    for text in ("Negative transfer in hard_sharing", "108,824", "VMTL"):
        assert text in " ".join(shown.split())
        assert text in page
    assert page.count("<img") == 2
    assert 'href="ltb/report.html"' in page
    assert "Alpaydin" in page
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["parts"]) == {own.name for own in parts}
    with open(tmp_path / "cost.csv", newline="") as file:
        costs = list(csv.DictReader(file))
    assert [row["parameters"] for row in costs] == ["28376", "113372", "108840"]
    assert costs[0]["cpu_ratio"] == "1.0000"
    with open(tmp_path / "compared.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(tmp_path / "ltb" / "metrics.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    titles = ("all at the rate 0.003", "0.003"), ("each at its best rate", None)
    for rates, kept in titles:
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
