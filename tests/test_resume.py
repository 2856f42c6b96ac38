"""A study that was killed and goes on gives the numbers of one that was not."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from study_process import HALF, STEPS, load_tiny, tiny

from mtl_optax.study import studies
from mtl_optax.study.engine import program
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.study import Judgement
from mtl_optax.study.report import files

ROOT = Path(__file__).resolve().parents[1]
CACHE_ALL = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
DRAWS = {"arch": "ltb"}  # the part whose losses depend on the time and on a key
KILLED = ("vmtl",)  # of several parts, with a state


def processes(*lines, code=0):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "study_process.py", *lines],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), CACHE_ALL: "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_killed_processes_go_on(tmp_path):
    folders = {name: (tmp_path / name, tmp_path / f"{name} whole") for name in KILLED}
    for name, (killed, _) in folders.items():
        processes(f"{name}:{killed}:kill", code=-signal.SIGKILL)
        assert list(killed.glob(f"**/checkpoints/*/{HALF}"))
    lines = [
        f"{name}:{folder}:{how}"
        for name, pair in folders.items()
        for folder, how in zip(pair, ("resume", "whole"), strict=True)
    ]
    said = processes(*lines)
    for name, (killed, whole) in folders.items():
        tables = sorted(x.relative_to(whole) for x in whole.glob("**/metrics.csv"))
        assert len(tables) == (1 if name == "stress" else 2)
        for table in tables:
            assert (killed / table).read_text() == (whole / table).read_text()
        assert not list(killed.glob("**/checkpoints"))
        # What went on did not begin at 0: so one of both runs did.
        *before, last = (
            [said.count(f"\n{part.name}:{x}:training:0") for x in part.quick.methods]
            for part in load_tiny(name).quick
        )
        assert all(begun == [1] for begun in before)
        assert min(last) == 1


def different(study):
    """Of parts that differ in an argument of their problem alone the first."""
    if study.name in DRAWS:
        return [part for part in study.parts if part.name == DRAWS[study.name]]
    parts = study.quick[::-1]
    return {getattr(x.problem, "func", x.problem): x for x in parts}.values()


def says_nothing(results, tasks):
    return Judgement(dict.fromkeys(results, ""), dict.fromkeys(results, ""), "")


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in studies.STUDIES if x not in KILLED])
def test_a_study_goes_on_from_what_a_kill_leaves(name, tmp_path, monkeypatch):
    """Every method as it stood on the disk at half of its steps."""
    monkeypatch.setattr(program, "CHUNK", HALF)
    jax.config.update("jax_enable_compilation_cache", True)  # off again after a test
    for part in different(studies.load(name)):
        part = tiny(part)._replace(judge=says_nothing)
        folder, left = tmp_path / part.name / "whole", tmp_path / part.name / "left"
        store = Checkpoints(folder, {}, resume=False, seconds=0)
        Checkpoints(left, {}, resume=False)

        def keep(method, stage, done, folder=folder, left=left):
            if stage == "training" and done == HALF:
                shutil.copytree(folder / method, left / method)

        seen = []
        whole = run(part, part.quick, keep, store)
        store = Checkpoints(left, {}, resume=True)
        again = run(part, part.quick, lambda *x, seen=seen: seen.append(x), store)
        for method in part.quick.methods:
            steps = [x[2] for x in seen if x[:2] == (method, "training")]
            assert steps == [HALF, STEPS]
        pd.testing.assert_frame_equal(files.metrics(again), files.metrics(whole))
        for method, own in whole.methods.items():
            other = again.methods[method]
            for field in ("losses", "shares", "path", "readings"):
                pair = getattr(other, field), getattr(own, field)
                jax.tree.map(np.testing.assert_array_equal, *pair)
