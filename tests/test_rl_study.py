"""The study of reinforcement learning: its rule, arms, figures and costs."""

from collections import namedtuple
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from mtl_optax.rl import on_device
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.program import Recipe
from mtl_optax.study.engine.settings import Candidate
from mtl_optax.study.engine.transformations import Ingredients
from mtl_optax.study.studies.rl import arms, figures, rule, tables
from mtl_optax.study.studies.rl.arms import ACTOR, ARMS, CRITIC, ENV, PLAIN, TASKS
from mtl_optax.study.studies.rl.problem import init, problem
from mtl_optax.study.studies.rl.study import STUDY
from mtl_optax.study.studies.rl.training import Watched, divided, joined

Own = namedtuple(
    "Own", "score path metrics chosen candidates run_seconds", defaults=[None] * 5
)
PART = STUDY.parts[0]


def scores(first, second):
    """`[scales, seeds, T]` of two tasks."""
    return Own(np.stack([first, second], axis=1)[None])


SUM = scores([50.0, 52, 48], [10.0, 11, 12])
BETTER = scores([60.0, 62, 58], [30.0, 30, 31])
WORSE = scores([20.0, 22, 18], [10.0, 12, 11])
LIKE = scores([40.0, 62, 50], [20.0, 1, 10])


def test_the_rule_pairs_means_over_tasks_with_the_sums():
    results = {"unitary": SUM, "upgrad": BETTER, "famo": WORSE, "pcgrad": LIKE}
    found = rule.judge({**results, "independent": BETTER}, ("calm", "heavy"))
    assert found.verdicts == {
        **{"unitary": "baseline", "upgrad": "better", "famo": "worse"},
        **{"pcgrad": "not told apart", "independent": "better"},
    }
    said = found.sentences
    assert said["unitary"] == "unitary: 30.5 % of episodes succeed, mean over tasks."
    assert said["upgrad"].startswith("upgrad, better: 45.2 %, +14.67 [")
    assert (
        "points from unitary (calm +10.00 [+10.0, +10.0], heavy +19.33 ["
        in (said["upgrad"])
    )
    assert "(calm -30.00 [-30.0, -30.0])." in said["famo"]  # the other is not apart
    assert said["pcgrad"].endswith("points from unitary.")
    assert found.statement == (
        "Against unitary, in success: better: upgrad; worse: famo; not told apart: "
        "pcgrad. independent networks are better."
    )


def test_the_rule_says_when_there_is_nothing_to_say():
    one = {"unitary": scores([50.0], [10.0]), "upgrad": scores([60.0], [20.0])}
    found = rule.judge(one, ("calm", "heavy"))
    assert found.verdicts["upgrad"] == "unknown"
    assert found.statement.endswith("with one seed, or where runs diverged.")
    alone = rule.judge({"upgrad": BETTER}, ("calm", "heavy"))
    assert alone.verdicts == {"upgrad": "unknown"}
    assert "there is no unitary beside it" in alone.sentences["upgrad"]
    assert "possible without unitary and another" in alone.statement


def of(name, tasks=TASKS):
    one = problem()._replace(name=name, tasks=tasks)
    return Ingredients(one, optax.identity(), jax.random.key(0), np.ones(len(tasks)))


def first_update(method, name, grads, losses, tasks=TASKS):
    params = {"w": jnp.full(3, 2.0)}
    tx = optax.with_extra_args_support(method(of(name, tasks)))
    given = {"w": jnp.asarray(grads)}
    return tx.update(given, tx.init(params), params, losses=jnp.asarray(losses))[0]["w"]


def test_the_regularised_sum_decays_the_actor_alone():
    grads, losses = np.eye(6, 3, dtype=np.float32), np.ones(6, np.float32)
    method = partial(first_update, arms.OWN["sum_regularised"])
    np.testing.assert_allclose(method(CRITIC, grads, losses), 1.0)
    np.testing.assert_allclose(method(ACTOR, grads, losses), 1 + 2 * arms.DECAY)
    assert ARMS["sum_regularised"].normalized_rewards


@pytest.mark.slow
def test_famo_stands_above_the_lowest_loss_of_an_actor():
    """Uniform actions and the best of all rewards, 0, for ever."""
    alpha, entropy = 0.3, 2 * np.log(2)
    value = sum(arms.DISCOUNT**t * alpha * entropy for t in range(1, 2000))
    lowest = -alpha * entropy - value
    np.testing.assert_allclose(arms.lowest_actor_loss(alpha), lowest, rtol=1e-6)
    grads = np.eye(6, 3, dtype=np.float32)
    losses = np.linspace(-5, 5, 6, dtype=np.float32)
    for name, bound in ((ACTOR, arms.lowest_actor_loss(arms.HIGHEST)), (CRITIC, 0.0)):
        own = losses if name == ACTOR else losses + 6
        found = first_update(arms.OWN["famo"], name, grads, own)
        weights = 1 / (own - bound)
        np.testing.assert_allclose(found, (weights / weights.sum())[:3], rtol=1e-4)


@pytest.mark.slow
def test_cagrad_fast_weighs_the_mean_of_the_rest_as_the_tasks_in_it():
    few = ARMS["cagrad_fast"].losses
    assert len(few) == ARMS["cagrad_fast"].subsample == arms.FAST == 3
    method = partial(arms.OWN["cagrad_fast"], c=0.0)  # at c = 0 CAGrad is their mean
    grads = np.eye(3, dtype=np.float32)
    found = first_update(method, ACTOR, grads, np.ones(3), few)
    np.testing.assert_allclose(found / found.sum(), [1 / 6, 1 / 6, 4 / 6], atol=1e-5)


@pytest.mark.parametrize("name", ["unitary", *ARMS])
def test_a_run_is_divided_and_joined_without_loss(name):
    arm = ARMS.get(name, PLAIN)

    def there_and_back(key):
        agent = arm.agent(lambda name: optax.identity())
        run = on_device.start(agent, ENV, on_device.RunSettings(capacity=5), key)
        return run, joined(divided(run), run.time)

    run, again = jax.eval_shape(there_and_back, jax.random.key(0))
    assert jax.tree.structure(run) == jax.tree.structure(again)


def test_a_method_on_two_batches_is_refused():
    with pytest.raises(ValueError, match=r"no validation split.*leave it out"):
        problem().programs(METHODS["moml"], Recipe(steps=10))


def made(names, seeds=3, records=4):
    """Results with numbers that say where they come from."""
    shape = records, 1, seeds, len(Watched._fields), len(TASKS)
    path = np.arange(np.prod(shape), dtype=float).reshape(shape) % 97
    metrics = {
        name: np.arange(2.0 * seeds * len(TASKS)).reshape(2, 1, seeds, len(TASKS))
        for name in ("success", "any success", "return")
    }
    own = Own(
        score=metrics["success"][1],
        path=path,
        metrics={"end": metrics},
        chosen=np.array([1]),
        candidates=(Candidate(1e-3, {}), Candidate(3e-3, {})),
        run_seconds=8.0,
    )
    blank = own._replace(path=np.zeros(shape), run_seconds=16.0)
    settings = PART.quick._replace(seeds=seeds, steps=40, points=records)
    return namedtuple("Result", "methods tasks settings part problem")(
        {name: blank if name == "independent" else own for name in names},
        *(TASKS, settings, PART, problem()),
    )


def test_curves_have_intervals_and_conflicts_leave_out_who_shares_nothing():
    result = made(["unitary", "independent"])
    drawn = figures.learning(result)
    assert [ax.get_title() for ax in drawn.figure.axes] == ["unitary", "independent"]
    line = drawn.figure.axes[0].lines[-2]
    runs = result.methods["unitary"].path[:, 0, :, 0].mean(axis=-1)
    np.testing.assert_allclose(line.get_ydata(), runs.mean(axis=1))
    assert all(len(ax.collections) == 1 for ax in drawn.figure.axes)
    assert "95 % interval" in drawn.caption
    assert not any(
        ax.collections for ax in figures.learning(made(["unitary"], 1)).figure.axes
    )
    drawn = figures.conflicts(result)
    shown = [ax.get_title() for ax in drawn.figure.axes if ax.get_visible()]
    assert shown == ["unitary"]
    assert figures.conflicts(made(["independent"])) is None


def test_tables_show_the_chosen_candidate_and_ratios_to_the_sum():
    result = made(["unitary", "independent"])
    rows = tables.returns(result).rows
    assert rows[0][1] == "24.00 ± 6.00"  # of seeds 18, 24, 30: of the second candidate
    shown = tables.cost(result)
    assert shown.head == ["method", "ms a step of a run", "ratio"]
    assert shown.rows == [
        ["unitary", "33.33", "1.00"],  # 8 s of 40 steps, 2 candidates, 3 seeds
        ["independent", "66.67", "2.00"],
    ]
    assert list(tables.files(result)["cost.csv"]["method"]) == list(result.methods)


def test_starts_differ_by_seed_and_not_by_method():
    """Arms with the same networks begin alike."""
    plain, fast = (init(arm, 0)[0] for arm in (PLAIN, ARMS["cagrad_fast"]))
    jax.tree.map(np.testing.assert_array_equal, plain, fast)
    other = init(PLAIN, 1)[0]
    kernel = plain[ACTOR]["trunk"][0]["kernel"]
    assert (kernel != other[ACTOR]["trunk"][0]["kernel"]).any()


def test_the_committed_page_says_what_the_committed_numbers_say():
    folder = Path(__file__).parents[1] / "benchmarks/results/rl"
    page = (folder / "README.md").read_text("utf-8")
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    cells = {line[0].strip("| `"): line[1:] for line in lines if len(line) > 5}
    numbers = pd.read_csv(folder / "summary.csv")
    numbers = numbers[numbers.metric == "success"].set_index(["method", "task"])
    assert list(cells) == list(STUDY.parts[0].settings.methods)
    for method, row in cells.items():
        found = [numbers.loc[method, task] for task in TASKS]
        assert row[:6] == [f"{x['mean']:.1f} ± {x.sd:.1f}" for x in found]
        assert row[6] == f"{np.mean([x['mean'] for x in found]):.1f}"
    costs = {line[0].strip("| `"): line[1:] for line in lines if len(line) == 5}
    for method, own in pd.read_csv(folder / "cost.csv").set_index("method").iterrows():
        assert costs[method][0] == f"{own.flops:.1f}"
        assert costs[method][2] == f"{own['update']:.2f}"
