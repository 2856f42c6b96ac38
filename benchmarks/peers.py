"""Which peers are there, and what was asked for: options of every benchmark.

Peers are called in the same process and the same rounds, and none is a dependency:
TorchJD where it is installed, LibMTL and JaxJD from checkouts of their source.
"""

import argparse
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

# What they are made of, where it is installed
PACKAGES = (
    "torch",
    "torchjd",
    "cvxpy",
    "clarabel",
    "ecos",
    "quadprog",
    "scipy",
    "qpax",
)


class Peers(NamedTuple):
    """Those that were asked for and are there."""

    torchjd: bool = False
    libmtl: Path | None = None
    jaxjd: Path | None = None

    def step_ways(self, *, same: bool) -> dict[str, Any]:
        """Ways to make a training step: with UPGrad, or plain and with other methods.

        Each is the `way` of a `peers_models.Step`.
        """
        ways: dict[str, Any] = {}
        if self.torchjd:
            from benchmarks import peers_step

            ways |= peers_step.SAME if same else peers_step.OTHERS
        if self.libmtl:
            from benchmarks import peers_libmtl

            methods = peers_libmtl.SAME if same else peers_libmtl.OTHERS
            ways |= peers_libmtl.step_ways(self.libmtl, methods)
        return ways

    def environment(self) -> dict[str, Any]:
        """Versions and torch's threads, empty without peers."""
        if not any(self):
            return {}
        versions: dict[str, str] = {}
        for name in PACKAGES:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        if self.libmtl:
            from benchmarks import peers_libmtl

            versions |= peers_libmtl.environment(self.libmtl)
        found: dict[str, Any] = {"versions": versions}
        if self.torchjd or self.libmtl:
            import torch

            found["torch_threads"] = torch.get_num_threads()
        return {"peers": found}


NONE = Peers()


def add_choices(parser: argparse.ArgumentParser, *, jaxjd: bool = False) -> None:
    parser.add_argument(
        "--torchjd", action="store_true", help="time TorchJD too, if it is installed"
    )
    parser.add_argument(
        "--libmtl", type=Path, help="and LibMTL: the root of a checkout of its source"
    )
    if jaxjd:
        parser.add_argument(
            "--jaxjd", type=Path, help="and JaxJD: the folder that holds its folder"
        )


def found(options: argparse.Namespace) -> Peers:
    """Says what is missing; call it before anything loads torch."""
    # Its threads would otherwise spin at barriers, and on busy cores that takes a
    # hundred times the time of the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    torchjd = options.torchjd and _imports("TorchJD", "torch", "torchjd")
    libmtl = options.libmtl if options.libmtl and _imports("LibMTL", "torch") else None
    return Peers(torchjd, libmtl, getattr(options, "jaxjd", None))


def _imports(title: str, *modules: str) -> bool:
    try:
        for module in modules:
            __import__(module)
    except ImportError as error:
        print(f"{title} left out: {error}.")
        return False
    return True
