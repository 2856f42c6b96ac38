"""Meta-World: seeds, true successors, both readings of success, runs that resume.

What needs the simulator is skipped where the extra `rl` is missing; `.ci/run` has it in
one environment, whose tests are the fast ones, so nothing here is marked slow.
"""

import importlib.util
import json
import sys
import types

import jax
import numpy as np
import pytest

from benchmarks import metaworld as command
from benchmarks import metaworld_page, report
from mtl_optax.rl import metaworld
from mtl_optax.rl.metaworld import environments

TASKS = ("drawer-close-v3", "reach-v3", "window-close-v3")
LIMIT = 8
EXTRA = all(map(importlib.util.find_spec, ("metaworld", "gymnasium", "packaging")))
simulated = pytest.mark.skipif(
    not EXTRA, reason='needs Meta-World: pip install "mtl-optax[rl]"'
)


def make(tasks=TASKS, seed=0, **options):
    options = {"reward_function_version": "v2", "vector_strategy": "sync"} | options
    return metaworld.make_envs(tasks, seed, **options)


def test_without_the_extra_the_error_says_how_to_have_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r'run: pip install "mtl-optax\[rl\]"'):
        make()
    with pytest.raises(SystemExit, match=r'run: pip install "mtl-optax\[rl\]"'):
        command.main(["--quick", "--out", str(tmp_path)])


@simulated
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": ("reach-v2",)}, r'no task "reach-v2": did you mean reach-v3'),
        ({"tasks": ("xxxx",)}, r'no task "xxxx": it has \[.*reach-v3'),
        ({"tasks": "reach-v3"}, r'write \("reach-v3",\), or MT10'),
        ({"tasks": ()}, "different names, at least one"),
        ({"tasks": ("reach-v3", "reach-v3")}, "different names"),
        ({"seed": -1}, "seed is -1"),
        ({"reward_function_version": "v3"}, "'v3'; it is 'v1' or 'v2'"),
        ({"vector_strategy": "asynch"}, "'asynch'; it is 'sync' or 'async'"),
        ({"max_episode_steps": 501}, "501, but .* 1 to 500 steps"),
    ],
)
def test_a_wrong_argument_is_named_with_its_cure(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)


def test_the_version_of_the_reward_has_no_default():
    with pytest.raises(TypeError, match="reward_function_version"):
        metaworld.make_envs(TASKS, 0)


@simulated
def test_mt10_is_meta_worlds():
    from metaworld.env_dict import MT10_V3

    assert metaworld.MT10 == tuple(sorted(MT10_V3))


@pytest.fixture(scope="module")
def pair():
    """Made alike with seed 0, but the second has longer episodes."""
    if not EXTRA:
        pytest.skip('needs Meta-World: pip install "mtl-optax[rl]"')
    both = make(max_episode_steps=LIMIT), make(max_episode_steps=500)
    yield both
    for envs in both:
        envs.close()


def test_the_last_observation_of_an_episode_is_its_own(pair):
    """As a longer episode goes on; what to act on next is of another episode."""
    actions = np.random.default_rng(0).uniform(-1, 1, (2 * LIMIT, len(TASKS), 4))
    np.testing.assert_array_equal(*(metaworld.reset(envs, 7) for envs in pair))
    for number, action in enumerate(actions[:LIMIT], start=1):
        short, long = (metaworld.step(envs, action) for envs in pair)
        for name in ("next_obs", "reward", "terminated", "success"):
            np.testing.assert_array_equal(getattr(short, name), getattr(long, name))
        assert (short.ended == (number == LIMIT)).all()
        assert not long.ended.any()
    assert not short.terminated.any()  # a time limit
    assert (np.abs(short.obs - short.next_obs).max(axis=1) > 0.01).all()
    np.testing.assert_array_equal(long.obs, long.next_obs)
    assert [x.dtype for x in short] == [np.float32] * 4 + [np.bool_] * 2
    assert short.obs.shape == (len(TASKS), environments.OBSERVATION)  # no one-hot


def test_an_episode_follows_from_its_seed_alone(pair):
    """Whatever went before: nothing of the simulator outlives a reset."""
    used, other = pair
    metaworld.reset(used, 2)
    actions = np.random.default_rng(1).uniform(-1, 1, (LIMIT - 1, len(TASKS), 4))
    for action in actions:
        metaworld.step(used, action)
    first = metaworld.reset(used, 3)
    np.testing.assert_array_equal(first, metaworld.reset(other, 3))
    assert (np.abs(first - metaworld.reset(other, 4)).max(axis=1) > 0.01).all()
    metaworld.reset(other, 3)
    for action in actions:
        stepped = [metaworld.step(envs, action) for envs in pair]
        np.testing.assert_array_equal(*(s.next_obs for s in stepped))
        np.testing.assert_array_equal(*(s.reward for s in stepped))


@simulated
def test_processes_give_the_same_numbers_and_a_one_hot_on_request():
    """A process for each task; also, a task's goals are those of its run's seed."""
    first, again, other = (
        make(TASKS[:1], seed, one_hot=True, vector_strategy=strategy)
        for seed, strategy in ((3, "async"), (3, "sync"), (4, "sync"))
    )
    seen = [metaworld.reset(envs, 1) for envs in (first, again, other)]
    assert seen[0].shape == (1, environments.OBSERVATION + 1)
    assert (seen[0][:, -1] == 1).all()
    np.testing.assert_array_equal(seen[0], seen[1])
    assert np.abs(seen[0] - seen[2]).max() > 1e-3
    for envs in (first, again, other):
        envs.close()


class Scripted:
    """A vector environment of two tasks that says what it is told, step by step."""

    num_envs = 2
    action_space = types.SimpleNamespace(shape=(2, 4))

    def __init__(self, steps):
        self.steps = list(steps)

    def call(self, name, seed):
        assert name == "seed"

    def reset(self):
        return np.zeros((2, 3)), {}

    def step(self, actions):
        return self.steps.pop(0)


def told(success, ended, final=(0.0, 0.0)):
    """What Gymnasium returns; of ended tasks infos tell of the new episode."""
    ended, no = np.array(ended), np.zeros(2, bool)
    infos = {} if ended.all() else {"success": np.where(ended, 0.0, success)}
    if ended.any():
        infos["final_obs"] = np.full(2, None, dtype=object)
        for k in np.flatnonzero(ended):
            infos["final_obs"][k] = np.full(3, 9.0)
        infos["final_info"] = {"success": np.where(ended, final, 0.0)}
    return np.ones((2, 3)), np.array([1.0, 2.0]), no, ended, infos


def test_success_and_successor_where_one_task_ends():
    envs = Scripted([told([1.0, 1.0], [False, True], final=[0.0, 0.0])])
    stepped = metaworld.step(envs, np.zeros((2, 4)))
    np.testing.assert_array_equal(stepped.success, [True, False])
    np.testing.assert_array_equal(stepped.next_obs, [[1] * 3, [9] * 3])
    np.testing.assert_array_equal(stepped.obs, np.ones((2, 3)))


def test_success_at_the_last_step_and_at_any():
    """The first task is solved midway and no more, the second at the end of one."""
    go, end = [False, False], [True, True]
    envs = Scripted(
        [
            *(told([1.0, 0.0], go), told([0.0, 0.0], end, final=[0.0, 1.0])),
            *(told([0.0, 0.0], go), told([0.0, 0.0], end, final=[0.0, 0.0])),
        ]
    )
    found = metaworld.evaluate(lambda obs: np.zeros((2, 4)), envs, episodes=2, seed=0)
    np.testing.assert_array_equal(found["success"], [0.0, 0.5])
    np.testing.assert_array_equal(found["any_success"], [0.5, 0.5])
    np.testing.assert_array_equal(found["return"], [2.0, 4.0])
    with pytest.raises(ValueError, match="at least one"):
        metaworld.evaluate(lambda obs: obs, envs, episodes=0, seed=0)


def test_actions_that_would_go_wrong_in_silence():
    envs = Scripted([])
    with pytest.raises(ValueError, match=r"shape \(4,\), but 2 tasks take \(2, 4\)"):
        metaworld.step(envs, np.zeros(4))
    with pytest.raises(ValueError, match=r"tasks number \[1\] are NaN or infinite"):
        metaworld.step(envs, np.array([[0.0] * 4, [0.0, np.nan, 0.0, 0.0]]))


@simulated
def test_a_step_before_an_episode_says_what_to_call():
    envs = make(TASKS[:1])
    with pytest.raises(RuntimeError, match=r"call reset\(envs, seed\)"):
        metaworld.step(envs, np.zeros((1, 4)))
    envs.close()


def results(folder):
    """What a run measured, but for seconds, and the leaves of its checkpoint."""
    import orbax.checkpoint as ocp

    records = json.loads((folder / "result.json").read_text("utf-8"))["records"]
    for record in records:
        assert record.pop("train")["wall_s"] > 0
        assert record.pop("evaluate")["wall_s"] > 0
    with ocp.CheckpointManager(folder.absolute() / "checkpoint") as manager:
        saved = manager.restore(2, args=ocp.args.StandardRestore())["leaves"]
    return records, saved


@simulated
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    """Three tasks, 360 steps of them, CAGrad for actor and critics."""
    given = ["--quick", "--method", "cagrad", "--seed", "5"]
    given += ["--vector-strategy", "sync"]  # also where there are many cores
    command.main([*given, "--out", str(tmp_path / "whole")])

    options = command.arguments([*given, "--out", str(tmp_path / "parts")])
    chosen, about = command.settings(options), command.about(options)
    agent = command.agent(chosen.tasks, "cagrad", about["hidden"], seed=5)
    metaworld.train(agent, chosen, options.out, about=about, stages=1)
    command.main([*given, "--out", str(options.out), "--resume"])

    whole, parts = results(tmp_path / "whole"), results(options.out)
    assert whole[0] == parts[0]
    assert [record["environment_steps"] for record in whole[0]] == [180, 360]
    assert np.isfinite(whole[0][1]["critic_losses"]).all()
    assert max(whole[0][1]["return"]) > 0
    jax.tree.map(np.testing.assert_array_equal, whole[1], parts[1])

    with pytest.raises(SystemExit, match="pass --resume to go on, or another folder"):
        command.main([*given, "--out", str(options.out)])
    other = ["--quick", "--method", "pcgrad", "--seed", "5", "--resume"]
    with pytest.raises(SystemExit, match="method was cagrad, is pcgrad"):
        command.main([*other, "--out", str(options.out)])
    for wrong, said in (
        ({"tasks": TASKS[:2]}, "the same names in the same order"),
        ({"every": 0}, "every is 0; it is at least 1"),
        ({"random_steps": -1}, "random_steps is -1; it is at least 0"),
    ):
        with pytest.raises(ValueError, match=said):
            metaworld.train(agent, chosen._replace(**wrong), tmp_path / "new")


def run_of(method, seed, success, stages=6):
    """As `train` writes it; `success` of both tasks at every stage."""
    run = {"tasks": ["a", "b"], "reward_function_version": "v2", "seed": seed}
    run |= {
        "method": method,
        "stages": 6,
        "every": 100,
        "hidden": [8],
        "optimiser": "x",
    }
    run |= {"device": "cpu", "threads": "1", "versions": {"metaworld": "3.1.1"}}
    settings = metaworld.Settings(("a", "b"), "v2")
    clock = {"wall_s": 60.0, "cpu_s": 30.0}
    record = {"train": clock, "evaluate": clock, "return": [1000.0, 2000.0]}
    record |= {"success": success, "any_success": [1.0, 1.0]}
    records = [record | {"environment_steps": 200 * (s + 1)} for s in range(stages)]
    return {"run": settings._asdict() | run, "records": records}


def test_the_page_says_protocol_and_reward_beside_the_numbers(tmp_path):
    runs = (
        *(run_of("unitary", 0, [1.0, 0.0]), run_of("unitary", 1, [1.0, 0.5])),
        *(run_of("cagrad", 0, [0.2, 0.4]), run_of("cagrad", 1, [1.0, 1.0], stages=2)),
    )
    for run in runs:
        name = f"{run['run']['method']}-{run['run']['seed']}.json"
        (tmp_path / name).write_text(json.dumps(run))
    text = metaworld_page.write(tmp_path).read_text("utf-8")
    assert "reward function **v2**" in text
    assert "metaworld 3.1.1" in text
    assert "**Not finished, and not below:** cagrad, seed 1: 2 of 6 stages." in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    last = rows.index("| method | seeds | all tasks | a | b |")
    unitary = "0.62 (0.50 to 0.75) | 1.00 (1.00 to 1.00) | 0.25 (0.00 to 0.50) |"
    assert rows[last + 1] == f"| unitary | 2 | {unitary}"
    assert rows[last + 2].startswith("| cagrad | 1 | 0.30 (0.30 to 0.30) |")
    assert "| unitary | 6.0 (6.0 to 6.0) | 3.0 (3.0 to 3.0) |" in text
    assert "<svg" in (tmp_path / metaworld_page.PICTURE).read_text("utf-8")

    other = run_of("pcgrad", 0, [0.0, 0.0])
    other["run"]["reward_function_version"] = "v1"
    (tmp_path / "pcgrad-0.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="differ in reward_function_version"):
        metaworld_page.write(tmp_path)


def test_the_committed_page_is_made_of_the_committed_numbers():
    text = (metaworld_page.RESULTS / "README.md").read_text("utf-8")
    made = metaworld_page.made(metaworld_page.RESULTS)
    name, begin = "README.md", metaworld_page.BEGIN
    assert report.page(text, metaworld_page.TITLE, made, name, begin) == text
