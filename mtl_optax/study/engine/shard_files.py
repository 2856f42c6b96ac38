"""What shards write: a file for each piece, and one that says what was asked for.

Whoever has the files of all pieces has what a run in one piece would have trained, bit
by bit where machines round alike.
"""

import io
import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtl_optax.study.engine.blocks import each_metric
from mtl_optax.study.engine.checkpoints import Refused, changes, plain
from mtl_optax.study.engine.program import StepLog
from mtl_optax.study.engine.shards import Piece, Shard
from mtl_optax.study.engine.train import LanesResult

SAID = "shard", "arguments", "identities"  # of shard_I_of_N.json
SECONDS = "compile_seconds", "run_seconds"


class Pieces:
    """OUT/shards: `shard_I_of_N.json` of each that began, PART/METHOD.BLOCK.npz."""

    def __init__(self, folder: Path, identities: dict[str, dict[str, Any]]):
        """Looks at what is there.

        Args:
          folder: OUT/shards, which need not be there.
          identities: of each part, all that its numbers depend on.

        Raises:
          Refused: if a shard there is of another run.
        """
        self.folder = folder
        self.identities = {name: plain(own) for name, own in identities.items()}
        for file, said in begun(folder).items():
            self._compare(file, said["identities"], self.identities)

    def begin(self, shard: Shard, arguments: list[str]) -> None:
        """Says which shard of which command began."""
        said = {"shard": shard, "arguments": arguments, "identities": self.identities}
        text = json.dumps(said, indent=1).encode()
        _replace(self.folder / f"shard_{shard.number}_of_{shard.of}.json", text)

    def has(self, piece: Piece) -> bool:
        """Whether its file is there."""
        return self._file(piece).exists()

    def write(
        self, part: str, method: str, blocks: list[int], run: LanesResult
    ) -> None:
        """The files of blocks that were trained together; a kill leaves none half."""
        size = next(iter(jax.tree.leaves(run.log))).shape[1] // len(blocks)
        for number, block in enumerate(blocks):
            at = slice(number * size, (number + 1) * size)
            own = LanesResult(
                log=jax.tree.map(lambda x, at=at: x[:, at], run.log),
                metrics=each_metric(lambda x, at=at: x[at], run.metrics),
                compile_seconds=0.0 if number else run.compile_seconds,
                run_seconds=run.run_seconds / len(blocks),
            )
            file = self._file(Piece(part, method, block, 0))
            _replace(file, _packed(own, self.identities[part]))

    def read(self, piece: Piece) -> LanesResult:
        """What a shard wrote; `Refused` if it is damaged, or of another run."""
        file = self._file(piece)
        try:
            with open(file, "rb") as opened:
                found = dict(np.load(opened))
            identity = json.loads(str(found.pop("identity")))
            run = _unpacked(found)
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise Refused(
                f"{file} is damaged ({error}): delete it, and run its shard again"
            ) from None
        self._compare(file, {piece.part: identity}, self.identities, piece.part)
        return run

    def _file(self, piece: Piece) -> Path:
        return self.folder / piece.part / f"{piece.method}.{piece.block}.npz"

    def _compare(self, file: Path, before: Any, now: Any, *parts: str) -> None:
        """Of identities by part: all, or those named."""
        if not parts and list(before) != list(now):
            found = (
                f"its parts are {', '.join(before)}, those of this one {', '.join(now)}"
            )
        else:
            names = parts or tuple(now)
            found = next(filter(None, (changes(before[x], now[x]) for x in names)), "")
        if found:
            raise Refused(
                f"{file} is of another run ({found}). Shards that are joined have "
                f"the same settings and versions: use another --out, or delete "
                f"{self.folder}"
            )


def begun(folder: Path) -> dict[Path, dict[str, Any]]:
    """What the shards say that began there."""
    found = {}
    for file in sorted(folder.glob("shard_*_of_*.json")):
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            found[file] = {name: said[name] for name in SAID}
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{file} is damaged: delete it") from None
    return found


def together(runs: list[LanesResult]) -> LanesResult:
    """Blocks, in their order, as `train` gives them."""
    return LanesResult(
        log=jax.tree.map(lambda *x: np.concatenate(x, axis=1), *[x.log for x in runs]),
        metrics=each_metric(lambda *x: np.concatenate(x), *[x.metrics for x in runs]),
        compile_seconds=sum(x.compile_seconds for x in runs),
        run_seconds=sum(x.run_seconds for x in runs),
    )


def _packed(run: LanesResult, identity: dict[str, Any]) -> bytes:
    """As npz; an array's name is the way to it."""
    arrays = {f"log {name}": x for name, x in run.log._asdict().items()}
    readings = arrays.pop("log readings")
    arrays = {name: x for name, x in arrays.items() if not isinstance(x, tuple)}
    arrays |= {f"reading {name}": x for name, x in readings.items()}
    for split, named in run.metrics.items():
        arrays |= {f"metric {json.dumps([split, k])}": x for k, x in named.items()}
    arrays |= {name: np.float64(getattr(run, name)) for name in SECONDS}
    buffer = io.BytesIO()
    np.savez(buffer, identity=np.array(json.dumps(identity)), **arrays)
    return buffer.getvalue()


def _unpacked(arrays: dict[str, Any]) -> LanesResult:
    log: dict[str, Any] = {"watched": ()}
    readings: dict[str, Any] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for key, value in arrays.items():
        kind, _, name = key.partition(" ")
        if kind == "log":
            log[name] = value
        elif kind == "reading":
            readings[name] = value
        elif kind == "metric":
            split, metric = json.loads(name)
            metrics.setdefault(split, {})[metric] = value
    seconds = {name: float(arrays[name]) for name in SECONDS}
    return LanesResult(StepLog(**log, readings=readings), metrics, **seconds)


def _replace(file: Path, content: bytes) -> None:
    """At once: others see the whole file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with open(new, "xb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(new, file)
