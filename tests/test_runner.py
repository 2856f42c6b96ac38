"""The runner: what it records, and a stopped study that gives the same numbers."""

import json
import os

import jax
import numpy as np
import pytest
from tiny_study import part as tiny_part

from mtl_optax.study import studies
from mtl_optax.study.command import cli
from mtl_optax.study.engine import blocks, program, run, train
from mtl_optax.study.engine.checkpoints import Checkpoints, Refused, Saved
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.program import Recipe
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import alone
from mtl_optax.study.report import files, terminal
from mtl_optax.study.studies.stress.study import STUDY as STRESS
from mtl_optax.study.studies.toy.study import STUDY as TOY_STUDY

SETTINGS = Settings(("pcgrad", "graddrop"), seeds=2, steps=6)


class Stopped(Exception):
    pass


TOY = TOY_STUDY.parts[0].settings._replace(methods=("mean", "pcgrad"), steps=600)


def trained(folder, *, resume, stop_at=None, study=STRESS, settings=SETTINGS):
    seen = []

    def tick(method, stage, done):
        if stage == "training":
            seen.append((method, done))
        if stop_at is not None and done == stop_at:
            raise Stopped

    store = Checkpoints(folder, settings._asdict(), resume=resume, seconds=0)
    return run.run(study.parts[0], settings, tick, store), seen


@pytest.mark.slow
def test_resumed_run_gives_the_same_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "CHUNK", 2)
    whole, _ = trained(tmp_path / "whole", resume=False)
    with pytest.raises(Stopped):
        trained(tmp_path / "checkpoints", resume=False, stop_at=4)
    resumed, seen = trained(tmp_path / "checkpoints", resume=True)
    first = {}
    for method in SETTINGS.methods:
        steps = [done for name, done in seen if name == method]
        assert steps == list(range(steps[0], 7, 2))
        first[method] = steps[0]
    # One was stopped at 4, the other where it was by then.
    assert max(first.values()) == 4
    assert files.metrics(resumed).equals(files.metrics(whole))
    for method, outcome in whole.methods.items():
        again = resumed.methods[method]
        np.testing.assert_array_equal(again.losses, outcome.losses)
        np.testing.assert_array_equal(again.shares, outcome.shares)
    # A third time nothing is left to train.
    _, seen = trained(tmp_path / "checkpoints", resume=True)
    assert sorted(seen) == [("graddrop", 6), ("pcgrad", 6)]


@pytest.mark.parametrize(
    ("steps", "points", "every", "chunk"),
    [
        (1000, None, 1, 50),
        (7, None, 1, 7),
        (53, None, 1, 1),  # a prime
        (100_000, 200, 500, 10_000),
        (450, 200, 2, 50),
        (150, 200, 1, 50),
    ],
)
def test_records_are_thinned_to_about_so_many(steps, points, every, chunk):
    recipe = SETTINGS._replace(steps=steps, points=points).recipe()
    assert recipe.record_every == every
    assert recipe.chunk == chunk
    assert steps % chunk == chunk % every == 0


def test_thinned_records_are_those_of_their_steps():
    lanes = blocks.lanes(2, (1, 10), TOY._replace(seeds=2), "mean")
    work = {"mean": train.Work(TOY_STUDY.parts[0].problem(), METHODS["mean"], lanes)}

    def record(every):
        recipe = Recipe(12, schedule="constant", record_every=every)
        return train.train_all(work, recipe)["mean"].log

    thick, thin = record(1), record(3)
    pairs = zip(jax.tree.leaves(thick), jax.tree.leaves(thin), strict=True)
    for full, part in pairs:
        assert full.shape[:2] == (12, 4)
        np.testing.assert_array_equal(part, full[2::3])
    # Before the step, and before scaling: lanes of one seed start alike.
    np.testing.assert_allclose(thick.losses[0, 0], thick.losses[0, 2])


def test_checkpoints_keep_the_last_one_only(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints", {"steps": 6}, resume=False)
    assert store.load("mean") is None
    leaves = [np.arange(3, dtype=np.uint32), np.float32(2) * np.ones(())]
    for done in (2, 4):
        records = (np.ones((done, 1), np.float32), np.full((done, 1), np.nan))
        store.save("mean", Saved(done, leaves, records, 0.5))
    half = tmp_path / "checkpoints" / "mean" / "6.orbax-checkpoint-tmp"
    half.mkdir()  # what a kill leaves
    again = Checkpoints(tmp_path / "checkpoints", {"steps": 6}, resume=True)
    assert not half.exists()
    saved = again.load("mean")
    assert saved.done == 4
    assert saved.seconds == 0.5
    for one, other in zip(saved.leaves, leaves, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert [x.shape for x in saved.records] == [(4, 1), (4, 1)]
    assert not (tmp_path / "checkpoints" / "mean" / "2").exists()
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused(tmp_path):
    folder = tmp_path / "checkpoints"
    with pytest.raises(Refused, match="nothing to resume in"):
        Checkpoints(folder, {}, resume=True)
    Checkpoints(folder, {"steps": 6, "methods": ("a",)}, resume=False)
    Checkpoints(folder, {"steps": 6, "methods": ("a",)}, resume=True)
    with pytest.raises(Refused, match=r"steps was 6, is 7.*without --resume"):
        Checkpoints(folder, {"steps": 7, "methods": ("a",)}, resume=True)


def test_command_line_refuses(tmp_path, capsys):
    out = tmp_path / "none"
    assert cli.main(["study", "--resume", "--out", str(out)]) == 2
    assert "nothing to resume in" in capsys.readouterr().err
    (out / "checkpoints").mkdir(parents=True)
    settings = {"study": "stress", "steps": 7}
    (out / "checkpoints" / "settings.json").write_text(json.dumps(settings))
    assert cli.main(["study", "--resume", "--out", str(out)]) == 2
    assert "steps was 7, is 1000" in capsys.readouterr().err


def test_damaged_checkpoints_are_named(tmp_path):
    folder = tmp_path / "checkpoints"
    store = Checkpoints(folder, {}, resume=False)
    store.save("mean", Saved(2, [np.ones(3)], (np.ones((2, 1)),), 0.5))
    for file in (folder / "mean").rglob("*"):
        if file.is_file() and file.name != "_CHECKPOINT_METADATA":
            file.write_bytes(b"x")
    with pytest.raises(Refused, match="mean is damaged: start again without --resume"):
        store.load("mean")
    (folder / "settings.json").write_text("{")
    with pytest.raises(Refused, match=r"settings\.json is damaged: start again"):
        Checkpoints(folder, {}, resume=True)


@pytest.mark.slow
def test_a_run_of_another_study_is_not_resumed(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    command = ["study", "null", "--optimizer", "adam,sgd", "--out", str(tmp_path)]
    for name in ("one", "other"):  # the same parts: adam and sgd
        study = alone(tiny_part(name=name))
        monkeypatch.setattr(studies, "load", lambda _, study=study: study)
        if name == "one":
            with monkeypatch.context() as patch:
                patch.setattr(terminal, "show", stop)
                assert cli.main(command) == 130
    capsys.readouterr()
    assert cli.main([*command, "--resume"]) == 2
    assert "study was one, adam, is other, adam" in capsys.readouterr().err
    monkeypatch.setattr(studies, "load", lambda _: alone(tiny_part(name="one")))
    # In another order it is the same run; all is shown of each optimiser.
    command[3] = "sgd,adam"
    assert cli.main([*command, "--resume"]) == 0
    out = capsys.readouterr().out
    assert out.count("End loss. Mean ± sd over 2 seed(s)") == 2
    assert out.count("mean, ") == 2  # the sentences
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<h3>one</h3>") == 1  # a table for both
    assert not (tmp_path / "sgd" / "checkpoints").exists()


def test_the_tests_of_a_file_run_in_one_process(request):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs all tests")
    # xdist's mark of a group. Without it every test goes where there is room, and
    # compiles what another process has compiled.
    assert request.node.nodeid.endswith("@test_runner.py")
