"""Two and four processes on JAX's distributed runtime: as one, and when one dies."""

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
import pytest

SCRIPT = Path(job.__file__)
STEPS = 50
# Of a process that waits for one that died: the heartbeat's, and as much as a machine
# with other work may take.
ENDS_WITHIN = job.HEARTBEAT + 60
PATIENCE = 400


class Processes:
    """So many, that do what the lines say; none outlives the `with`."""

    def __init__(self, count, folder, *lines):
        # Held, so that nobody else gets it; the coordinator's server may share it.
        self.port = socket.socket()
        self.port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.port.bind(("localhost", 0))
        address = f"localhost:{self.port.getsockname()[1]}"
        name = lines[-1].replace(":", "-")
        self.logs = [folder / f"{name}-{i}-of-{count}" for i in range(count)]
        self.running = []
        for number, log in enumerate(self.logs):
            command = [sys.executable, SCRIPT, str(number), str(count), address, *lines]
            with log.open("w") as out:
                self.running.append(
                    subprocess.Popen(
                        command,
                        cwd=folder,
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

    def end_without(self, victim):
        """After it died the others do, with an error; what each wrote, and when."""
        assert self.running[victim].wait(PATIENCE) == -signal.SIGKILL
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


FOUR, TWO, AGAIN, MOVED = (
    "die:four:60:0",
    "train:two:50",
    "train:cut:50",
    "move:four:50",
)
CUT = "die:cut:40:1"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What was written by line, one a process; the seconds that deaths took; files."""
    folder = tmp_path_factory.mktemp("many_hosts")
    texts, seconds = {}, {}
    with Processes(4, folder, FOUR) as four:
        texts[FOUR], seconds[FOUR] = four.end_without(0)
    with Processes(2, folder, TWO, CUT) as two:
        texts[CUT], seconds[CUT] = two.end_without(1)
        texts[TWO] = texts[CUT]
    left = sorted(path.name for path in (folder / "cut").iterdir())
    with Processes(2, folder, AGAIN, MOVED) as again:
        texts[AGAIN] = texts[MOVED] = again.end()
    return texts, seconds, folder, left


@pytest.fixture(scope="module")
def alone():
    """The losses of one process that has all rows."""
    mesh = job.mesh_of(jax.devices()[:1])
    return job.train(*job.fresh(mesh), range(STEPS), mesh)


def on_disk(folder, number):
    """A checkpoint as this one process reads it, on one device."""
    mesh = job.mesh_of(jax.devices()[:1])
    with job.checkpoints(folder) as manager:
        return job.restored(manager, number, mesh)


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
    mesh = job.mesh_of(jax.devices()[:1])
    here = job.train(*moved, range(first, STEPS), mesh)
    for number in range(first, STEPS):
        for losses in found[number], here[number]:
            np.testing.assert_allclose(losses, alone[number], rtol=1e-6, atol=1e-6)


def test_each_process_has_its_own_share_and_labels_are_known_unevenly():
    mesh = job.mesh_of(jax.devices()[:4])
    x, _, known = job.batch(0, mesh)
    counts = jnp.stack([known[task].reshape(4, -1).sum(1) for task in job.TASKS])
    assert (counts[0] == 4).all()
    assert len(set(counts[1].tolist())) > 1
    assert len({shard.data.tobytes() for shard in x.addressable_shards}) == 4
