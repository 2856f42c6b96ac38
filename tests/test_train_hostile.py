"""`mtl-optax train` with wrong options, folders that hold something, and bad data."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from table_files import write_visits
from toy_data import TASKS, Lines, lines

from mtl_optax.data.dataset import Columns, Dataset
from mtl_optax.data.faults import BadData
from mtl_optax.data.scan import BadDataSet, scan
from mtl_optax.study.command import cli
from mtl_optax.study.command.train import folder_name
from mtl_optax.study.engine.checkpoints import Refused
from mtl_optax.training import logs, methods
from mtl_optax.training.run import Diverged, Run
from mtl_optax.training.settings import Settings

SETTINGS = Settings(width=4, epochs=2, batch_size=16, learning_rate=1e-2, log_every=100)


def train(tmp_path, *options):
    data, out = tmp_path / "data", tmp_path / "out"
    if not data.exists():
        write_visits(data)
    command = ["train", "table", "--data", str(data), "--out", str(out)]
    return cli.main([*command, "--width", "4", "--epochs", "1", *options])


# Whatever is said, it is said before anything is written.
USAGE = {
    "--batch 500": "54 examples, fewer than a batch of 500",
    "--method moml --batch 30": "the split val has 18 examples",
    "--batch 8 --mix days=1": "leave mix out",
    "--batch 8 --method cagrad --hyper num_tasks=2": "cagrad does not take",
    "--batch 8 --method cagrad --hyper of=2": "cagrad does not take",
    "--batch 8 --method constant --hyper days=x,died=1,outcome=1,pain=1": "constant",
    "--batch 8 --devices 99": "99 devices were asked for",
    "--resume": "there is no run to resume",
}


@pytest.mark.parametrize("options", USAGE)
def test_what_does_not_fit_together_leaves_out_free(options, tmp_path, capsys):
    assert train(tmp_path, *options.split()) == 2
    assert USAGE[options] in capsys.readouterr().err
    out = tmp_path / "out"
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    "option", ["--seed=-1", f"--seed={2**32}", "--workers=-3", "--workers=100000"]
)
def test_numbers_that_nothing_can_take(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(tmp_path, option)
    assert "no whole number from 0" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_not_said_to_be_unwritable(
    tmp_path, capsys, monkeypatch
):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "visits.csv")

    monkeypatch.setattr("mtl_optax.study.command.train.open_dataset", refuse)
    assert train(tmp_path) == 2
    assert "visits.csv cannot be read: Permission denied" in capsys.readouterr().err


def test_ctrl_c_before_the_first_step_promises_no_resume(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mtl_optax.study.command.train.scan", interrupt)
    assert train(tmp_path) == 130
    assert "the same command begins again" in capsys.readouterr().err


def test_results_without_checkpoints_are_not_written_over(tmp_path, capsys):
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    (out / "results.json").write_text("{}")
    assert train(tmp_path, "--batch", "16", "--resume") == 2
    assert "no checkpoint to go on from" in capsys.readouterr().err
    assert (out / "results.json").read_text() == "{}"


def test_folders_of_tasks_with_any_name():
    names = ["days", "größe", "..", "a/b", ".", "a.b", "x (m)", "a%2Fb"]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert folders[0:2] == names[0:2]
    assert not any("/" in folder or "." in folder for folder in folders)


# Runs.


def run(folder, dataset, settings=SETTINGS, resume=False):
    folder.mkdir(exist_ok=True)
    found = scan(dataset)
    return Run(dataset, found, settings, folder, resume=resume).to_the_end()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    run(folder, lines())
    return folder


@pytest.fixture
def again(whole, tmp_path):
    """A copy of a finished run, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


def resumed(folder, dataset=None):
    return run(folder, dataset or lines(), resume=True)


@pytest.mark.slow
def test_data_of_other_content_are_refused(again):
    other = lines()
    other.splits["train"].noise[5, 0, 0, 0] += 1
    with pytest.raises(Refused, match=r"checksum of train was \d+, is \d+"):
        resumed(again, other)


DAMAGE = {
    "last": (lambda x: shutil.rmtree(x / "checkpoints/last"), "last is missing"),
    "best": (lambda x: shutil.rmtree(x / "checkpoints/best"), "best is not the state"),
    "epochs": (lambda x: (x / "epochs.csv").unlink(), "no row of step 4"),
    "settings": (
        lambda x: (x / "checkpoints/settings.json").write_text("{"),
        "damaged",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_refused_and_left_as_it_is(again, name):
    damage, said = DAMAGE[name]
    if name == "best":  # one that the last epoch does not make anew
        head, first, second = (again / "epochs.csv").read_bytes().splitlines()
        worse = [second.split(b",")[0], *(b"9.0" for _ in second.split(b",")[1:])]
        lines_of = [head, first, b",".join(worse), b""]
        (again / "epochs.csv").write_bytes(b"\r\n".join(lines_of))
    damage(again)
    before = {x: x.read_bytes() for x in again.rglob("*.csv")}
    with pytest.raises(Refused, match=said) as error:
        resumed(again)
    assert "another --out" in str(error.value)
    assert {x: x.read_bytes() for x in again.rglob("*.csv")} == before


@pytest.mark.slow
def test_a_metric_without_labels_is_null(tmp_path):
    """Strict JSON, an empty cell or nan in CSV, and the other task rules the best."""
    dataset = lines(val=4)
    dataset.splits["val"].without = set(range(4))
    result = run(tmp_path / "run", dataset)
    written = json.loads(
        (tmp_path / "run" / "results.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
    )
    assert written["scores"]["last"]["val"]["column"]["accuracy"] is None
    rows = logs.read(tmp_path / "run" / "epochs.csv")
    assert result.best_epoch == 1 + int(np.argmin([row["row/loss"] for row in rows]))


def test_pictures_of_another_size_in_another_split():
    dataset = lines()
    val = dataset.splits["val"]
    val.noise = np.concatenate([val.noise, val.noise], axis=1)
    with pytest.raises(BadDataSet, match=r"shape \(24,\), others \(16,\)"):
        scan(dataset)


def test_validation_without_any_label():
    dataset = lines(val=4)
    part = dataset.splits["val"]
    part.labels[:, 0], part.without = -1, set(range(4))
    with pytest.raises(BadData, match="no task has a label in the split val"):
        scan(dataset)


@pytest.mark.slow
def test_no_checkpoint_holds_what_is_not_finite(tmp_path):
    """Losses of the last step of the epoch are finite, what they lead to is not."""
    wild = dataclasses.replace(
        SETTINGS, learning_rate=3e38, optimizer="gd", batch_size=64
    )
    dataset = lines()
    dataset.splits["train"].noise *= 1e3
    with pytest.raises(Diverged, match=r"smaller --lr and another --out"):
        run(tmp_path / "run", dataset, wild)
    assert not (tmp_path / "run" / "checkpoints" / "last").exists()
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()


def test_validation_data_that_lack_a_task(tmp_path):
    """Methods on two batches are told, though training data lack none."""
    dataset = lines()
    dataset.splits["val"].without = set(range(10))
    settings = dataclasses.replace(SETTINGS, method="auto_lambda")
    ready = Run(dataset, scan(dataset), settings, tmp_path)
    assert ready.program.with_active


@pytest.mark.slow
def test_one_task_and_a_batch_of_one(tmp_path):
    splits = {"train": Lines(3), "val": Lines(2, seed=1)}
    dataset = Dataset("lines", TASKS[:1], splits, Columns(16, ()))
    settings = dataclasses.replace(SETTINGS, batch_size=1, epochs=1, method="cagrad")
    result = run(tmp_path / "run", dataset, settings)
    assert np.isfinite(result.scores["last"]["val"]["column"]["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("method", methods.EVERY)
def test_every_method_takes_named_losses_and_tasks_that_may_lack(method, tmp_path):
    """Traced alone, which finds what does not fit together."""
    hyper = {"column": 1.0, "row": 2.0} if method == "constant" else {}
    settings = dataclasses.replace(SETTINGS, method=method, hyper=hyper)
    dataset = lines(without=range(60))
    ready = Run(dataset, scan(dataset), settings, tmp_path)
    batch = next(ready._batches("train", 0, 1))
    second = batch if ready.bilevel else None
    state, report = jax.eval_shape(ready.train_step, ready.state, batch, second)
    assert jax.tree.structure(state) == jax.tree.structure(ready.state)
    assert {"loss/column", "loss/row"} <= set(report)
