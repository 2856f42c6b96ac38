"""The study command: its options, and quick studies from end to end."""

import json
import os
import re
import subprocess
import sys

import pytest
from study_folder import ROOT, check_folder

import mtl_optax
from mtl_optax.study import studies
from mtl_optax.study.command import arguments as arguments_of
from mtl_optax.study.command import cli, every
from mtl_optax.study.command.arguments import parser
from mtl_optax.study.engine.methods import METHODS


def test_studies_are_listed(capsys):
    assert cli.main(["study", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(studies.STUDIES)
    assert all(re.match(r"\w+ +\d[\d.]* (s|min|h)  \S", line) for line in lines)


def test_all_studies_run_by_length_while_the_budget_lasts(capsys, monkeypatch):
    listed = {"long": 500, "short": 10, "middle": 100}
    lines = {name: studies.Line(name, seconds) for name, seconds in listed.items()}
    clock, begun = [0.0], []
    monkeypatch.setattr(every, "STUDIES", lines)
    monkeypatch.setattr(every.time, "perf_counter", lambda: clock[0])

    def slowly(options):
        begun.append(options.line)
        clock[0] += 2 * listed[options.name]  # a machine of half the speed

    def ran(*arguments):
        begun.clear()
        clock[0] = 0.0
        every.run(parser().parse_args(["study", "all", *arguments]), slowly)
        return list(begun)

    monkeypatch.setattr(arguments_of, "STUDIES", lines)
    assert ran() == [f"mtl-optax study {x}" for x in ("short", "middle", "long")]
    assert ran("--budget", "221s", "--out", "there") == [
        "mtl-optax study short --out there/short",
        "mtl-optax study middle --out there/middle",
    ]
    assert "long: left out, listed with 8 min" in capsys.readouterr().out
    assert ran("--budget", "219s") == ["mtl-optax study short"]  # 20 + 2 x 100 > 219
    assert len(ran("--budget", "21s", "--quick")) == 2  # nobody knows what they take


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all", "--lr", "0.1"], "studies differ in --lr"),
        (["all", "--shard", "1/2"], "studies differ in --shard"),
        (["toy", "--budget", "1m"], "--budget is for mtl-optax study all"),
    ],
)
def test_what_all_studies_do_not_share_is_refused(arguments, said, capsys):
    assert cli.main(["study", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["30", "m", "-1m", "1d", "infm", "nanh", "0s"])
def test_a_budget_is_a_time(budget, capsys):
    with pytest.raises(SystemExit):
        cli.main(["study", "all", f"--budget={budget}"])
    assert "no time, such as 30m" in capsys.readouterr().err


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


@pytest.mark.slow
def test_quick_study_end_to_end(tmp_path):
    """In a process of its own, with the cache of a new user."""
    folder = tmp_path / "out"
    command = ["-W", "error", "-m", "mtl_optax.study.command.cli", "study", "--quick"]
    done = subprocess.run(
        [sys.executable, *command, "--out", str(folder)],
        cwd=tmp_path,
        env={
            # A cache of the user's own would be left as it is.
            **{name: x for name, x in os.environ.items() if "_CACHE" not in name},
            "PYTHONPATH": str(ROOT),
            "JAX_NUMPY_RANK_PROMOTION": "raise",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    check_folder(folder, studies.load("stress").quick[0].quick.methods, seeds=2)
    out = " ".join(done.stdout.split())
    assert "smoke run" in out
    assert "unitary is dominated" in out
    assert "mgda over-corrects" in out
    assert "imtl_g is invariant" in out
    assert "At equal scales" in out
    assert "smoke run" in (folder / "report.html").read_text(encoding="utf-8")
    assert list((tmp_path / "cache").rglob("*-cache"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["compilation_cache"]
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow
def test_methods_whose_weights_tell_no_shares(tmp_path, capsys):
    names = ["graddrop", "db_mtl", "metabalance"]
    options = ["--methods", ",".join(names), "--seeds", "1", "--steps", "3"]
    assert cli.main(["study", *options, "--out", str(tmp_path)]) == 0
    check_folder(tmp_path, names, seeds=1)
    assert "no statement is possible" in " ".join(capsys.readouterr().out.split())
