"""`mtl-optax train` from the command line to the report, on files as people have."""

import json
import math

import pytest
from image_files import write_celeba, write_multimnist, write_office
from table_files import write_aliexpress, write_qm9, write_visits

from benchmarks.dense_files import write_cityscapes, write_nyuv2
from mtl_optax.study.command import cli
from mtl_optax.training import logs

FACES = (*[0] * 12, *[1] * 4, *[2] * 4)
SMALL = ("--encoder", "small", "--width", "4", "--devices", "1")
NARROW = ("--width", "8", "--devices", "1")


def nyuv2(root):
    write_nyuv2(root, train=8, val=4)


def faces(root):
    write_celeba(root, parts=FACES, size=(24, 24))


def kaggle(root):
    write_celeba(root, parts=FACES, size=(24, 24), layout="kaggle")


def digits(root):
    write_multimnist(root, rows=40, test_rows=8)


def domains(root):
    write_office(root, classes=2, pictures=8)


# What is written, and options: of every data set, with another method and architecture.
RUNS = {
    "nyuv2": (nyuv2, "--batch 4 --method cagrad --single-tasks", SMALL),
    "cityscapes": (write_cityscapes, "--batch 4 --method uw --arch mtan", SMALL),
    "celeba": (
        faces,
        "--batch 4 --method imtl_g --size 16 --attributes Bald,Smiling",
        SMALL,
    ),
    "celeba kaggle": (kaggle, "--batch 4 --size 16 --attributes Bald,Male", SMALL),
    "multimnist": (digits, "--batch 12 --method pcgrad --arch cross_stitch", SMALL),
    "qm9": (write_qm9, "--batch 8 --method famo", NARROW),
    "office": (domains, "--batch 2 --method mgda --size 16", SMALL),
    "office mix": (
        domains,
        "--batch 4 --size 16 --mix amazon=2,dslr=1,webcam=1",
        SMALL,
    ),
    "aliexpress": (
        write_aliexpress,
        "--batch 32 --arch mmoe --method nash_mtl --entire-space",
        NARROW,
    ),
    "table": (
        write_visits,
        "--batch 16 --arch ple --method auto_lambda",
        NARROW,
    ),
}


def train(name, tmp_path, *options):
    write, own, network = RUNS[name]
    data, out = tmp_path / "data", tmp_path / "out"
    if not data.exists():
        write(data)
    command = ["train", name.split()[0], "--data", str(data), "--out", str(out)]
    command += ["--epochs", "2", *own.split(), *network, *options]
    return cli.main(command), out


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_to_the_end(name, tmp_path, capsys):
    code, out = train(name, tmp_path)
    said = capsys.readouterr()
    assert code == 0, said.err
    written = json.loads((out / "results.json").read_text())
    for state in ("last", "best"):
        for split, scores in written["scores"][state].items():
            for task, own in scores.items():
                assert math.isfinite(own["loss"]), (state, split, task)
                assert task in said.out
    assert len(logs.read(out / "epochs.csv")) == 2
    assert list((out / "tensorboard").glob("events.*"))
    assert "Metrics on" in (out / "report.html").read_text()
    if "--single-tasks" in RUNS[name][1]:
        assert "Delta-m against single-task training" in said.out
        assert {x.name for x in (out / "single").iterdir()} == {
            *("depth", "normals", "segmentation")
        }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--arch mtann", "unknown architecture 'mtann'; did you mean mtan? Known: hps"),
        ("--arch mtan", "arch='mtan' does not fit data set 'table'"),
        ("--encoder smal", "encoder='smal' does not fit"),
        ("--hyper temprature=2", "It takes temperature, window"),
        ("--classes 7", "--classes is of cityscapes, not of table"),
    ],
)
def test_what_cannot_fit_is_refused_before_anything_is_read(
    tmp_path, capsys, options, message
):
    write_visits(tmp_path / "data")
    command = ["train", "table", "--data", str(tmp_path / "data"), "--method", "dwa"]
    out = tmp_path / "out"
    assert cli.main([*command, "--out", str(out), *options.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "reading every example" not in said.out
    assert not out.exists()


def test_the_usual_batch_is_no_larger_than_the_data(tmp_path, capsys):
    write_visits(tmp_path / "data")
    command = ["train", "table", "--data", str(tmp_path / "data"), "--epochs", "1"]
    command += ["--out", str(tmp_path / "out"), "--width", "4"]
    assert cli.main([*command, "--batch", "256"]) == 2
    assert "smaller --batch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(command) == 0
