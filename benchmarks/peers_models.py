"""The models of `step_models.py` in torch, and their training step with fused Adam."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.step_models import CONVOLUTIONS, DENSE, EPSILON, HEADS, Problem
from benchmarks.step_ways import LEARNING_RATE

# Of features and losses; it leaves gradients behind and returns weights
Backward = Callable[[Tensor, list[Tensor]], Any]


def _parameter(array: Any) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array)))


def _linear(layer: Any) -> nn.Linear:
    module = nn.Linear(*layer["kernel"].shape)
    module.weight = _parameter(np.ascontiguousarray(layer["kernel"].T))
    module.bias = _parameter(layer["bias"])
    return module


def _norm(layer: Any) -> nn.LayerNorm:
    module = nn.LayerNorm(layer["scale"].shape, eps=EPSILON)
    module.weight, module.bias = _parameter(layer["scale"]), _parameter(layer["bias"])
    return module


def _table(array: Any) -> nn.Embedding:
    module = nn.Embedding(*array.shape)
    module.weight = _parameter(array)
    return module


def _mlp(trunk: Any) -> nn.Module:
    pairs = [(_linear(layer), nn.ReLU()) for layer in trunk.values()]
    return nn.Sequential(*(module for pair in pairs for module in pair))


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _cnn(trunk: Any) -> nn.Module:
    def modules() -> Iterator[nn.Module]:
        for layer, (_, stride) in zip(trunk.values(), CONVOLUTIONS, strict=True):
            num_in, num_out = layer["kernel"].shape[2:]
            module = nn.Conv2d(num_in, num_out, 3, stride, padding=1)
            kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
            module.weight, module.bias = _parameter(kernel), _parameter(layer["bias"])
            yield from (module, nn.ReLU())

    return nn.Sequential(*modules(), _Pool())


class _Block(nn.Module):
    def __init__(self, block: Any):
        super().__init__()
        for name in DENSE:
            setattr(self, name, _linear(block[name]))
        self.up, self.down = _linear(block["up"]), _linear(block["down"])
        self.before, self.middle = _norm(block["before"]), _norm(block["middle"])
        self.gelu = nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.down(self.gelu(self.up(self.middle(x))))

    def attention(self, x: Tensor) -> Tensor:
        split = (*x.shape[:-1], HEADS, x.shape[-1] // HEADS)
        query, key, value = (
            layer(x).reshape(split).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / np.sqrt(split[-1])
        mixed = scores.softmax(-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class _Transformer(nn.Module):
    def __init__(self, trunk: Any):
        super().__init__()
        self.tokens, self.places = _table(trunk["tokens"]), _table(trunk["places"])
        self.blocks = nn.Sequential(*map(_Block, trunk["blocks"].values()))
        self.last = _norm(trunk["last"])

    def forward(self, ids: Tensor) -> Tensor:
        places = self.places(torch.arange(ids.shape[1]))
        return self.last(self.blocks(self.tokens(ids) + places))


TRUNKS: dict[str, Callable[[Any], nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "transformer": _Transformer,
}


class Step:
    """Forward pass, gradients by one of the ways, and torch's fused Adam."""

    def __init__(self, problem: Problem, way: "Callable[[Step], Backward]"):
        inputs, targets = problem.data
        if problem.model == "cnn":
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        self.inputs = torch.from_numpy(inputs)
        self.targets = [torch.from_numpy(target) for target in targets.values()]
        self.trunk = TRUNKS[problem.model](problem.params["trunk"])
        heads = problem.params["heads"].values()
        self.heads = nn.ModuleList(map(_linear, heads))
        params = [*self.trunk.parameters(), *self.heads.parameters()]
        self.adam = torch.optim.Adam(params, lr=LEARNING_RATE, fused=True)
        self.backward = way(self)
        self.weights: Any = None

    def __call__(self) -> None:
        self.adam.zero_grad()
        features = self.trunk(self.inputs)
        losses = [
            (head(features) - target).square().mean()
            for head, target in zip(self.heads, self.targets, strict=True)
        ]
        self.weights = self.backward(features, losses)
        self.adam.step()
