"""What a run is made of, beside its data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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
