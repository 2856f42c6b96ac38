"""What `--resume` needs: the state of each method, written with orbax as it trains.

A resumed run must give the same numbers as one that was never stopped. So it continues
from whole chunks only, and is refused where settings, versions or device differ.
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import mtl_optax

SECONDS = 5.0  # between two checkpoints of a method; the last one is always written


class Refused(ValueError):
    """A run that cannot be resumed."""


class Saved(NamedTuple):
    """A method between two chunks."""

    done: int  # steps
    leaves: list[NDArray]  # of parameters and optimiser state
    records: tuple[NDArray, ...]  # of all steps done, time first
    seconds: float  # spent in these steps


class Checkpoints:
    """A folder with `settings.json` and one folder a method."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        resume: bool,
        seconds: float = SECONDS,
        otherwise: str = "start again without --resume",
    ):
        """Opens the folder of a run that goes on, or makes a new one.

        Args:
          folder: OUT/checkpoints.
          settings: all that the numbers depend on, as JSON.
          resume: False deletes what another run has left here.
          seconds: see SECONDS.
          otherwise: what the user can do where the run cannot be resumed.

        Raises:
          Refused: if there is nothing to resume, or it had other settings.
        """
        self.folder = folder.absolute()  # orbax takes no relative paths
        self.seconds, self.otherwise = seconds, otherwise
        file = self.folder / "settings.json"
        settings = plain(settings)
        if resume:
            if not file.exists():
                raise Refused(f"nothing to resume in {folder.parent}")
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                raise self._damaged(file) from None
            self._compare(before, settings)
            # A kill may leave a checkpoint half written, of which orbax would warn.
            for half in self.folder.glob("*/*.orbax-checkpoint-tmp*"):
                shutil.rmtree(half)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        beside = file.with_suffix(".tmp")  # so that a kill leaves all of it or none
        beside.write_text(json.dumps(settings, indent=2) + "\n")
        beside.replace(file)

    def done(self, method: str) -> int | None:
        """The steps of what was last written of the method, which is not read."""
        if not (self.folder / method).exists():
            return None
        with self._manager(method) as manager:
            return manager.latest_step()

    def load(self, method: str) -> Saved | None:
        """What was last written of the method."""
        import orbax.checkpoint as ocp

        done = self.done(method)
        if done is None:
            return None
        with self._manager(method) as manager:
            try:
                tree = manager.restore(done, args=ocp.args.StandardRestore())
            except Exception as error:  # of many kinds, as many as ways to break a file
                raise self._damaged(self.folder / method) from error
        leaves = [np.asarray(leaf) for leaf in tree["leaves"]]
        return Saved(done, leaves, tuple(tree["records"]), float(tree["seconds"]))

    def save(self, method: str, saved: Saved) -> None:
        """Writes it, then deletes what was there; a kill leaves one or the other."""
        import orbax.checkpoint as ocp

        tree = {
            "leaves": saved.leaves,
            "records": list(saved.records),
            "seconds": np.asarray(saved.seconds),
        }
        with self._manager(method) as manager:
            manager.save(saved.done, args=ocp.args.StandardSave(tree))

    def remove(self) -> None:
        """Deletes the folder: the run is finished and its results are written."""
        shutil.rmtree(self.folder)

    def _damaged(self, path: Path) -> Refused:
        return Refused(f"{path} is damaged: {self.otherwise}")

    def _compare(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        if found := changes(before, now):
            raise Refused(
                f"the run in {self.folder.parent} had other settings ({found}). Resume "
                f"it with its own, or {self.otherwise}"
            )

    def _manager(self, method: str) -> Any:
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self.folder / method, options=options)


def numbers(leaf: Any) -> NDArray:
    """A leaf as it is written: random keys, which a state may hold, as numbers."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def as_before(leaf: Any, saved: Any) -> jax.Array:
    """What was written of such a leaf."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(leaf))
    return jnp.asarray(saved)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def identity(study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """All that the numbers of a run depend on."""
    packages = ("jax", "jaxlib", "optax")
    return {
        "study": study,
        **settings,
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
        **{f"version of {name}": version(name) for name in packages},
        "version of mtl_optax": mtl_optax.__version__,
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two identities, in words; "" if nothing does."""
    return "; ".join(
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    )


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file of JSON."""
    text = json.dumps(values, default=lambda x: np.asarray(x).tolist())
    return dict(json.loads(text))
