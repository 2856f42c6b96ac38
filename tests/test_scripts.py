"""The complete training scripts beside the notebooks: short, and they learn."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_optax as mtl

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / "notebooks" / name for name in ("train_nnx.py", "train_linen.py")]
# After 40 steps; ten digits, and two parities of about equal size. At the full number
# of steps both are above 0.95.
CHANCE = {"digit": 0.1, "parity": 0.5}
MARGIN = 0.2

each = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


@each
def test_script_is_short_enough_to_copy(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
@each
def test_script_learns_both_tasks(path, tmp_path):
    pytest.importorskip("sklearn", reason="the scripts' data come from scikit-learn")
    environment = {
        **os.environ,
        "MTL_OPTAX_STEPS": "40",
        "PYTHONPATH": str(Path(mtl.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\w+) accuracy (\d\.\d+)$", done.stdout, re.M))
    assert found.keys() == CHANCE.keys(), done.stdout
    for task, chance in CHANCE.items():
        assert float(found[task]) > chance + MARGIN, done.stdout
    assert re.search(r"^task weights \[.*\]$", done.stdout, re.M), done.stdout
    assert re.search(r"^cosine -?\d", done.stdout, re.M), done.stdout


MANY_HOSTS = ROOT / "notebooks" / "train_many_hosts.py"


@pytest.mark.slow
def test_script_for_many_hosts_goes_on_from_its_checkpoint(
    tmp_path, monkeypatch, capsys
):
    """In this process, on the devices that it has."""
    assert len(MANY_HOSTS.read_text(encoding="utf-8").splitlines()) < 80
    for name in ("PROCESS_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)

    def losses(steps, folder):
        arguments = ["script", f"--steps={steps}", f"--out={tmp_path / folder}"]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(MANY_HOSTS))
        return re.findall(r"^step (\d+) losses (.*)$", capsys.readouterr().out, re.M)

    at_once = losses(13, "a")
    assert [int(step) for step, _ in at_once] == list(range(1, 14))
    assert losses(11, "b") + losses(13, "b") == at_once
    first, last = (list(map(float, at_once[i][1].split())) for i in (0, -1))
    assert sum(last) < sum(first)
