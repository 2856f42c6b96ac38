"""Two and four processes on JAX's distributed runtime: as one, and when one dies."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import many_hosts_process as job
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

SCRIPT = Path(job.__file__)
STEPS = 50
SECONDS = job.program["SECONDS"]
# Of a process that waits for one that died: so many, and as much as a machine with
# other work may take.
ENDS_WITHIN = SECONDS + 60
PATIENCE = 240


def by_hand(number, count, port):
    """What docs/launch/kubernetes.yaml sets, too."""
    return {
        "COORDINATOR_ADDRESS": f"localhost:{port}",
        "NUM_PROCESSES": str(count),
        "PROCESS_ID": str(number),
    }


def by_slurm(number, count, port):
    """What srun sets, but for the port."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "JAX_COORDINATOR_PORT": str(port),
    }


class Processes:
    """So many, that do what the lines say; none outlives the `with`."""

    def __init__(self, launcher, count, folder, *lines):
        # Held, so that nobody else gets it; the coordinator's server may share it.
        self.port = socket.socket()
        self.port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.port.bind(("localhost", 0))
        port = self.port.getsockname()[1]
        devices = {"JAX_NUM_CPU_DEVICES": str(job.DEVICES // count)}
        name = lines[-1].replace(":", "-")
        self.logs = [folder / f"{name}-{i}-of-{count}" for i in range(count)]
        self.running = []
        for number, log in enumerate(self.logs):
            place = launcher(number, count, port)
            with log.open("w") as out:
                self.running.append(
                    subprocess.Popen(
                        [sys.executable, SCRIPT, *lines],
                        cwd=folder,
                        env=os.environ | devices | place,
                        stdin=subprocess.PIPE,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.running:
            process.kill()
            process.wait()
            process.stdin.close()
        self.port.close()

    def end(self):
        """All of them well; what each wrote."""
        for process, log in zip(self.running, self.logs, strict=True):
            code = process.wait(PATIENCE)
            assert code == 0, log.read_text()
        return [log.read_text() for log in self.logs]

    def wait_for(self, text):
        """Until one of them has written it."""
        until = time.monotonic() + PATIENCE
        while not any(text in log.read_text() for log in self.logs):
            assert all(process.poll() is None for process in self.running)
            assert time.monotonic() < until
            time.sleep(0.1)

    def end_without(self, victim):
        """After it died the others do, with an error; what each wrote, and when."""
        code = self.running[victim].wait(PATIENCE)
        assert code == -signal.SIGKILL, self.logs[victim].read_text()
        died = time.monotonic()
        for process in self.running:
            assert process.wait(ENDS_WITHIN) != 0
        texts = [log.read_text() for log in self.logs]
        return texts, time.monotonic() - died


def losses_in(text, line):
    """The step it began with, and the losses of each, as one process wrote them."""
    begin, _, rest = text.partition(f"{line} from ")[2].partition("\n")
    found = {}
    for written in rest.splitlines():
        word, *numbers = written.split(" ")
        if word == "step":
            found[int(numbers[0])] = tuple(map(float.fromhex, numbers[1:]))
        elif " from " in written:
            break
    return int(begin), found


FOUR, TWO, CUT = "die:four:60:0", "train:two:50", "die:cut:40:1"
AGAIN, MOVED, LONG = "train:cut:50", "move:four:50", f"train:long:{job.FOREVER}"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What each process wrote, by line; the seconds that deaths took; files."""
    folder = tmp_path_factory.mktemp("many_hosts")
    texts, seconds = {}, {}
    with Processes(by_hand, 4, folder, FOUR) as four:
        texts[FOUR], seconds[FOUR] = four.end_without(0)
    with Processes(by_slurm, 2, folder, TWO, CUT) as two:
        texts[CUT], seconds[CUT] = two.end_without(1)
        texts[TWO] = texts[CUT]
    left = sorted(path.name for path in (folder / "cut").iterdir())
    with Processes(by_hand, 2, folder, AGAIN, MOVED, LONG) as again:
        again.wait_for(f"{LONG} from")
        again.running[1].send_signal(signal.SIGTERM)
        texts[AGAIN] = texts[MOVED] = texts[LONG] = again.end()
    return texts, seconds, folder, left


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The losses of one process that has all rows."""
    mesh = job.mesh_of(jax.devices()[:1])
    folder = tmp_path_factory.mktemp("alone")
    return job.train(mesh, folder, STEPS, *job.fresh(mesh))[1]


def on_disk(folder, number):
    """A checkpoint as this one process reads it, on one device."""
    params, state = job.fresh(job.mesh_of(jax.devices()[:1]))
    like = ocp.args.StandardRestore({"params": params, "state": state})
    with ocp.CheckpointManager(folder) as manager:
        found = manager.restore(number, args=like)
    return found["params"], found["state"]


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.slow
@pytest.mark.parametrize("line", [FOUR, TWO])
def test_losses_are_those_of_one_process(ran, alone, line):
    for text in ran[0][line]:
        first, found = losses_in(text, line)
        assert first == 0
        for number in range(STEPS):
            np.testing.assert_allclose(
                found[number], alone[number], rtol=1e-6, atol=1e-6
            )
    assert alone[STEPS - 1].sum() < 0.5 * alone[0].sum()


@pytest.mark.slow
@pytest.mark.parametrize("line", [FOUR, CUT])
def test_the_others_end_with_an_error_when_one_is_killed(ran, line):
    texts, seconds, _, _ = ran
    print(f"{line}: {seconds[line]:.1f} s after the death")
    assert seconds[line] < ENDS_WITHIN
    victim = int(line[-1])
    for number, text in enumerate(texts[line]):
        assert "done" not in text.splitlines()
        assert number == victim or "another task died" in text


@pytest.mark.slow
def test_nothing_on_disk_is_lost_and_a_restart_goes_on_with_the_same_numbers(ran):
    texts, _, folder, left = ran
    assert "20" in left
    assert bits(on_disk(folder / "cut", 20)) == bits(on_disk(folder / "two", 20))
    whole = losses_in(texts[TWO][0], TWO)[1]
    before = losses_in(texts[CUT][0], CUT)[1]
    first, after = losses_in(texts[AGAIN][0], AGAIN)
    assert first in (20, 40)  # 40 was not whole when the process died, or just so
    assert list(after) == list(range(first, STEPS))
    for found in before, after:
        assert all(found[n] == whole[n] for n in found if n < STEPS)
    assert bits(on_disk(folder / "cut", 40)) == bits(on_disk(folder / "two", 40))


@pytest.mark.slow
def test_a_checkpoint_of_four_processes_goes_on_in_two_and_in_one(ran, alone):
    texts, _, folder, _ = ran
    first, found = losses_in(texts[MOVED][0], MOVED)
    assert first == 40
    saved = on_disk(folder / "four", 40)
    moved = on_disk(folder / "four-moved", 40)
    assert bits(moved) == bits(saved)
    # As many devices, and so the same numbers, however many processes share them.
    whole = losses_in(texts[FOUR][1], FOUR)[1]
    assert found == {number: whole[number] for number in range(first, STEPS)}
    shutil.copytree(folder / "four-moved" / "40", folder / "one" / "40")
    mesh = job.mesh_of(jax.devices()[:1])
    (number, *_), here = job.train(mesh, folder / "one", STEPS, *job.fresh(mesh))
    assert number == STEPS
    assert list(here) == list(range(first, STEPS))
    for number in here:
        for losses in found[number], here[number]:
            np.testing.assert_allclose(losses, alone[number], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_after_a_signal_to_one_all_stop_at_the_same_step_and_it_is_on_disk(ran):
    texts, _, folder, _ = ran
    counts = [max(losses_in(text, LONG)[1]) + 1 for text in texts[LONG]]
    assert counts[0] == counts[1] < job.FOREVER
    assert (folder / "long" / str(counts[0])).is_dir()


def test_each_process_has_its_own_share_and_labels_are_known_unevenly():
    mesh = job.mesh_of(jax.devices()[:4])
    x, _, known = job.batch(0, mesh)
    counts = jnp.stack([known[task].reshape(4, -1).sum(1) for task in job.TASKS])
    assert (counts[0] == 4).all()
    assert len(set(counts[1].tolist())) > 1
    assert len({shard.data.tobytes() for shard in x.addressable_shards}) == 4


LAUNCH = job.PAGE.parent / "launch"


def test_kubernetes_file_says_what_the_program_reads():
    service, work = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    name, spec = service["metadata"]["name"], work["spec"]
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (work["apiVersion"], work["kind"]) == ("batch/v1", "Job")
    assert service["spec"]["clusterIP"] == "None"  # headless: names of pods
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": work["metadata"]["name"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 4
    assert spec["backoffLimit"] >= 10 * spec["completions"]  # ten deaths
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == name
    assert pod["restartPolicy"] == "OnFailure"
    (container,) = pod["containers"]
    assert container["command"][:2] == ["python", "-u"]
    given = {entry.pop("name"): entry for entry in container["env"]}
    assert given.keys() == by_hand(0, 2, 1).keys()
    assert given["NUM_PROCESSES"] == {"value": str(spec["completions"])}
    address = given["COORDINATOR_ADDRESS"]["value"]
    assert address == f"{work['metadata']['name']}-0.{name}:8476"
    field = given["PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert all(name in job.PAGE.read_text() for name in given)


FAKES = {
    "srun": 'echo "srun $*"; exit "$CODE"',
    "scontrol": 'echo "scontrol $*"',
}


@pytest.mark.parametrize(
    ("code", "restarts", "again"), [(0, 0, False), (1, 0, True), (1, 5, False)]
)
def test_slurm_file_starts_all_processes_and_starts_them_again(
    tmp_path, code, restarts, again
):
    script = LAUNCH / "slurm.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    places = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    counts = {"CODE": str(code), "SLURM_RESTART_COUNT": str(restarts)}
    env = os.environ | places | counts
    found = subprocess.run(["bash", script], env=env, capture_output=True, text=True)
    assert found.returncode == code
    wanted = ["srun --kill-on-bad-exit=1 python train.py"]
    wanted += ["scontrol requeue 7"] * again
    assert found.stdout.splitlines() == wanted
    options = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.M)
    options = dict(options)
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert {"nodes", "time", "requeue"} <= options.keys()
    assert options["signal"].startswith("TERM@")  # to the step, not to this script
