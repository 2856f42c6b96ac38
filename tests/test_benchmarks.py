"""The benchmarks run, and what they compute from times is right; no time is checked."""

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods import METHODS
from rich.console import Console

import mtl_optax as mtl
from benchmarks import (
    accumulation,
    aggregate,
    cases,
    dense_cost,
    flat_cost,
    gpu_check,
    gpu_checks,
    gpu_parts,
    gramian_forms,
    loading,
    long_run,
    long_train,
    memory,
    optimality,
    pareto,
    peers,
    peers_metaworld,
    per_sample,
    report,
    rl_update,
    scaling,
    solver_tables,
    solvers,
    step,
    step_models,
    step_ways,
    tables,
    timing,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted(ROOT.glob("benchmarks/results/*.json"))
SPREAD = {"median", "lower", "upper"}


class Clock:
    """Time that passes only where a contender says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def takes(self, *seconds, calls=None):
        """A contender whose call r takes the r-th of these times, in turn."""
        calls = [] if calls is None else calls

        def run():
            self.now += seconds[len(calls) % len(seconds)]
            calls.append(self.now)

        return run


def interleave(contenders, clock, **options):
    options = {"warmup": 0, "wall": clock, "cpu": lambda: clock() / 2} | options
    return timing.interleave(contenders, **options)


def test_each_contender_runs_once_a_round_and_warm_up_is_not_timed():
    clock, calls = Clock(), []
    run = clock.takes(100.0, 100.0, 1.0, 2.0, 3.0, calls=calls)
    samples = interleave({"a": run, "b": clock.takes(5.0)}, clock, rounds=3, warmup=2)
    assert len(calls) == 5
    np.testing.assert_allclose(samples.wall["a"], [1, 2, 3])
    np.testing.assert_allclose(samples.cpu["a"], [0.5, 1, 1.5])
    np.testing.assert_allclose(samples.wall["b"], [5, 5, 5])


def test_ratios_are_paired_within_rounds():
    # The machine slows down: the ratio of the medians, 40 / 10, would be 4.
    clock = Clock()
    contenders = {"base": clock.takes(1, 10, 100), "two": clock.takes(2, 40, 200)}
    samples = interleave(contenders, clock, rounds=3)
    found = timing.ratios(samples.wall, "base")
    assert found["base"] == (1, 1, 1)
    assert found["two"] == (2, 2, 3)
    summary = timing.summarise(samples, "base")["two"]
    assert summary["wall_ratio"] == {"median": 2, "lower": 2, "upper": 3}
    assert summary["cpu_ratio"] == {"median": 2, "lower": 2, "upper": 3}
    assert summary["wall_ms"]["median"] == pytest.approx(40e3)
    assert summary["cpu_ms"]["median"] == pytest.approx(20e3)


def test_a_clock_that_stands_still_gives_no_ratio():
    clock = Clock()
    samples = interleave({"a": clock.takes(0), "b": clock.takes(1)}, clock, rounds=2)
    assert np.isnan(timing.ratios(samples.wall, "a")["b"].median)


def test_floor_uses_the_bandwidth_of_the_same_round():
    # 10 bytes read in 1 s, then in 2 s: 20 bytes have floors of 2 s and 4 s.
    clock = Clock()
    probe = timing.Probe(clock.takes(1, 2), 10)
    samples = interleave({"a": clock.takes(6, 12)}, clock, rounds=2, probe=probe)
    assert timing.over_floor(samples.wall, "a", 20, probe) == (3, 3, 3)
    read = timing.bandwidth(samples.wall, timing.READ, probe.num_bytes)
    assert read.upper < 10e-9
    assert read.median == pytest.approx(7.5e-9)


def test_probe_name_is_taken():
    with pytest.raises(ValueError, match="name of the probe"):
        timing.interleave({timing.READ: lambda: None}, 1)


def test_environment_holds_no_paths(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/some/folder --xla_other=1")
    found = timing.environment()
    assert found["settings"]["XLA_FLAGS"] == "--xla_other=1"
    assert {"jax", "optax", "mtl_optax"} <= set(found["versions"])
    assert "/" not in json.dumps(found["versions"])


def test_json_has_null_for_nan(tmp_path):
    path = tmp_path / "new" / "out.json"
    timing.write_json(path, {"a": float("nan"), "b": [1.23456789, (2,)]})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.2346, [2]]}


def test_every_method_is_measured():
    assert cases.methods() == {row.name: row.family for row in METHODS}
    for name in cases.methods():
        cases.build(name, 3)


def test_unknown_arguments_name_the_place_to_add_them(monkeypatch):
    monkeypatch.setattr(cases, "ARGUMENTS", {})
    with pytest.raises(ValueError, match=r"requires \['key'\]: add .*cases.py"):
        cases.build("pcgrad", 2)


@pytest.mark.parametrize("num_tasks", [2, 10])
@pytest.mark.slow
def test_tasks_are_in_conflict(num_tasks):
    params = cases.parameters(20_000)
    assert len(jax.tree.leaves(params)) == 30
    assert cases.count(params) == pytest.approx(20_000, rel=0.01)
    stacked = cases.task_gradients(params, num_tasks)
    assert cases.least_cosine(stacked) < -0.2
    tx = cases.build("upgrad", num_tasks)
    _, state = jax.jit(tx.update)(stacked, tx.init(params), params)
    weights = mtl.task_weights(state)
    assert jnp.std(weights) > 0.01 * jnp.mean(weights), "as if there were no conflict"


@pytest.mark.slow
def test_aggregate_writes_all_keys(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(aggregate, "QUICK_SIZES", ((2, 100),))
    path = tmp_path / "out.json"
    options = ["--quick", "--rounds=2", "--methods", "mean", "upgrad"]
    assert aggregate.main([*options, f"--out={path}"]) == 0
    record = json.loads(path.read_text())
    assert {"date", "versions", "device", "load_average", "threads"} <= set(
        record["environment"]
    )
    (size,) = record["sizes"]
    assert size["num_tasks"] == 2
    assert size["num_leaves"] == 30
    assert set(size["results"]) == {"adam", "mean", "upgrad", timing.READ}
    num_params = size["num_params"]
    floors = {"adam": 7 * 4, "mean": 8 * 4, "upgrad": 10 * 4}
    for name, per_param in floors.items():
        row = size["results"][name]
        assert row["floor_bytes"] == per_param * num_params
        for key in ("wall_ms", "wall_ratio", "cpu_ratio", "wall_over_floor"):
            assert set(row[key]) == SPREAD
    shown = capsys.readouterr().out
    assert "upgrad" in shown
    assert "load average" in shown


def test_peers_that_are_missing_are_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    parser = argparse.ArgumentParser()
    peers.add_choices(parser)
    found = peers.found(parser.parse_args(["--torchjd", "--libmtl=there"]))
    assert found == peers.NONE
    assert found.environment() == found.step_ways(same=True) == {}
    shown = capsys.readouterr().out
    assert "TorchJD left out" in shown
    assert "LibMTL left out" in shown


@pytest.fixture
def few_leaves(monkeypatch):
    """Parameters in four leaves, not 30: every method is compiled, nothing is timed."""
    monkeypatch.setattr(cases, "_LAYERS", 2)


@pytest.mark.slow
def test_aggregate_quick_runs_every_method(monkeypatch, few_leaves):
    monkeypatch.setattr(aggregate, "QUICK_SIZES", ((3, 2_000),))
    assert aggregate.main(["--quick", "--rounds=1"]) == 0


def test_gramian_forms_measures_and_counts(tmp_path):
    path = tmp_path / "out.json"
    assert gramian_forms.main(["--quick", "--rounds=1", f"--out={path}"]) == 0
    cases = json.loads(path.read_text())["cases"]
    assert [row["rule"] for row in cases] == ["rows", "gradients"]
    # R = 8, m = n = 32, T = 2
    by_rows = 8**2 * (32 + 64) + 4 * 8 * 32 + 8 * 32**2
    direct = 2 * 8 * 32**2 + 4 * 32**2
    assert cases[0]["counted"] == pytest.approx(by_rows / direct, rel=1e-4)
    near = gramian_forms.at_ratio(1.0, 1024, 1024, 2)
    assert near.counted == pytest.approx(1, abs=0.02)


def test_what_the_rule_of_forms_loses():
    def lost(rule, ratio):
        return gramian_forms.lost({"rule": rule, "over": {"cpu": ratio}})

    assert (lost("rows", 1.5), lost("gradients", 0.5)) == (1.5, 2.0)
    assert (lost("rows", 0.5), lost("gradients", 1.5)) == (1.0, 1.0)


@pytest.mark.slow
def test_dense_cost_counts_and_measures(tmp_path, monkeypatch, capsys):
    backbone, _ = dense_cost.BACKBONES["conv, small"]
    monkeypatch.setattr(dense_cost, "BACKBONES", {"tiny": (backbone, (2, 2))})
    monkeypatch.setattr(dense_cost, "VARIANTS", {"plain": {}, "pool=2": {"pool": 2}})
    monkeypatch.setattr(dense_cost, "TIMED", ((4, 4),))
    path = tmp_path / "out.json"
    options = ["--quick", "--rounds=1", "--batch=1", "--features=2", f"--out={path}"]
    options += ["--parts", "parameters", "memory", "times"]  # the network takes minutes
    assert dense_cost.main(options) == 0
    record = json.loads(path.read_text())
    row = record["parameters"]["tiny"]

    def layer(num_in, num_out, width):
        return width**2 * num_in * num_out + 2 * num_out

    # Beside a backbone: its maps joined, two residual blocks, a last layer
    middle = layer(64, 64, 3) + layer(64, 256, 1)
    blocks = layer(4, 64, 1) + middle + layer(4, 256, 1) + layer(256, 64, 1) + middle
    each = row["backbone"] + layer(4, 4, 1) + blocks
    assert row["single-task nets"] == 3 * each + 257 * (1 + 3 + 13)
    assert row["EMANet"] > row["backbone"]
    found = record["temporary_bytes"]["4x4"]
    assert found["pool=2"] < found["plain"]
    assert set(record["times"]["4x4"]["pool=2"]["cpu_ratio"]) == SPREAD
    assert "| tiny |" in capsys.readouterr().out


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_gpu_check_says_that_there_is_no_gpu(capsys, tmp_path):
    path = tmp_path / "out.json"
    assert gpu_check.main([f"--out={path}"]) == 0
    said = capsys.readouterr().out
    assert said == "No GPU here, only cpu: nothing checked, nothing timed.\n"
    assert not path.exists()


@pytest.mark.slow
def test_gpu_check_measures_on_whatever_device_there_is(capsys, few_leaves):
    record = gpu_check.check(
        [(2, 100)], list(cases.methods()), rounds=1, read_bytes=4000, console=Console()
    )
    assert record["ok"]
    results = record["sizes"][0]["results"]
    assert set(results) == set(cases.methods())
    num_params = record["sizes"][0]["num_params"]
    assert results["upgrad"]["bytes"] == 4 * (2 * 2 + 1) * num_params
    assert results["mean"]["bytes"] == 4 * (2 + 1) * num_params
    assert "stays on the device" in capsys.readouterr().out


@pytest.mark.slow
def test_what_must_hold_on_a_gpu_holds_here():
    for part in gpu_parts.checks():
        rows = part.run()
        assert tuple(rows) == part.rows
        assert all(row.ok for row in rows.values()), (part.name, rows)


def test_a_part_that_fails_or_comes_too_late_is_said_to(monkeypatch, capsys):
    wrong, fine = gpu_checks.Row("0.1", ok=False), gpu_checks.Row("2 ms")
    some = [
        gpu_checks.Part("first", ("a", "b"), lambda: {"a": wrong, "b": fine}),
        gpu_checks.Part("second", ("c",), lambda: {"c": fine}),
    ]
    monkeypatch.setattr(gpu_parts, "parts", lambda quick=False: some)
    up = iter([False, True])
    found, about = {}, {"quick": True, "console": Console()}
    assert not gpu_check.run_parts(found, **about, time_is_up=lambda: next(up))
    assert "second: left out" in capsys.readouterr().out
    page = gpu_parts.page(found, "A device")
    assert "| first | a | **0.1** |\n| first | b | 2 ms |" in page
    assert f"| second | c | {gpu_parts.UNMEASURED} |" in page


def test_the_page_of_a_gpu_has_every_row():
    page = (ROOT / "benchmarks" / "results" / "gpu.md").read_text(encoding="utf-8")
    names = {(part.name, row) for part in gpu_parts.parts() for row in part.rows}
    assert {tuple(x) for x in re.findall(r"^\| (.*?) \| (.*?) \| ", page, re.M)} == {
        *names,
        ("what", "of"),
    }
    covered = " ".join(part.name for part in gpu_parts.parts())
    for what in ("step: mlp", "step: transformer", "P=20,000,000", "rule alone: T=64"):
        assert what in covered


def test_host_callback_is_found():
    def calls_back(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), x.dtype), x)

    text = {
        function: jax.jit(function).lower(1.0).compile().as_text()
        for function in (calls_back, jnp.sin)
    }
    assert gpu_check.host_operations(text[calls_back])
    assert not gpu_check.host_operations(text[jnp.sin])


def test_transfer_is_found():
    on_device = jnp.ones(3)
    add = jax.jit(jnp.add).lower(on_device, on_device).compile()
    assert gpu_check.transfer(lambda: add(on_device, on_device)) is None
    assert "isallowed" in gpu_check.transfer(lambda: jnp.add(on_device, np.ones(3)))


def test_other_errors_are_not_taken_for_transfers():
    with pytest.raises(ZeroDivisionError):
        gpu_check.transfer(lambda: 1 / 0)


@pytest.mark.parametrize("truncate", [False, True])
def test_precision_check_would_notice_tf32(truncate):
    def tf32(tree):
        bits = jax.lax.bitcast_convert_type(tree["w"], jnp.uint32)
        bits = bits + jnp.uint32(0 if truncate else 1 << 12)
        rounded = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFFE000), "float32")
        return {"w": mtl.gramian({"w": rounded})}

    assert gpu_check.gramian_error(tf32, 4) > 50 * gpu_check.TOLERANCE
    found = gpu_check.precision(4)
    assert found["ok"]
    assert found["error"] < gpu_check.TOLERANCE


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_say_where_they_come_from(path):
    record = json.loads(path.read_text())
    assert {"date", "versions", "load_average"} <= set(record["environment"])
    assert not re.search(r"/(home|root|tmp|Users)/", path.read_text())
    assert all(size["load_average"] for size in record["sizes"])


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_pages_are_made_of_the_committed_numbers(path):
    record = json.loads(path.read_text())
    text = path.with_suffix(".md").read_text()
    picture = path.with_suffix(".svg")
    made = report.generated(record, picture.name if picture.exists() else None)
    assert report.page(text, "", made, path.name) == text
    assert picture.exists() == bool(report.KINDS[record["benchmark"]].draw)


@pytest.mark.slow
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_one_command_makes_page_and_picture(path, tmp_path, capsys):
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    assert report.main([f"{copy}"]) == 0
    page = copy.with_suffix(".md").read_text()
    record = json.loads(path.read_text())
    assert record["environment"]["date"] in page
    assert "load average" in page
    if report.KINDS[record["benchmark"]].draw:
        assert f"]({path.stem}.svg)" in page
        assert "<svg" in copy.with_suffix(".svg").read_text()
    assert "Written" in capsys.readouterr().out


def spread(median):
    return {"median": median, "lower": median, "upper": median}


def rules_of(num_tasks, over, jaxjd):
    """A record of `solvers.py` in which UPGrad takes so much of its peers' time."""
    ratios = {"torchjd upgrad": over, "jaxjd qpax": jaxjd}
    peer = {name: {"wall": spread(r), "cpu": spread(r)} for name, r in ratios.items()}
    results = {name: {"wall_ms": spread(1.0)} for name in ("upgrad", *ratios)}
    results["upgrad"]["over_peer"] = peer
    return {
        "num_tasks": num_tasks,
        "rounds": 3,
        "load_average": [[1.0], [1.0]],
        "deviations": {"jaxjd qpax": 0.02},
        "results": results,
    }


def test_goals_that_are_missed_are_told():
    record = {"sizes": [rules_of(2, 0.5, 2.0), rules_of(8, 0.3, 0.1)]}
    table = solver_tables.against_goals(record, {"upgrad": 0.4}, 0.9)
    assert "| upgrad | 0.5 | 0.3 | 0.4 | **no**, 1 of 2 |" in table
    assert table.splitlines()[0].startswith("| wall / TorchJD's | T=2 | T=8 |")
    table = solver_tables.against_goals(record, {}, 0.9)
    assert "| upgrad | 0.5 | 0.3 | 0.9 | yes |" in table
    assert "| wall / jaxjd qpax | 2 | 0.1 |" in solver_tables.over_jaxjd(record)
    shown = solver_tables.by_tasks(record["sizes"][0])
    assert "| jaxjd qpax | 1 (1-1) | 2 | 2 | 2.0e-02 |" in shown


def test_what_is_written_by_hand_stays():
    first = report.page(None, "Title", "old numbers", "x.md")
    assert first.startswith("# Title")
    by_hand = first.replace("# Title", "# Mine\n\nBefore.") + "\nAfter.\n"
    again = report.page(by_hand, "Title", "new numbers", "x.md")
    assert again == by_hand.replace("old numbers", "new numbers")
    with pytest.raises(ValueError, match=r"x.md has no place for tables, and what is"):
        report.page("# All by hand\n", "Title", "new numbers", "x.md")
    cut = by_hand.replace(report.END, "")
    with pytest.raises(ValueError, match="put these two lines"):
        report.page(cut, "Title", "new numbers", "x.md")


def test_records_of_unknown_kind_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"pages are made of aggregate, step, memory"):
        report.write(path)


@pytest.mark.slow
def test_quadratic_programs_are_exact_and_timed():
    row = optimality.measure(5, 2, np.float32, count=8, rounds=2)["results"]
    assert set(row) == {"upgrad", "dualproj", "mgda"}
    for name, found in row.items():
        assert 0 <= found["roundings"] <= 64, name
        assert found["over_cholesky"]["median"] > 0, name


@pytest.mark.slow
def test_rules_are_timed_on_gramians_in_conflict(tmp_path, capsys):
    for num_tasks in solvers.TASKS:
        grams = solvers.gramians(num_tasks)
        norms = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))
        cosines = grams / norms[:, :, None] / norms[:, None, :]
        assert cosines.min(axis=(1, 2)).max() < -0.1
    path = tmp_path / "solvers.json"
    options = ["--quick", "--tasks", "3", "--methods", "upgrad", "cagrad"]
    assert solvers.main([*options, f"--out={path}"]) == 0
    record = json.loads(path.read_text())
    (size,) = record["sizes"]
    assert set(size["results"]) == {"upgrad", "cagrad", solvers.LAUNCH}
    assert size["deviations"] == {}
    assert record["jacobians"][0]["num_tasks"] == 2
    assert "| 2 x 10 | upgrad |" in capsys.readouterr().out


def test_solvers_of_a_peer_are_compared():
    class Peer:
        torchjd, jaxjd, libmtl = False, None, None

    grams = solvers.gramians(3)
    first = solvers.Solver(lambda gram: gram[0], [*grams])
    np.testing.assert_allclose(first.weights(), grams[:, 0])
    assert solvers.theirs(grams, ["upgrad"], Peer) == {}


@pytest.mark.slow
def test_steps_are_timed_against_tasks_and_samples(tmp_path, capsys):
    path = tmp_path / "scaling.json"
    options = ["--quick", "--axes", "tasks", "samples", "--values=2", "--rounds=1"]
    assert scaling.main([*options, "--ways", "plain", "features", f"--out={path}"]) == 0
    tasks, samples = json.loads(path.read_text())["sizes"]
    assert set(tasks["results"]) == {"plain", "features"}
    assert set(samples["results"]) == {"plain", "per_sample_grads", "vmap(grad)"}
    for row in (*tasks["results"].values(), *samples["results"].values()):
        assert set(row["wall_ratio"]) == SPREAD
        assert row["temporaries_mib"] >= 0
    assert "| features |" in capsys.readouterr().out
    page = report.write(path).read_text()
    assert "| step | tasks 2 |" in page
    assert "<svg" in path.with_suffix(".svg").read_text()


def test_devices_are_not_measured_beside_times():
    with pytest.raises(SystemExit):
        scaling.main(["--axes", "tasks", "devices"])


def test_parameters_spread_over_devices_take_less_memory_each():
    alone, eight = (
        scaling.on_devices(number, scaling.BASE, ["plain"])["results"]["plain"]
        for number in (1, 8)
    )
    assert eight["arguments_mib"] < alone["arguments_mib"] / 5


def test_sizes_are_read_from_the_command_line():
    assert aggregate._size("2x1e6") == (2, 1_000_000)


def test_steps_by_sample_are_measured():
    row = per_sample.measure("mlp", 3, "row sums", rounds=2, width=8)
    assert set(row["times"]) == set(row["gflop"]) == {"plain", "ours", "vmap(grad)"}
    assert "| mlp, 3, row sums | ours |" in per_sample.table([row])


@pytest.mark.slow
def test_ways_to_accumulate_are_timed(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ["--quick", "--methods", "uw", "mgda", "--rounds=1", f"--out={path}"]
    assert accumulation.main(options) == 0
    uw, mgda = json.loads(path.read_text())["sizes"]
    assert set(uw["results"]) - set(mgda["results"]) == {
        "accumulate_tasks, missing=False"
    }
    for name, row in {**uw["results"], **mgda["results"]}.items():
        assert set(row["cpu_ratio"]) == SPREAD
        assert (row["gflop"] is None) == (name in ("scan in the losses", "big batch"))
    assert "| scan in the losses |" in capsys.readouterr().out


@pytest.mark.slow
def test_ways_to_accumulate_give_the_same_update():
    """But for MultiSteps, which another method stands before."""
    (size,) = accumulation.QUICK
    params, ends = accumulation.parameters(size), {}
    xs = jax.random.normal(jax.random.key(0), (2, size.batch, size.width))
    for name, (tx, losses, micro) in accumulation.ways("uw", size).items():
        new, state = params, tx.init(params)
        for x in xs if micro else [xs]:
            _, grads = mtl.lazy_task_grads(losses)(new, x)
            updates, state = tx.update(grads, state, new)
            new = jax.tree.map(jnp.add, new, updates)
        ends[name] = new
    for name, end in ends.items():
        if name not in (accumulation.PLAIN, "MultiSteps behind"):
            chex.assert_trees_all_close(end, ends["big batch"], rtol=1e-4, atol=1e-6)


class FirstStep:
    """A step whose weights are known."""

    def __init__(self, *weights):
        self.known, self.weights = np.asarray(weights), None

    def __call__(self):
        self.weights = self.known


def test_steps_are_timed_only_if_their_weights_agree():
    steps = {"a": FirstStep(1.0, 0.5), "b": FirstStep(1.004, 0.5)}
    found = step.agreed(steps, "a", in_conflict=True)
    assert found == {"a": 0, "b": pytest.approx(0.004)}
    steps["b"] = FirstStep(1.0, 0.45)
    with pytest.raises(ValueError, match=r"weights differ.*'b': 0\.0[45]"):
        step.agreed(steps, "a", in_conflict=True)
    steps["b"] = FirstStep(np.nan, 0.5)
    with pytest.raises(ValueError, match="weights differ"):
        step.agreed(steps, "a", in_conflict=True)
    alike = {"a": FirstStep(0.5, 0.5)}
    with pytest.raises(ValueError, match="not in conflict"):
        step.agreed(alike, "a", in_conflict=True)
    assert step.agreed(alike, "a", in_conflict=False) == {"a": 0}


@pytest.mark.slow
def test_every_way_to_step_is_timed(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ["--quick", "--models=mlp", "--tasks=3", "--rounds=1", f"--out={path}"]
    assert step.main(options) == 0
    (size,) = json.loads(path.read_text())["sizes"]
    assert set(size["results"]) == set(step_ways.WAYS)
    assert set(size["deviations"]) == set(step_ways.EXACT)
    assert max(size["deviations"].values()) < 1e-4
    for row in size["results"].values():
        for key in ("wall_ms", "wall_ratio", "cpu_ratio", "wall_over_passes"):
            assert set(row[key]) == SPREAD
    assert "| lazy |" in capsys.readouterr().out
    made = report.generated(json.loads(path.read_text()), None)
    assert "**mlp, T=3** (1 rounds" in made
    assert "The quick form" in made
    options = ["--quick", "--zoo", "heads", "--ways", "T passes", "lazy"]
    assert step.main([*options, "--rounds=1"]) == 0
    assert "**heads, T=4**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "num_tasks"), [("cnn_training", 3), ("array_of_losses", 4)]
)
def test_models_of_the_zoo_say_how_many_tasks_they_have(name, num_tasks):
    assert step_models.from_the_zoo(name, quick=True).num_tasks == num_tasks


@pytest.mark.slow
def test_what_perturbed_gradients_cost(tmp_path, capsys):
    path = tmp_path / "out.json"
    assert flat_cost.main(["--quick", "--rounds=1", f"--out={path}"]) == 0
    record = json.loads(path.read_text())
    (size,) = record["sizes"]
    assert set(size["results"]) == set(flat_cost.WAYS)
    assert size["results"][flat_cost.FLAT]["cpu_over_flat"]["median"] == 1
    for row in size["results"].values():
        assert set(row["cpu_over_flat"]) == set(row["cpu_ratio"]) == SPREAD
    assert "| samo, beta=0 |" in capsys.readouterr().out
    assert "**T=2, width 16, batch 8**" in report.generated(record, None)


@pytest.mark.slow
def test_what_an_update_of_mt_sac_costs(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ["--quick", "--methods", rl_update.FAST, "--rounds=1", f"--out={path}"]
    assert rl_update.main(options) == 0
    record = json.loads(path.read_text())
    (size,) = record["sizes"]
    assert set(size["results"]) == {rl_update.SUM, rl_update.FAST}
    assert size["results"][rl_update.SUM]["wall_ratio"]["median"] == 1
    made = report.generated(record, None)
    assert "**3 tasks, 8 transitions of each, hidden layers 16 x 16**" in made
    assert "| lazy_task_grads |" in made
    assert "| cagrad, subsample 4 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_recipe_runs_with_a_peers_configuration(monkeypatch):
    """Theirs in place of the stand-in, whatever it is."""
    made = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class OptimizerConfig:
        lr: float = 3e-4
        max_grad_norm: float | None = None

        def spawn(self):
            made.append(self.max_grad_norm)
            return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(self.lr))

    theirs = ModuleType("metaworld_algorithms.config.optim")
    theirs.OptimizerConfig = OptimizerConfig
    for name in ("metaworld_algorithms", "metaworld_algorithms.config"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    monkeypatch.setitem(sys.modules, "recipe", None)
    config = peers_metaworld.recipe()["MethodConfig"]
    assert issubclass(config, OptimizerConfig)
    assert made == [1.0, 1.0]


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(ValueError, match="no folder metaworld_algorithms there; give"):
        peers_metaworld.found_at(tmp_path)


def test_goals_of_an_update_of_mt_sac_are_told():
    row = {key: spread(1.0) for key in ("wall_ms", "cpu_ms", "cpu_ratio")}
    row |= {"gflop": 1.0, "temporaries_mib": 1.0, "compile_s": 1.0}
    over = {"wall_ratio": spread(1.5), "wall_over_peer": spread(0.5)}
    results = {"cagrad": row | over, "pcgrad": row | over}
    about = rl_update.QUICK._asdict() | {"rounds": 3, "load_average": [[1.0], [1.0]]}
    table = tables.rl_update(about | {"results": results}, 1.8, 0.6)
    assert "cagrad / sum: 1.5, aimed at 1.8 or less." in table
    assert "pcgrad / peer's PCGrad: 0.5, aimed at 0.6 or less." in table


@pytest.mark.slow
def test_an_update_of_mt_sac_takes_hardly_more_flops_than_with_the_sum():
    """Tasks have rows of their own: one backward pass, whatever their number.

    Of the program as traced, in which six tasks with one pass each take three times
    as much.
    """
    size = rl_update.Size(6, 64, (96, 96))
    flops = {}
    for name in (rl_update.SUM, "cagrad", rl_update.FAST):
        agent = rl_update.agent(name, size)
        state = jax.eval_shape(agent.init, jax.random.key(0))
        update = jax.jit(agent.update).lower(state, size.batch(), jax.random.key(1))
        flops[name] = update.cost_analysis()["flops"]
    assert max(flops.values()) < 1.1 * flops[rl_update.SUM]


@pytest.mark.slow
def test_what_a_step_needs_beside_time(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ["--quick", "--models=mlp", "--tasks=2", "--ways", "plain"]
    assert memory.main([*options, "--processes", f"--out={path}"]) == 0
    (size,) = json.loads(path.read_text())["sizes"]
    row = size["results"]["plain"]
    keys = {"temporaries_mib", "gflop", "trace_s", "compile_s", "process_mib"}
    assert set(row) == keys
    assert min(row.values()) > 0
    assert row["process_mib"] < 2 * memory.held(), "as if this process were counted"
    assert "| plain |" in capsys.readouterr().out


@pytest.mark.optimized
@pytest.mark.slow
def test_a_gramian_step_holds_no_jacobian_and_costs_fewer_flops():
    problem = step_models.problem("mlp", 10)
    needs = memory.compiled(step_ways.make(step_ways.LAZY, problem), problem)
    trunk = jax.tree.leaves(problem.params["trunk"])
    assert needs["temporaries_mib"] < 10 * sum(x.nbytes for x in trunk) / 2**20
    # A plain step takes 4.5, T backward passes 28.9.
    assert needs["gflop"] < 19


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path, capsys):
    path = tmp_path / "out.json"
    assert long_run.main(["--quick", f"--out={path}"]) == 0
    record = json.loads(path.read_text())
    assert len(record["holds"]) == 6
    assert all(record["holds"].values())
    whole, killed = record["runs"].values()
    assert killed["kills"] == 2
    assert killed["steps gone on from"]
    # Twenty steps in which a task is NaN, in turn; where it had a label it was skipped.
    assert 10 < sum(whole["skipped"]) <= 20
    assert "| parameters and state equal bit by bit | yes |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_long_run_that_goes_wrong_is_noticed(tmp_path):
    for name, number in {"one": 0, "two": 0, "three": 1}.items():
        run = long_run.worker.fresh(16, 1)
        run[0]["heads"]["class"]["bias"] += number
        with long_run.worker.manager(tmp_path / name) as checkpoints:
            saved = long_run.worker.ocp.args.StandardSave(run)
            checkpoints.save(200, args=saved)
    same, other = (
        (tmp_path / "one", tmp_path / "two"),
        (tmp_path / "one", tmp_path / "three"),
    )
    assert long_run.equal(same, long_run.QUICK)
    assert not long_run.equal(other, long_run.QUICK)
    # One step of these has a NaN, in the second task, which has a label there or not.
    plan = long_run.QUICK._replace(steps=10)
    active = np.asarray(long_run.worker.batch(9)[2].any(axis=(1, 2)))
    assert long_run.worker.skips(plan) == [0, int(active[1]), 0]


@pytest.mark.slow
def test_a_training_that_is_killed_leaves_what_one_that_is_not_leaves(tmp_path):
    path = tmp_path / "train_long.json"
    assert long_train.main(["--short", f"--out={path}"]) == 0
    (size,) = json.loads(path.read_text())["sizes"]
    assert len(size["holds"]) == 8
    assert all(size["holds"].values())
    *killed, whole = size["killed"]["processes"]
    assert [life["kill"]["place"] for life in killed] == [
        "epoch",
        "evaluation",
        "after the last step",
    ]
    assert whole["kill"] is None
    page = report.write(path).read_text()
    assert "| results.json equal byte by byte | yes |" in page
    assert "| 2 | killed, after the last step | 9 | 9 |" in page


def test_kills_of_a_long_training_come_one_after_the_other():
    kills = long_train.kills(long_train.LONG)
    steps = [kill.step for kill in kills]
    assert steps == sorted(set(steps))
    assert len(kills) == 8
    assert {kill.place for kill in kills} == {
        "epoch",
        "evaluation",
        "save",
        "after the last step",
    }


def test_checkpoints_that_differ_in_a_bit_are_not_equal():
    one = [np.float32([0, 1]), np.int32([2])]
    assert long_train.equal((3, one), (3, [x.copy() for x in one]))
    assert not long_train.equal((3, one), (4, one))
    assert not long_train.equal((3, one), (3, one[:1]))
    assert not long_train.equal((3, one), (3, [np.float32([-0.0, 1]), one[1]]))
    assert not long_train.equal((3, one), (3, [one[0], np.int64([2])]))


@pytest.mark.slow
def test_what_files_cost_beside_the_step(tmp_path, capsys):
    path = tmp_path / "loading.json"
    assert loading.main(["--short", f"--out={path}"]) == 0
    (size,) = json.loads(path.read_text())["sizes"]
    found = size["results"]
    for name, row in found.items():
        assert set(row["wall_ms"]) == SPREAD, name
        assert ("cpu_ms" in row) == ("workers 1" not in name), name
    assert set(found[f"loop: {loading.CHEAPEST} | workers 1"]["over_step"]) == SPREAD
    step = found[f"step: {loading.CHEAPEST} | alone"]
    assert set(step["loader_over_it"]) == SPREAD
    assert "1/1 reading, augmentation | workers 1: " in capsys.readouterr().out
    assert "| cached |" in report.write(path).read_text()


@pytest.mark.slow
def test_fronts_and_their_costs_are_measured(tmp_path, capsys):
    path = tmp_path / "pareto.json"
    options = ["--quick", "--methods", "constant", f"--out={path}"]
    assert pareto.main([*options, "--problems", "VLMOP2", "digits"]) == 0
    record = json.loads(path.read_text())
    front, digits = record["sizes"]
    assert front["count"] == len(front["results"]["constant"]["losses"]) == 6
    assert 0 < front["results"]["constant"]["share"] <= 1
    assert len(digits["results"]["constant"]["accuracies"]) == 3
    (cost,) = record["costs"]
    assert set(cost["wall_ratio"]) == SPREAD
    assert "| VLMOP2 | constant | 6 x 5 |" in capsys.readouterr().out
    assert report.main([f"{path}"]) == 0
    assert "VLMOP2" in path.with_suffix(".svg").read_text()

    options = [*options, "--parts", "costs", "--problems", "VLMOP2"]
    assert pareto.main(options) == 0
    assert json.loads(path.read_text())["sizes"] == record["sizes"]  # kept
