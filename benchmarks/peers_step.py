"""TorchJD's ways to make the same training step, and torch's plain one.

The same parameters, data and regularisation of UPGrad as `step_ways.py`. TorchJD is
called where it is installed and is no dependency.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchjd.aggregation import UPGrad, UPGradWeighting
from torchjd.autogram import Engine
from torchjd.autojac import jac_to_grad, mtl_backward

from benchmarks.peers_models import Backward, Step

PLAIN = "torch plain"


def _plain(step: Step) -> Backward:
    return lambda features, losses: sum(losses).backward()


def _autojac(step: Step, chunk: int | None = None, og: bool = False) -> Backward:
    aggregator = UPGrad()

    def backward(features: Tensor, losses: list[Tensor]) -> Tensor:
        mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        shared = step.trunk.parameters()
        return jac_to_grad(shared, aggregator, optimize_gramian_computation=og)

    return backward


def _autogram(step: Step) -> Backward:
    # The losses are means over the batch: no dimension of theirs is the batch.
    engine, weighting = Engine(step.trunk, batch_dim=None), UPGradWeighting()

    def backward(features: Tensor, losses: list[Tensor]) -> Tensor:
        stacked = torch.stack(losses)
        weights = weighting(engine.compute_gramian(stacked))
        stacked.backward(weights)
        return weights

    return backward


SAME: dict[str, Callable[[Step], Backward]] = {
    "torchjd": _autojac,
    "torchjd og": lambda step: _autojac(step, og=True),
    "torchjd chunk 1": lambda step: _autojac(step, chunk=1),
    "torchjd chunk 1, og": lambda step: _autojac(step, chunk=1, og=True),
    "torchjd autogram": _autogram,
}
OTHERS: dict[str, Callable[[Step], Backward]] = {PLAIN: _plain}
