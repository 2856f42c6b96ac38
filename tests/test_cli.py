"""The command line beside the study: several optimisers, and the compilation cache."""

import json
from pathlib import Path

import jax
import pytest

from mtl_optax.study.command import cli
from mtl_optax.study.engine import cache

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_several_optimisers_have_a_folder_each_and_share_a_page(tmp_path, capsys):
    options = ["--methods", "unitary,mean", "--seeds", "2", "--steps", "4"]
    command = ["study", "null", "--optimizer", "adam,sgd", *options]
    command += ["--out", str(tmp_path)]
    assert cli.main(command) == 0
    page = (tmp_path / "report.html").read_text()
    for name in ("adam", "sgd"):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert (config["study"], config["part"]) == ("null", name)
        assert config["optimizer"] == name
        assert config["statement"] in page
        assert not (tmp_path / name / "checkpoints").exists()
    assert "Test accuracy / %, mean ± sd over seeds" in page
    assert page.count("CC BY 4.0") == 1 + 2  # the foot, and both configurations
    capsys.readouterr()
    assert cli.main([*command, "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err


def test_unknown_optimisers_are_answered_with_the_known(capsys):
    assert cli.main(["study", "--optimizer", "adam,lion"]) == 2
    assert "'lion'; known: adam, sgd" in capsys.readouterr().err


def test_what_cannot_be_written_is_named(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert cli.main(["study", "toy", "--out", str(file)]) == 2
    assert "file/checkpoints cannot be written: Not a dir" in capsys.readouterr().err
    results = str(ROOT / "benchmarks" / "results" / "stress")
    assert cli.main(["report", results, "--out", str(file / "page.html")]) == 2
    assert "cannot be written: " in capsys.readouterr().err


def test_help_tells_what_a_study_does_by_itself(capsys):
    for name, told in (("toy", "(100000)"), ("groups", "(600 or 300)")):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["study", name, "--help"])
        assert told in capsys.readouterr().out


# --- Compilation cache ----------------------------------------------------------------


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "mtl-optax" / "jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "mtl-optax" / "jax"


def test_cache_is_configured_by_the_flag(monkeypatch, tmp_path):
    names = (
        "jax_enable_compilation_cache",
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        cache.configure(False)
        assert not cache.in_use()
        jax.config.update("jax_compilation_cache_dir", None)
        cache.configure(True)
        assert cache.in_use()
        assert getattr(jax.config, names[1]) == str(cache.folder())
        jax.config.update("jax_compilation_cache_dir", "mine")
        cache.configure(True)
        assert getattr(jax.config, names[1]) == "mine"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
