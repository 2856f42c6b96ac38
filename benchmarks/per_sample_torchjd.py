"""TorchJD's autogram engine with `batch_dim=0`, on the networks of `per_sample.py`."""

import copy
import itertools
from typing import Any

import numpy as np
import torch
from torch import nn
from torchjd.aggregation import UPGradWeighting
from torchjd.autogram import Engine

from benchmarks.timing import Contender


class Encoder(nn.Module):
    """A transformer of three blocks whose layers come first by norm."""

    def __init__(self, width: int = 256):
        super().__init__()
        self.embed = nn.Embedding(1000, width)
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(3)
            )
        )
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits `[B, 10]`."""
        return self.head(self.blocks(self.embed(tokens)).mean(1))


def mlp() -> nn.Module:
    """Layers of one width."""
    sizes = 784, 1024, 1024, 1024
    layers = [
        layer
        for pair in itertools.pairwise(sizes)
        for layer in (nn.Linear(*pair), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


def convnet() -> nn.Module:
    """Convolutions with GroupNorm."""
    layers: list[nn.Module] = []
    for before, width, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
        layers += [
            nn.Conv2d(before, width, 3, stride, 1),
            nn.GroupNorm(8, width),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)
    )


NETS = {"mlp": mlp, "convnet": convnet, "encoder": Encoder}


def row_sums(gramian: torch.Tensor) -> torch.Tensor:
    """Weights that cost nothing, but need the Gramian."""
    return gramian.sum(1) / gramian.abs().sum()


def steps(
    name: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], method: str
) -> dict[str, Contender]:
    """The plain step and the Gramian step."""
    net = NETS[name]()
    inputs = torch.from_numpy(x.copy())
    inputs = inputs.permute(0, 3, 1, 2).contiguous() if inputs.ndim == 4 else inputs
    labels = torch.from_numpy(y.copy()).long()
    weighting = UPGradWeighting() if method == "upgrad" else row_sums
    alone = copy.deepcopy(net)  # the engine watches every forward pass of its own
    engine = Engine(net, batch_dim=0)

    def losses(net: nn.Module, reduction: str) -> torch.Tensor:
        return nn.functional.cross_entropy(net(inputs), labels, reduction=reduction)

    def plain() -> None:
        alone.zero_grad()
        losses(alone, "mean").backward()

    def by_sample() -> None:
        net.zero_grad()
        values = losses(net, "none")
        values.backward(weighting(engine.compute_gramian(values)))

    return {"torch plain": plain, "torchjd": by_sample}
