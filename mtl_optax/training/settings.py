"""What a run is made of, beside its data."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


def chosen(what: str, name: str, known: Collection[str]) -> str:
    """The name, if it is one of those; a ValueError with the nearest else."""
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"unknown {what} '{name}'{meant} Known: {', '.join(known)}")


# What moves no number of a run may change when it goes on.
FREE = ("workers", "log_every", "save_seconds")


@dataclass(frozen=True)
class Settings:
    """Of `mtl-optax train`, whose options say what each is."""

    method: str = "unitary"
    arch: str = "hps"
    encoder: str | None = None
    width: int | None = None
    epochs: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-4
    optimizer: str = "adam"
    schedule: str = "constant"
    seed: int = 0
    devices: int = 1
    workers: int = 0
    convention: str = "pixels"
    mix: Mapping[str, float] | None = None
    hyper: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None  # a safetensors file for encoders
    log_every: int = 20  # steps
    save_seconds: float = 300.0  # between two checkpoints within an epoch

    def identity(self) -> dict[str, Any]:
        """All that the numbers depend on."""
        return {name: x for name, x in asdict(self).items() if name not in FREE}
