"""The study command: its options, and quick studies from end to end."""

import os
import subprocess
import sys

import pytest
from study_folder import ROOT, check_folder

import mtl_optax
from mtl_optax.study import studies
from mtl_optax.study.command import cli
from mtl_optax.study.engine.methods import METHODS


def test_studies_are_listed(capsys):
    assert cli.main(["study", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(studies.STUDIES)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_study_is_what_its_folder_says(name):
    study = studies.load(name)
    assert study.name == name
    assert study.title
    assert study.question.endswith(("?", "."))
    assert study.document is None or len(study.parts) > 1
    for part in (*study.parts, *study.quick):
        assert set(part.settings.methods) | set(part.quick.methods) <= set(part.known)
        assert set(part.variants) <= set(part.known)
        assert part.quick.quick
        assert not part.settings.quick
    assert len({part.name for part in study.parts}) == len(study.parts)


def test_unknown_method(capsys):
    assert cli.main(["study", "--methods", "mgda,pcgard"]) == 2
    error = capsys.readouterr().err
    assert "unknown method 'pcgard'; known: unitary, " in error
    assert all(name in error for name in METHODS)


def test_missing_extra(capsys, monkeypatch):
    find_spec = cli.importlib.util.find_spec
    monkeypatch.setattr(
        cli.importlib.util,
        "find_spec",
        lambda name: None if name == "sklearn" else find_spec(name),
    )
    assert cli.main(["study"]) == 2
    error = capsys.readouterr().err
    assert 'scikit-learn is missing; run: pip install "mtl-optax[study]"' in error


def test_version_and_usage(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtl-optax {mtl_optax.__version__}\n"
    assert cli.main([]) == 2
    assert "study" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seeds", "0"],
        ["--steps", "x"],
        ["--lr", "-1"],
        ["--lr", "nan"],
        ["--lr", "1,-1"],
        ["nothing"],
    ],
)
def test_wrong_options(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", *wrong])
    assert stopped.value.code == 2
    assert wrong[-1] in capsys.readouterr().err


def study(folder, *options):
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "mtl_optax.study.command.cli",
        "study",
    ]
    done = subprocess.run(
        [*command, "--out", str(folder), *options],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_NUMPY_RANK_PROMOTION": "raise",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_quick_study_end_to_end(tmp_path):
    out = " ".join(study(tmp_path, "--quick").split())
    check_folder(tmp_path, studies.load("stress").quick[0].quick.methods, seeds=2)
    assert "smoke run" in out
    assert "unitary is dominated" in out
    assert "mgda over-corrects" in out
    assert "imtl_g is invariant" in out
    assert "At equal scales" in out
    assert "smoke run" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_methods_whose_weights_tell_no_shares(tmp_path):
    names = ["graddrop", "db_mtl"]
    methods = ",".join(names)
    out = study(tmp_path, "--methods", methods, "--seeds", "1", "--steps", "3")
    check_folder(tmp_path, names, seeds=1)
    assert "no statement is possible" in " ".join(out.split())
