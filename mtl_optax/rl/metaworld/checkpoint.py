"""A training run on disk: what it is, what it measured, and its last checkpoint.

A checkpoint is written between two stages, where every task begins an episode whose
goal follows from seed and stage. So agent, buffer, keys and the number of steps are all
of it: the simulator has no state that outlives its reset (a test holds that).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULT = "result.json"


class Refused(ValueError):
    """A folder that this run must not touch, or cannot go on from."""


class Folder:
    """`result.json`, and `checkpoint/` for as long as the run lasts."""

    def __init__(self, path: Path | str, identity: dict[str, Any], *, resume: bool):
        """Opens it.

        Args:
          path: of the run alone.
          identity: all that its numbers depend on, as JSON.
          resume: goes on from what is there, if anything is.

        Raises:
          Refused: if a run is there and `resume` is False, or it was another one.
        """
        self.path = Path(path).absolute()  # orbax takes no relative paths
        self.identity = json.loads(json.dumps(identity))
        self.records: list[dict[str, Any]] = []
        file = self.path / RESULT
        if not file.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            return
        if not resume:
            raise Refused(
                f"{file} is there: pass --resume to go on, or another folder."
            )
        before = json.loads(file.read_text("utf-8"))
        _compare(before["run"], self.identity, file)
        self.records = before["records"]

    def load(self, like: Any) -> Any | None:
        """The tree of the last checkpoint, shaped `like`; None before the first."""
        with self._manager() as manager:
            done = manager.latest_step()
            if done is None:
                self.records = []
                return None
            import orbax.checkpoint as ocp

            saved = manager.restore(done, args=ocp.args.StandardRestore())["leaves"]
        # A kill between the two leaves a record of a stage that is done again.
        self.records = [row for row in self.records if row["stage"] <= done]
        return jax.tree.unflatten(jax.tree.structure(like), saved)

    def save(self, tree: Any, record: dict[str, Any]) -> None:
        """A stage more: its record, then the checkpoint that replaces the last."""
        import orbax.checkpoint as ocp

        self.records.append(record)
        half = self.path / f"{RESULT}.tmp"
        half.write_text(as_text(self.identity, self.records), "utf-8")
        half.replace(self.path / RESULT)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        with self._manager() as manager:
            manager.save(
                record["stage"], args=ocp.args.StandardSave({"leaves": leaves})
            )

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        for half in self.path.glob("checkpoint/*.orbax-checkpoint-tmp*"):
            shutil.rmtree(half)  # of a kill
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self.path / "checkpoint", options=options)


def as_text(run: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """JSON with a line for each record."""
    lines = ",\n  ".join(map(json.dumps, records))
    return f'{{"run": {json.dumps(run)},\n "records": [\n  {lines}\n]}}\n'


def _compare(before: dict[str, Any], now: dict[str, Any], file: Path) -> None:
    differing = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise Refused(
            f"{file} is of another run: {'; '.join(differing)}. Its numbers would be "
            "those of neither: give the same settings, or another folder."
        )
