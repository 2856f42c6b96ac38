"""LibMTL's weightings, from a checkout of its source, and torch's fused Adam.

Its package as a whole asks for data sets and networks of others, so only the modules
of the weightings are imported. A weighting is a class that takes the place of part of
a model: it asks for the shared parameters, runs one backward pass a task, flattens
each gradient into a row of a matrix and writes the weighted sum back.

`Aligned_MTL` asks for `torch.symeig`, which torch no longer has.
"""

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import cases
from benchmarks.peers_models import Backward, Step

# Our name: its class, and the arguments that its command line has by default, or that
# make the two the same method.
WEIGHTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "upgrad": ("UPGrad", {"UPGrad_norm_eps": 1e-4, "UPGrad_reg_eps": 1e-4}),
    "cagrad": ("CAGrad", {"calpha": 0.4, "rescale": 1}),
    "mgda": ("MGDA", {"mgda_gn": "none"}),
    "pcgrad": ("PCGrad", {}),
    "imtl_g": ("IMTL", {}),
}
SAME, OTHERS = ("upgrad",), ("cagrad", "mgda")


def load(path: Path, name: str) -> type:
    """A class of `LibMTL/weighting/`, called `name` there and in its module."""
    for package in ("LibMTL", "LibMTL.weighting"):
        folder = path.joinpath(*package.split("."))
        if not folder.is_dir():
            raise ValueError(
                f"--libmtl {path}: no folder {package.replace('.', '/')} there; give "
                "the root of a checkout of LibMTL's repository."
            )
        if package not in sys.modules:
            module = ModuleType(package)
            module.__path__ = [str(folder)]
            sys.modules[package] = module
    return getattr(importlib.import_module(f"LibMTL.weighting.{name}"), name)


def _model(weighting: type, shared: nn.Module, num_tasks: int, **own: Any) -> Any:
    """The part of a model of LibMTL's that a weighting asks for."""

    class Model(weighting):
        def get_share_params(self) -> Any:
            return shared.parameters()

        def zero_grad_share_params(self) -> None:
            shared.zero_grad(set_to_none=False)

    model = type("Model", (Model,), own)()
    model.task_num, model.device = num_tasks, torch.device("cpu")
    model.rep_grad = False
    model.init_param()
    return model


def _way(path: Path, method: str) -> Callable[[Step], Backward]:
    title, options = WEIGHTINGS[method]

    def way(step: Step) -> Backward:
        model = _model(load(path, title), step.trunk, len(step.targets))
        return lambda features, losses: model.backward(torch.stack(losses), **options)

    return way


def step_ways(path: Path, methods: Sequence[str]) -> dict[str, Any]:
    """Its loops as ways of `peers_models.Step`."""
    return {f"libmtl {method}": _way(path, method) for method in methods}


class Aggregation:
    """What its weighting does with a ready matrix of gradients, and a step of Adam."""

    def __init__(
        self, weighting: type, options: Any, matrix: Tensor, like: Any, rate: float
    ):
        shared = nn.ParameterList(torch.zeros(leaf.shape[1:]) for leaf in like)
        for param in shared:
            param.grad = torch.zeros_like(param)

        def ready(model: Any, losses: Tensor, mode: str, rep_grad: bool = False) -> Any:
            return matrix

        self.options = options
        self.model = _model(weighting, shared, len(matrix), _compute_grad=ready)
        self.losses = torch.from_numpy(np.array(cases.task_losses(len(matrix))))
        self.adam = torch.optim.Adam(shared, lr=rate, fused=True)

    def __call__(self) -> None:
        self.model.backward(self.losses, **self.options)
        self.adam.step()


def aggregations(
    path: Path, names: Sequence[str], stacked: Any, rate: float
) -> dict[str, Aggregation]:
    """Those of our methods that it has, from one matrix of gradients."""
    leaves = jax.tree.leaves(stacked)
    parts = [torch.from_numpy(np.array(leaf)).flatten(1) for leaf in leaves]
    matrix = torch.cat(parts, dim=1)
    found = {}
    for name in names:
        if name in WEIGHTINGS:
            title, options = WEIGHTINGS[name]
            weighting = load(path, title)
            found[name] = Aggregation(weighting, options, matrix, leaves, rate)
    return found


def environment(path: Path) -> dict[str, str]:
    """Its version; it has none at run time."""
    found = re.search(r'^version = "(.*)"', (path / "pyproject.toml").read_text(), re.M)
    return {"libmtl": found[1] if found else "unknown"}
