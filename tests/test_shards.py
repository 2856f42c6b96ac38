"""Studies in shards: joined, they are the run in one piece, byte for byte."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import tiny_study
from study_process import tiny

from mtl_optax.study import studies
from mtl_optax.study.command import cli, sharded
from mtl_optax.study.command.arguments import parser
from mtl_optax.study.engine import program
from mtl_optax.study.engine.blocks import blocks, lanes, seeds_of
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.run import concluded, prepared, run
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.shard_files import Pieces, together
from mtl_optax.study.engine.shards import Shard, pieces, share
from mtl_optax.study.engine.study import Judgement, Study, alone
from mtl_optax.study.engine.train import train_all
from mtl_optax.study.report import files

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = Settings(
    ("unitary", "mean"), seeds=4, tuning_seeds=3, steps=4, learning_rates=(0.1, 0.2)
)
# Times, and the configuration that holds some, which config.json has too
TIMES = (
    r"<h3>Seconds a method.*?</table>",
    r"<summary>Configuration.*?</details>",
    r"took \d+ s",
)


def a_study(number=2, **changes):
    """Parts of two methods, of two candidates and two groups of seeds each."""
    parts = tuple(
        tiny_study.part(name=f"tiny_{x}", settings=SETTINGS, figures=(), **changes)
        for x in range(number)
    )
    if number == 1:
        return alone(parts[0])
    return Study("tiny", "Tiny", "Why?", parts, parts)


@pytest.fixture
def study(monkeypatch):
    made = a_study()
    monkeypatch.setattr(studies, "load", lambda name: made)
    return made


def command(out, *more):
    return cli.main(["study", "null", "--out", str(out), *more])


def written(out):
    """Every file but shards; times and the folder left out."""
    found = {x.relative_to(out): x for x in out.rglob("*") if x.is_file()}
    kinds = {".csv": Path.read_bytes, ".json": configuration, ".html": page}
    return {
        name: kinds[file.suffix](file)
        for name, file in found.items()
        if name.parts[0] != "shards"
    }


def configuration(file):
    """All but the command, which names the folder, and times."""

    def untimed(values):
        left_out = "command", "seconds", "wall_seconds"
        return {
            name: untimed(x) if isinstance(x, dict) else x
            for name, x in values.items()
            if name not in left_out
        }

    return untimed(json.loads(file.read_text()))


def page(file):
    text = re.sub(r"--out \S+", "", file.read_text())
    for pattern in TIMES:
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    return text


def test_shards_joined_are_the_run_in_one_piece(study, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    assert command(one) == 0
    for shard in ("3/3", "1/3", "1/3"):  # out of order, and twice
        assert command(two, "--shard", shard) == 0
        assert "mtl-optax report" in capsys.readouterr().out
    assert cli.main(["report", str(two)]) == 1
    said = capsys.readouterr().err
    assert "6 of 16 pieces are missing" in said
    assert "shard 2/3: mean, learning rate 0.2, seeds 4 to 6, of tiny_0" in said
    assert said.count("shard 2/3:") == 6
    assert f"mtl-optax study null --out {two} --shard 2/3" in said
    assert not (two / "report.html").exists()
    assert command(two, "--sh=2/3") == 0
    assert cli.main(["report", str(two)]) == 0
    assert "Joined 16 pieces" in capsys.readouterr().out
    whole, joined = written(one), written(two)
    assert {x.name for x in whole} == {
        *("metrics.csv", "summary.csv", "config.json", "report.html")
    }
    assert len(whole) == 2 * 4 + 3  # the study has no metrics.csv of its own
    assert joined == whole
    assert b"tiny_1" not in joined[Path("tiny_0/metrics.csv")]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 7, 8, 11, 40])
def test_shards_are_all_pieces_once_and_alike(number):
    part = tiny_study.part(settings=SETTINGS)
    single = SETTINGS._replace(methods=("unitary", SINGLE_TASK), steps=8)
    every = pieces([(part, SETTINGS), (part._replace(name="other"), single)])
    assert len(every) == len(set(every)) == 16
    shares = [share(every, Shard(i + 1, number)) for i in range(number)]
    assert [piece for own in shares for piece in own] == every
    costs = [sum(piece.cost for piece in own) for own in shares]
    most = max(piece.cost for piece in every)
    assert max(costs) <= sum(costs) / number + most


def test_a_block_is_a_candidate_and_a_few_seeds():
    assert seeds_of(SETTINGS).tolist() == [[0, 1, 2, 3], [4, 5, 6, 6]]
    assert seeds_of(SETTINGS._replace(tuning_seeds=0)).tolist() == [[0, 1, 2, 3]]
    assert seeds_of(SETTINGS._replace(seeds=23)).shape == (6, 5)
    rows = {
        name: (
            lanes(2, (1, 1000), SETTINGS, name),
            blocks((1, 1000), SETTINGS, name, 28 * (1 + (name == SINGLE_TASK))),
        )
        for name in ("unitary", SINGLE_TASK)
    }
    for every, found in rows.values():
        assert set(found.ravel()) == set(range(len(every.seed)))
        for row in found:
            assert len(set(every.learning_rate[row])) == 1
    every, found = rows[SINGLE_TASK]
    assert found.shape == (4, 16)
    assert every.seed[found[1]].tolist() == 4 * [4, 5, 6, 6]
    assert every.loss_scales[found[1], 0].tolist() == 2 * (4 * [1] + 4 * [1000])
    assert every.trained[found[3], 0].tolist() == 8 * [1] + 8 * [0]
    assert every.learning_rate[found[2]].tolist() == 16 * [0.2]


@pytest.mark.parametrize(
    ("value", "said"),
    {
        "3": "is not I/N",
        "a/b": "is not I/N",
        "-1/8": "is not I/N",
        "1.5/3": "is not I/N",
        "1/": "is not I/N",
        "²/3": "is not I/N",
        "0/8": "where a scheduler counts from 0, add 1",
        "9/8": "the first is 1/N and the last N/N",
        "0/0": "the first is 1/N",
    }.items(),
)
def test_what_is_no_shard(value, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "null", f"--shard={value}"])
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_is_not_joined(study, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert command(out, "--shard", "1/16") == 0
    capsys.readouterr()

    def says(*words, more=(), code=2):
        run = command(out, *more) if more else cli.main(["report", str(out)])
        said = " ".join(capsys.readouterr().err.split())
        assert run == code, said
        for word in words:
            assert word in said

    # Another study and other settings, at the start of the shard, not after hours.
    with monkeypatch.context() as patch:
        patch.setattr(studies, "load", lambda name: a_study(3))
        says("its parts are tiny_0, tiny_1, those of", more=("--shard", "2/16"))
    other = ("--shard", "2/16", "--steps", "2")
    says("steps was 4, is 2", "use another --out, or delete", more=other)
    says("leave --resume out", more=("--shard", "2/16", "--resume"))
    says("shards holds shards: join them with mtl-optax report", more=("--quick",))
    # Other code, when they are joined.
    with monkeypatch.context() as patch:
        patch.setattr(sharded, "sources", lambda folders: "of a later commit")
        says("source code was", "is of a later commit")
        says("source code was", more=("--shard", "2/16"))
    (began,) = (out / "shards").glob("shard_*.json")
    text = began.read_text()
    began.write_text(text.replace('"version of jax": "', '"version of jax": "0'))
    says(f"version of jax was 0{jax.__version__}, is {jax.__version__}")
    for damaged in (text[:50], "{}", "[]"):
        began.write_text(damaged)
        says("is damaged: delete it")
    began.write_text(text)
    # A file of another run, and one that was cut.
    assert command(out, "--shard", "1/1") == 0
    file = out / "shards" / "tiny_1" / "mean.3.npz"
    whole = file.read_bytes()
    odd = tmp_path / "odd"
    assert command(odd, "--shard", "16/16", "--lr", "0.1,0.3") == 0
    file.write_bytes((odd / "shards" / "tiny_1" / file.name).read_bytes())
    says("is of another run", "learning_rates was [0.1, 0.3], is [0.1, 0.2]")
    for cut in (whole[: len(whole) // 2], b"", b"text"):
        file.write_bytes(cut)
        says("is damaged", "delete it, and run its shard again")
    file.unlink()
    says("1 of 16 pieces are missing", "--shard 16/16", code=1)
    assert command(out, "--shard", "16/16") == 0
    # Who joins may have another device; its name on the page is that of the shards.
    assert cli.main(["report", str(out)]) == 0
    for began in (out / "shards").glob("shard_*.json"):
        began.unlink()
    says("holds no shard")


def test_two_optimisers_in_shards(monkeypatch, tmp_path):
    made = a_study(1)
    monkeypatch.setattr(studies, "load", lambda name: made)
    one, two = tmp_path / "one", tmp_path / "two"
    options = "--optimizer", "adam,sgd"
    assert command(one, *options) == 0
    for shard in ("1/2", "2/2"):
        assert command(two, *options, "--shard", shard) == 0
    assert cli.main(["report", str(two)]) == 0
    whole, joined = (
        {x.relative_to(out): x.read_bytes() for x in out.rglob("*.csv")}
        for out in (one, two)
    )
    assert len(whole) == 5
    assert joined == whole


def test_a_shard_without_pieces_says_so(study, tmp_path, capsys):
    assert command(tmp_path, "--shard", "1/40") == 0
    assert "has nothing to do: 16 pieces are all" in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "16 of 16 pieces are missing" in capsys.readouterr().err


def test_shards_at_the_same_time_in_one_folder(monkeypatch, tmp_path):
    made = a_study(1)
    monkeypatch.setattr(studies, "load", lambda name: made)
    with ThreadPoolExecutor(4) as pool:
        codes = [pool.submit(command, tmp_path, "--shard", f"{i}/4") for i in "1234"]
        assert [code.result() for code in codes] == [0] * 4
    assert cli.main(["report", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert len(table) == 2 * 2 * 4 * 2  # methods, candidates, seeds, tasks
    assert not list(tmp_path.rglob("*going_on*"))
    assert not list(tmp_path.rglob(".*"))  # nothing half written


def test_a_shard_that_was_stopped_goes_on(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "CHUNK", 2)
    monkeypatch.setitem(Checkpoints.__init__.__kwdefaults__, "seconds", 0)
    seen = []

    @contextmanager
    def stopping(console, methods, steps):
        def tick(method, stage, done):
            seen.append((method, stage, done))
            if (stage, done) == stopped:
                raise KeyboardInterrupt

        yield tick

    monkeypatch.setattr(sharded, "bars", stopping)
    stopped = "training", 2
    options = "--shard", "1/4"
    assert command(tmp_path / "killed", *options) == 130
    assert "with the same command\n" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npz"))
    seen.clear()
    stopped = None
    assert command(tmp_path / "killed", *options) == 0
    assert ("unitary", "training", 2) in seen
    assert ("unitary", "training", 0) not in seen
    assert command(tmp_path / "whole", *options) == 0
    assert not list(tmp_path.rglob("*going_on*"))
    files = [sorted((tmp_path / x).rglob("*.npz")) for x in ("killed", "whole")]
    assert len(files[0]) == len(files[1]) == 4
    for pair in zip(*files, strict=True):
        one, two = map(arrays, pair)
        for name in set(one) - {"run_seconds", "compile_seconds"}:
            np.testing.assert_array_equal(one[name], two[name])


def arrays(file):
    with np.load(file) as found:
        return dict(found)


def says_nothing(results, tasks):
    return Judgement(dict.fromkeys(results, ""), dict.fromkeys(results, ""), "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stress", "groups"])
def test_blocks_alone_have_the_bits_of_the_whole(name, tmp_path):
    """Two scales; readings, and what is trained after all methods."""
    part = tiny(studies.load(name).quick[0])._replace(judge=says_nothing)
    settings = part.quick._replace(seeds=4, tuning_seeds=3)
    whole = run(part, settings)
    problem, work = prepared(part, settings)
    found = Pieces(tmp_path, {part.name: {"a": 1}})
    every = pieces([(part, settings)])
    for number in range(2):
        (method,) = work
        numbers = [piece.block for piece in share(every, Shard(number + 1, 2))]
        own = work[method]._replace(blocks=work[method].blocks[numbers])
        runs = train_all({method: own}, settings.recipe(part.readings))
        found.write(part.name, method, numbers, runs[method])
    runs = {
        method: together([found.read(x) for x in every if x.method == method])
        for method in work
    }
    joined = concluded(part, settings, problem, work, runs)
    pd.testing.assert_frame_equal(files.metrics(joined), files.metrics(whole))
    # In the order of the problem, as in every table before there were shards.
    splits = [split for split in problem.splits if split != "train"]
    for result in (whole, joined):
        assert files.metrics(result)["split"].drop_duplicates().tolist() == splits
    for method, own in whole.methods.items():
        for field in ("metrics", "losses", "shares", "path", "readings"):
            pair = getattr(joined.methods[method], field), getattr(own, field)
            jax.tree.map(np.testing.assert_array_equal, *pair)


def test_the_array_job_is_a_script_whose_commands_there_are():
    file = ROOT / "docs" / "array_job.sh"
    subprocess.run(["bash", "-n", file], check=True)
    text = file.read_text()
    tasks = int(re.search(r"#SBATCH --array=1-(\d+)", text)[1])
    study = re.search(r"mtl-optax (study .*)", text)[1]
    assert study.endswith('--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"')
    words = [*study.split()[:-1], f"{tasks}/{tasks}"]
    assert parser().parse_args(words).shard == (tasks, tasks)
