"""TorchJD as a contender: the same gradients, its aggregator, then its fused Adam.

TorchJD is called where it is installed and is no dependency. Its default call joins
the gradients of all parameters; `og` is `optimize_gramian_computation=True`, which
does not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torchjd import aggregation
from torchjd.autojac import jac_to_grad

from benchmarks import cases

# Our name: its class, and the arguments that make the two the same method.
AGGREGATORS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "aligned_mtl": ("AlignedMTL", lambda num_tasks: {}),
    "cagrad": ("CAGrad", lambda num_tasks: {"c": 0.4}),
    "constant": (
        "Constant",
        lambda num_tasks: {"weights": torch.linspace(1.0, 2.0, num_tasks)},
    ),
    "dualproj": ("DualProj", lambda num_tasks: {}),
    "fairgrad": ("FairGrad", lambda num_tasks: {"alpha": 1.0}),
    "graddrop": ("GradDrop", lambda num_tasks: {}),
    "imtl_g": ("IMTLG", lambda num_tasks: {}),
    "mean": ("Mean", lambda num_tasks: {}),
    "mgda": ("MGDA", lambda num_tasks: {}),
    "nash_mtl": ("NashMTL", lambda num_tasks: {"n_tasks": num_tasks}),
    "pcgrad": ("PCGrad", lambda num_tasks: {}),
    "unitary": ("Sum", lambda num_tasks: {}),
    "upgrad": ("UPGrad", lambda num_tasks: {}),
}


class Step:
    """One aggregation and one step of Adam on parameters of its own."""

    def __init__(
        self,
        aggregator: Any,
        jacobians: Sequence[torch.Tensor],
        learning_rate: float,
        **options: bool,
    ):
        self.params = [
            torch.zeros(jacobian.shape[1:], requires_grad=True)
            for jacobian in jacobians
        ]
        self.jacobians = jacobians
        self.aggregator = aggregator
        self.options = options
        self.adam = torch.optim.Adam(self.params, lr=learning_rate, fused=True)

    def __call__(self) -> None:
        self.adam.zero_grad()
        for param, jacobian in zip(self.params, self.jacobians, strict=True):
            param.jac = jacobian
        jac_to_grad(self.params, self.aggregator, **self.options)
        self.adam.step()


def steps(
    names: Sequence[str], stacked: Any, learning_rate: float
) -> dict[str, dict[str, Step]]:
    """For each of our methods, TorchJD's ways to do the same."""
    leaves = jax.tree.leaves(stacked)
    jacobians = [torch.from_numpy(np.array(leaf)) for leaf in leaves]
    num_tasks = jacobians[0].shape[0]
    families = cases.methods()
    found: dict[str, dict[str, Step]] = {}
    for name in names:
        if name not in AGGREGATORS:
            continue
        title, arguments = AGGREGATORS[name]
        ways: dict[str, dict[str, bool]] = {f"torchjd {name}": {}}
        # TorchJD's Nash-MTL keeps state and offers no such way.
        if families[name] == "gramian" and name != "nash_mtl":
            ways[f"torchjd {name} og"] = {"optimize_gramian_computation": True}
        found[name] = {
            way: Step(
                getattr(aggregation, title)(**arguments(num_tasks)),
                jacobians,
                learning_rate,
                **options,
            )
            for way, options in ways.items()
        }
    return found


def solvers(
    names: Sequence[str], matrices: Any
) -> dict[str, tuple[Callable, list[torch.Tensor]]]:
    """Its weightings and what they take of Gramians `[N, T, T]`, by our names.

    Without those whose solvers are not installed.
    """
    found: dict[str, tuple[Callable, list[torch.Tensor]]] = {}
    for name in names:
        if name not in AGGREGATORS:
            continue
        title, arguments = AGGREGATORS[name]
        try:
            method = getattr(aggregation, title)(**arguments(matrices.shape[-1]))
        except ImportError as error:
            print(f"TorchJD's {title} left out: {error}.")
            continue
        if hasattr(method, "gramian_weighting"):
            found[name] = method.gramian_weighting, tensors(matrices)
        else:  # Nash-MTL takes the gradients: any of this Gramian, the smallest
            found[name] = method.weighting, tensors(np.linalg.cholesky(matrices))
    return found


def tensors(matrices: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(matrix)) for matrix in matrices]
