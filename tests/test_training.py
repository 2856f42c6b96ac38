"""A run of `mtl-optax train`: what it writes, and that it goes on exactly."""

import dataclasses
import json

import chex
import numpy as np
import pytest
from toy_data import TASKS, Lines, domains, lines

from mtl_optax.data.dataset import Columns
from mtl_optax.data.scan import scan
from mtl_optax.study.engine.checkpoints import Checkpoints, Refused
from mtl_optax.training import logs, report
from mtl_optax.training.run import Diverged, Run, Watch
from mtl_optax.training.settings import Settings

SETTINGS = Settings(
    method="cagrad",
    width=16,
    epochs=3,
    batch_size=16,
    learning_rate=1e-2,
    log_every=2,
    save_seconds=0.0,  # after every step, so that runs stop in mid-epoch
)


class Stop(Exception):
    """In place of a kill."""


def run(folder, settings=SETTINGS, stop=None, dataset=None, resume=False):
    folder.mkdir(exist_ok=True)
    dataset = dataset or lines()

    def step(done, of):
        if done == stop:
            raise Stop

    watch = Watch(step=step)
    return Run(
        *(dataset, scan(dataset), settings, folder), resume=resume, watch=watch
    ).to_the_end()


def without_time(folder):
    names = ("steps.csv", "epochs.csv", "results.json")
    return {name: (folder / name).read_text() for name in names}


def saved(folder, name):
    settings = json.loads((folder / "checkpoints" / "settings.json").read_text())
    return Checkpoints(folder / "checkpoints", settings, resume=True).load(name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return run(folder)


def test_it_learns_and_writes_what_it_did(whole):
    steps, epochs = (logs.read(whole.folder / f"{x}.csv") for x in ("steps", "epochs"))
    assert [row["step"] for row in epochs] == [4, 8, 12]
    assert [row["step"] for row in steps] == [1, 2, 4, 6, 8, 10, 12]
    assert epochs[-1]["row/loss"] < epochs[0]["row/loss"]
    assert steps[0].keys() >= {"loss/row", "weight/row", "cosine/column/row"}
    written = json.loads((whole.folder / "results.json").read_text())
    assert written["scores"] == whole.scores
    assert written["settings"]["method"] == "cagrad"
    assert list((whole.folder / "tensorboard").glob("events.*"))


def test_the_best_state_is_that_of_the_lowest_geometric_mean(whole):
    epochs = logs.read(whole.folder / "epochs.csv")
    means = [row["column/loss"] * row["row/loss"] for row in epochs]
    assert whole.best_epoch == 1 + int(np.argmin(means))
    best = {
        task: {
            metric: epochs[whole.best_epoch - 1][f"{task}/{metric}"] for metric in own
        }
        for task, own in whole.scores["best"]["val"].items()
    }
    chex.assert_trees_all_close(whole.scores["best"]["val"], best, rtol=1e-6)


@pytest.mark.parametrize("stop", [3, 8])
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(whole, tmp_path, stop):
    """In mid-epoch, and after the last step of one before its evaluation."""
    with pytest.raises(Stop):
        run(tmp_path / "run", stop=stop)
    run(tmp_path / "run", resume=True)
    assert without_time(tmp_path / "run") == without_time(whole.folder)


def test_rows_after_the_checkpoint_are_written_once(whole, tmp_path):
    """A kill between a row and its checkpoint."""
    rare = dataclasses.replace(SETTINGS, save_seconds=1e9)
    with pytest.raises(Stop):
        run(tmp_path / "run", rare, stop=7)
    run(tmp_path / "run", rare, resume=True)
    assert without_time(tmp_path / "run") == without_time(whole.folder)


def test_eight_devices_give_the_numbers_of_one(whole, tmp_path):
    shared = run(tmp_path / "run", dataclasses.replace(SETTINGS, devices=8))
    chex.assert_trees_all_close(shared.scores, whole.scores, rtol=2e-3, atol=2e-3)


def test_other_settings_are_refused(whole):
    with pytest.raises(Refused, match=r"learning_rate was 0\.01, is 0\.1"):
        run(
            whole.folder,
            dataclasses.replace(SETTINGS, learning_rate=0.1),
            resume=True,
        )


def test_other_data_are_refused(whole):
    with pytest.raises(Refused, match=r"checksum of train was .* is"):
        run(whole.folder, dataset=lines(seed=5), resume=True)


def test_what_moves_no_number_may_change(whole):
    more = dataclasses.replace(SETTINGS, save_seconds=60.0, log_every=3)
    assert run(whole.folder, more, resume=True).scores == whole.scores


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_task(tmp_path):
    wild = dataclasses.replace(SETTINGS, learning_rate=1e30, optimizer="gd")
    with pytest.raises(Diverged, match="loss of column was not finite"):
        run(tmp_path / "run", wild)


def test_the_last_checkpoint_is_from_before_a_loss_that_is_not_finite(tmp_path):
    """Where no row of steps.csv has told of it yet."""
    wild = dataclasses.replace(
        SETTINGS, learning_rate=1e30, optimizer="gd", log_every=100
    )
    with pytest.raises(Diverged, match="are from before"):
        run(tmp_path / "run", wild)
    last = saved(tmp_path / "run", "last")
    assert last.done < 4  # within the first epoch
    *_, broken = last.leaves
    assert not broken.any()


def test_seconds_are_those_of_all_steps_not_of_the_best_ones(tmp_path):
    """The best state here is that of the first epoch."""
    worse = dataclasses.replace(SETTINGS, learning_rate=30.0, optimizer="gd")
    result = run(tmp_path / "run", worse)
    best, last = (saved(result.folder, name) for name in ("best", "last"))
    assert best.done < last.done
    assert result.seconds == pytest.approx(last.seconds)
    assert result.seconds > best.seconds


def test_a_task_that_batches_may_lack(tmp_path):
    """Labels of one task on four of 64 examples: batches without are no zeros to it."""
    dataset = lines(without=range(60))
    result = run(tmp_path / "run", dataset=dataset)
    rows = logs.read(tmp_path / "run" / "steps.csv")
    lacking = [row for row in rows if row["loss/column"] == 0]
    assert lacking
    assert all(row["weight/column"] == 0 < row["weight/row"] for row in lacking)
    assert np.isfinite(result.scores["last"]["val"]["column"]["loss"])


def test_the_report_says_what_was_measured(whole):
    dataset = lines()
    of = report.Reported(
        *(dataset, scan(dataset), SETTINGS, whole),
        single={"column": whole, "row": whole},
        command="mtl-optax train lines",
    )
    page = report.write(of).read_text()
    shown = logs.shown(whole.scores["last"]["val"]["row"]["accuracy"])
    assert shown in page
    assert "Delta-m against single-task training +0.00 % on val" in page
    assert "There is no test split" in page


def test_a_metric_of_zero_has_no_delta_m(whole):
    zeros = {"last": {"val": {t: {"accuracy": 0.0} for t in ("column", "row")}}}
    nothing = dataclasses.replace(whole, scores=zeros)
    dataset = lines()
    of = report.Reported(
        *(dataset, scan(dataset), SETTINGS, whole),
        single={"column": nothing, "row": nothing},
        command="",
    )
    assert np.isnan(report.delta_m(of, whole.scores["last"]["val"], "val"))


def test_logs_keep_rows_when_columns_come_later(tmp_path):
    log = logs.Log(tmp_path / "x.csv", 0)
    log.add(1, {"a": 0.1})
    log.add(2, {"a": 0.2, "b": 1e-9})
    wanted = [{"step": 1, "a": 0.1}, {"step": 2, "a": 0.2, "b": 1e-9}]
    assert logs.read(tmp_path / "x.csv") == wanted
    log.add(3, {"a": 0.3})  # as the first one, in a file with a column more
    assert logs.read(tmp_path / "x.csv") == [*wanted, {"step": 3, "a": 0.3}]
    with (tmp_path / "x.csv").open("a") as file:
        file.write("4,0.")  # a kill in the middle of a row
    assert logs.read(tmp_path / "x.csv")[:2] == wanted
    assert logs.Log(tmp_path / "x.csv", 1).rows == wanted[:1]
    assert logs.read(tmp_path / "x.csv") == wanted[:1]


def test_bilevel_methods_draw_from_validation_data(tmp_path):
    settings = dataclasses.replace(SETTINGS, method="auto_lambda", epochs=1)
    result = run(tmp_path / "run", settings)
    assert set(result.scores["last"]["val"]) == {task.name for task in TASKS}


def test_a_batch_that_is_larger_than_the_data(tmp_path):
    settings = dataclasses.replace(SETTINGS, batch_size=128)
    with pytest.raises(ValueError, match="smaller --batch"):
        run(tmp_path / "run", settings)


@pytest.mark.parametrize(
    "options", [{}, {"arch": "mmoe"}, {"mix": {"column": 3, "row": 1}}]
)
def test_tasks_with_examples_of_their_own(tmp_path, options):
    """Side by side, as joined rows for networks that read one input, and as a mix."""
    settings = dataclasses.replace(SETTINGS, batch_size=8, epochs=2, **options)
    dataset = domains(Lines, Columns(16, ()))
    result = run(tmp_path / "run", settings, dataset=dataset)
    steps = logs.read(tmp_path / "run" / "steps.csv")
    assert steps[-1]["step"] == (12 if "mix" in options else 10)
    for task, own in result.scores["last"]["val"].items():
        assert np.isfinite(own["loss"]), task


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "cagard"}, "unknown method 'cagard'; did you mean cagrad"),
        ({"optimizer": "adan"}, "unknown optimiser 'adan'; did you mean adam"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean cosine"),
        ({"arch": "hsp"}, "arch='hsp' does not fit"),
    ],
)
def test_names_that_are_not_there(tmp_path, wrong, message):
    """Said to those who make settings in Python, too; and nothing is written."""
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", dataclasses.replace(SETTINGS, **wrong))
    assert not (tmp_path / "run" / "checkpoints").exists()
