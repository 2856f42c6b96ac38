"""A run from its first step, or from its last checkpoint, to its end.

    folder/
      steps.csv        losses, and what the method did, every so many steps
      epochs.csv       metrics of validation data after every epoch
      results.json     metrics at the end, of the last and of the best state
      checkpoints/     last and best
      tensorboard/

A run that was stopped, by Ctrl-C or by SIGKILL, goes on to the same numbers.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtl_optax.data import loading
from mtl_optax.data.dataset import Dataset
from mtl_optax.data.scan import Scan
from mtl_optax.study.engine.checkpoints import (
    Checkpoints,
    Refused,
    Saved,
    as_before,
    identity,
    numbers,
)
from mtl_optax.study.report.files import as_json
from mtl_optax.training import kinds, logs, methods, networks, step
from mtl_optax.training.settings import Settings

Scores = dict[str, dict[str, float]]  # task -> metric -> value
LAST, BEST = "last", "best"
RESULTS = "results.json"
SHOWN = 6  # tasks in a line of progress
OTHERWISE = "start again with another --out"  # where a run cannot be resumed


class Diverged(ValueError):
    """A loss that is not finite any more: training has ended for this task."""


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    folder: Path
    scores: dict[str, dict[str, Scores]]  # "last" and "best" -> split -> scores
    best_epoch: int
    parameters: int  # numbers in the network
    seconds: float  # of training, in all processes of the run, without evaluation


@dataclass(frozen=True)
class Watch:
    """How a run tells what it does."""

    say: Callable[[str], None] = lambda text: None
    step: Callable[[int, int], None] = lambda done, of: None


class Run:
    r"""A run that is ready to begin, or to go on.

    Args:
      dataset: what is trained on.
      scan: what was found in it, by :func:`mtl_optax.data.scan.scan`.
      settings: method, network, sizes.
      folder: for what is written.
      resume: go on from the last checkpoint in the folder.
      watch: where progress is told.

    Raises:
      Refused: if there is nothing to resume, or it had other settings.
      ValueError: for what does not fit together: method, network, data, batch.

    Cost: that of the method; a checkpoint is the parameters and the optimiser's state.

    When not to use it: on several processes; read with `Reading(process=(i, n))` in a
    loop of your own.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from mtl_optax.data.table import open_table
      >>> toml = '''
      ... file = "people.csv"
      ... inputs.numeric = ["age"]
      ... tasks.ill.kind = "binary"
      ... tasks.days.kind = "regression"
      ... splits.val = 0.25
      ... '''
      >>> rows = [f"{age},{age % 2},{age / 10}" for age in range(20, 60)]
      >>> root = Path(tempfile.mkdtemp())
      >>> _ = (root / "people.csv").write_text("\n".join(["age,ill,days", *rows]))
      >>> _ = (root / "table.toml").write_text(toml)
      >>> dataset = open_table(root)
      >>> from mtl_optax.data.scan import scan
      >>> from mtl_optax.training.run import Run
      >>> from mtl_optax.training.settings import Settings
      >>> settings = Settings(method="cagrad", width=8, epochs=2, batch_size=10)
      >>> result = Run(dataset, scan(dataset), settings, root / "out").to_the_end()
      >>> sorted(result.scores["last"]["val"]["ill"])
      ['accuracy', 'f1', 'loss']
      >>> (root / "out" / "epochs.csv").exists()
      True
    """

    def __init__(
        self,
        dataset: Dataset,
        scan: Scan,
        settings: Settings,
        folder: Path,
        *,
        resume: bool = False,
        watch: Watch = Watch(),
    ):
        self.dataset, self.scan, self.settings = dataset, scan, settings
        self.folder, self.watch = folder, watch
        good = scan.good("train")
        self.steps_an_epoch = loading.num_batches(
            good, settings.batch_size, mixed=settings.mix is not None
        )
        self.steps = settings.epochs * self.steps_an_epoch
        _check_groups(settings)
        # For the methods that learn from validation data.
        self.bilevel = methods.on_two_batches(settings.method)
        for split in ("train", "val") if self.bilevel else ("train",):
            loading.check(
                *(dataset, scan.good(split), self._reading()),
                mix=settings.mix,
                split=split,
            )
        self.rows = NamedSharding(_mesh(settings), PartitionSpec("rows"))
        self.everywhere = NamedSharding(_mesh(settings), PartitionSpec())
        net = networks.build(
            *(dataset, settings.arch, settings.encoder),
            rngs=nnx.Rngs(settings.seed),
            width=settings.width,
            weights=settings.weights,
        )
        for note in net.notes:
            watch.say(note)
        # Of tasks with examples of their own, where the network reads one input.
        self.joins = (
            dataset.by_task
            and settings.mix is None
            and not networks.takes_inputs_by_task(net)
        )
        self.program = step.Program(
            graph=nnx.split(net, nnx.Param, ...)[0],
            tasks=dataset.tasks,
            tx=methods.transformation(
                *(settings.method, dataset.names),
                optimizer=settings.optimizer,
                learning_rate=settings.learning_rate,
                schedule=settings.schedule,
                steps=self.steps,
                seed=settings.seed,
                hyper=settings.hyper,
            ),
            seed=settings.seed,
            steps_an_epoch=self.steps_an_epoch,
            epochs=settings.epochs,
            with_active=scan.absent("train") or (self.bilevel and scan.absent("val")),
            convention=settings.convention,
        )
        self.state = jax.device_put(step.start(self.program, net), self.everywhere)
        self.parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
        folder.mkdir(parents=True, exist_ok=True)  # what is refused leaves none
        self.store = Checkpoints(
            *(folder / "checkpoints", self._identity()),
            resume=resume,
            otherwise=OTHERWISE,
        )
        self.seconds = 0.0
        if resume and not self._restore(LAST) and self.store.done(BEST) is not None:
            raise Refused(f"{self.store.folder / LAST} is missing: {OTHERWISE}")
        done = int(self.state.step)
        if resume:
            self._check_epochs(done)
        self.steps_log = logs.Log(folder / "steps.csv", done)
        self.epochs_log = logs.Log(folder / "epochs.csv", done)
        self.board = logs.Board(folder / "tensorboard", done)
        self.train_step = jax.jit(
            partial(step.train_step, self.program), donate_argnums=0
        )
        self.eval_step = jax.jit(partial(step.eval_step, self.program))
        if resume:
            self._keep_best()
            self._check_best()

    def to_the_end(self) -> Result:
        """Trains to the end of the last epoch, evaluates the last and the best state.

        Raises:
          Diverged: for a loss or a parameter that is not finite; no checkpoint has it.
        """
        done = int(self.state.step)
        batches = self._batches("train", done, self.settings.epochs)
        others = self._batches("val", done, None) if self.bilevel else None  # no end
        saved = time.perf_counter()
        if done:
            epoch = done / self.steps_an_epoch
            self.watch.say(
                f"going on from step {done} of {self.steps}, epoch {epoch:g}"
            )
        if done < self.steps:
            self.watch.say("compiling the step, which may take minutes ...")
        while done < self.steps:
            start = time.perf_counter()
            batch = self._on_devices(next(batches))
            second = None if others is None else self._on_devices(next(others))
            self.state, report = self.train_step(self.state, batch, second)
            done += 1
            ends = done % self.steps_an_epoch == 0
            if ends or done % self.settings.log_every == 0 or done == 1:
                self._log(done, report)
            self.seconds += time.perf_counter() - start
            self.watch.step(done, self.steps)
            saves = ends or time.perf_counter() - saved > self.settings.save_seconds
            if saves:
                self._check_finite(done)
            if ends:
                self._end_of_epoch(done)
            if saves:
                self._save(LAST, done)
                self._keep_best()
                saved = time.perf_counter()
        return self._result()

    def evaluate(self, split: str) -> Scores:
        """Metrics of the state as it is, over a whole split."""
        total = None
        # Workers would start anew each time, and import everything.
        reading = self._reading()._replace(workers=0)
        for batch in loading.evaluation(
            self.dataset, self.scan.good(split), reading, split=split
        ):
            found = self.eval_step(
                self.state.params, self.state.rest, self._on_devices(batch)
            )
            total = found if total is None else jax.tree.map(jnp.add, total, found)
        assert total is not None  # no split is empty after the scan
        return step.read(self.program, total)

    def _end_of_epoch(self, done: int) -> None:
        scores = self.evaluate("val")
        flat = {f"{t}/{m}": x for t, own in scores.items() for m, x in own.items()}
        self.epochs_log.add(done, flat)
        self.board.add(done, {f"val/{name}": x for name, x in flat.items()})
        epoch = done // self.steps_an_epoch
        rule = {t.name: kinds.in_delta_m(t)[0] for t in self.dataset.tasks[:SHOWN]}
        shown = [
            f"{t} {metric} {logs.shown(scores[t][metric])}"
            for t, metric in rule.items()
        ]
        more = [", ..."] if len(scores) > SHOWN else []
        self.watch.say(
            f"epoch {epoch}/{self.settings.epochs}: {', '.join(shown)}{''.join(more)}"
        )

    def _log(self, done: int, report: Mapping[str, Any]) -> None:
        """A row of steps.csv; waits for the device, and looks for NaN."""
        values = jax.tree.map(float, jax.device_get(report))
        self.steps_log.add(done, values)
        self.board.add(done, values)
        self._check_losses(done)

    def _check_losses(self, done: int) -> None:
        broken = np.asarray(self.state.broken)
        if broken.any():
            task = self.dataset.names[int(broken.argmax())]
            raise self._diverged(
                f"the loss of {task} was not finite in {broken.max()} of the first "
                f"{done} steps"
            )

    def _check_finite(self, done: int) -> None:
        """Losses so far, and parameters, of which the next losses are made."""
        self._check_losses(done)
        leaves = jax.tree.leaves(self.state.params)
        if not all(np.isfinite(np.asarray(x)).all() for x in leaves):
            raise self._diverged(f"parameters are not finite after {done} steps")

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"{what}. Start again with a smaller --lr and another --out; checkpoints "
            f"in {self.folder}, if there are any, are from before"
        )

    def _result(self) -> Result:
        splits = [name for name in ("val", "test") if name in self.dataset.splits]
        scores = {LAST: {split: self.evaluate(split) for split in splits}}
        best, seconds = self._best_step(), self.seconds
        if not self._restore(BEST):
            raise Refused(f"{self.store.folder / BEST} is missing: {OTHERWISE}")
        scores[BEST] = {split: self.evaluate(split) for split in splits}
        self.board.close()
        result = Result(
            *(self.folder, scores, best // self.steps_an_epoch, self.parameters),
            seconds,
        )
        summary = {
            "scores": scores,
            "best epoch": result.best_epoch,
            "parameters": self.parameters,
            "settings": self._identity(),
        }
        beside = self.folder / "results.tmp"
        beside.write_text(as_json(summary) + "\n", encoding="utf-8")
        beside.replace(self.folder / RESULTS)
        return result

    def _best_step(self) -> int:
        """That of the epoch with the lowest geometric mean of validation losses.

        The geometric mean has no unit: a task with large losses has no more say.
        """
        known = self.scan.with_labels("val")

        def height(row: Mapping[str, float]) -> float:
            losses = [row.get(f"{task}/loss", math.nan) for task in known]
            if any(map(math.isnan, losses)):
                return math.inf
            return sum(math.log(max(x, 1e-12)) for x in losses)

        return int(min(self.epochs_log.rows, key=height)["step"])

    def _keep_best(self) -> None:
        """Writes the state of now as the best one, if it is."""
        done = int(self.state.step)
        rows = self.epochs_log.rows
        if rows and self._best_step() == done != self.store.done(BEST):
            self._save(BEST, done)

    def _save(self, name: str, done: int) -> None:
        leaves = list(map(numbers, jax.tree.leaves(self.state)))
        self.store.save(name, Saved(done, leaves, (np.zeros(1),), self.seconds))

    def _check_epochs(self, done: int) -> None:
        """Raises unless the metrics of all epochs before the checkpoint are there."""
        path = self.folder / "epochs.csv"
        steps = {int(row["step"]) for row in logs.read(path)}
        ended = range(self.steps_an_epoch, done + 1, self.steps_an_epoch)
        if lacking := [step for step in ended if step not in steps]:
            raise Refused(
                f"{path} has no row of step {lacking[0]}, though the checkpoint is of "
                f"step {done}: {OTHERWISE}"
            )

    def _check_best(self) -> None:
        """Raises unless the best state so far is there."""
        best = self.store.load(BEST)
        at = self._best_step() if self.epochs_log.rows else None
        if at != (None if best is None else best.done):
            raise Refused(
                f"{self.store.folder / BEST} is not the state of step {at}: {OTHERWISE}"
            )

    def _restore(self, name: str) -> bool:
        """The state of a checkpoint, or False: stopped before there was one."""
        saved = self.store.load(name)
        if saved is None:
            return False
        leaves, structure = jax.tree.flatten(self.state)
        state = jax.tree.unflatten(structure, map(as_before, leaves, saved.leaves))
        self.state = jax.device_put(state, self.everywhere)
        self.seconds = saved.seconds
        return True

    def _identity(self) -> dict[str, Any]:
        parts = dict(self.scan.parts())
        return identity(
            f"train {self.dataset.name}",
            {**self.settings.identity(), "tasks": list(self.dataset.names)}
            | {f"examples of {name}": len(part.rows) for name, part in parts.items()}
            | {f"checksum of {name}": part.checksum for name, part in parts.items()},
        )

    def _reading(self) -> loading.Reading:
        own = self.settings
        return loading.Reading(own.batch_size, own.seed, own.workers)

    def _batches(self, split: str, start: int, epochs: int | None) -> Iterator[Any]:
        """From batch number `start`, as the network reads them."""
        batches = loading.training(
            *(self.dataset, self.scan.good(split), self._reading()),
            epochs=epochs,
            start=start,
            mix=self.settings.mix,
            split=split,
        )
        if not self.joins:
            return batches
        return (loading.joined(batch, self.dataset.tasks) for batch in batches)

    def _on_devices(self, batch: Any) -> Any:
        """Its rows shared out over the devices."""
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(self.rows, x), batch
        )


def _check_groups(settings: Settings) -> None:
    """Metrics of batches:N need whole groups of N pictures in each of our batches."""
    way, _, number = settings.convention.partition(":")
    if way == "batches" and settings.batch_size % int(number):
        raise ValueError(
            f"a batch of {settings.batch_size} does not hold whole groups of {number} "
            f"pictures, as --convention {settings.convention} asks: take a multiple."
        )


def _mesh(settings: Settings) -> Mesh:
    """The devices that share a batch."""
    found = jax.local_devices()
    if settings.devices > len(found):
        raise ValueError(
            f"{settings.devices} devices were asked for, and there are {len(found)} "
            f"({found[0].device_kind})."
        )
    if settings.batch_size % settings.devices:
        raise ValueError(
            f"a batch of {settings.batch_size} cannot be shared evenly by "
            f"{settings.devices} devices: take a multiple."
        )
    return Mesh(np.asarray(found[: settings.devices]), ("rows",))
