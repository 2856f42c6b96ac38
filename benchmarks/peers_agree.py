"""Does ours give what theirs gives? The numbers of the pages for users of two packages.

    python -m benchmarks.peers_agree                   # TorchJD, where it is installed
    python -m benchmarks.peers_agree --libmtl CHECKOUT

Both see the same Jacobians, eight Gaussian ones of two and of four tasks in 30
dimensions, in float64. Printed is the largest difference of two updates over the length
of theirs. What is drawn at random is compared where the draw does not matter.
"""

import argparse
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Aggregate = Callable[[np.ndarray], Any]
Pair = tuple[str, Aggregate, Aggregate, tuple[int, ...]]
ALL, TWO, FOUR, SEVEN = (2, 4), (2,), (4,), (7,)
LOSSES = np.array([0.5, 2.0, 1.0, 3.0, 0.2, 0.7, 5.0])
STEPS = 3  # of methods with a state, on one Jacobian; the last update is compared


def jacobians(num_tasks: int) -> Iterator[np.ndarray]:
    """Half of them with rows of unlike lengths."""
    for seed in range(8):
        rows = np.random.default_rng(seed).standard_normal((num_tasks, 30))
        rows += 0.3 * np.random.default_rng(seed + 99).standard_normal((1, 30))
        yield rows * (np.arange(1, num_tasks + 1)[:, None] ** (seed % 2))


def ours(make: Callable[[int], Any], steps: int = STEPS) -> Aggregate:
    """The update of the last step."""

    @jax.jit
    def aggregate(jacobian: Any) -> Any:
        tx, params = make(len(jacobian)), jnp.zeros(jacobian.shape[1])
        losses, state = jnp.asarray(LOSSES[: len(jacobian)]), tx.init(params)
        for _ in range(steps):
            update, state = tx.update(jacobian, state, params, losses=losses)
        return update

    return aggregate


def report(package: str, pairs: list[Pair]) -> None:
    print(package)
    for name, theirs, mine, counts in pairs:
        gaps = []
        for num_tasks in counts:
            for jacobian in jacobians(num_tasks):
                wanted = np.asarray(theirs(jacobian))
                gap = np.linalg.norm(mine(jacobian) - wanted) / np.linalg.norm(wanted)
                gaps.append(gap)
        print(f"  {name:60} T={counts}  {max(gaps):.0e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libmtl", type=Path, metavar="CHECKOUT")
    path = parser.parse_args().libmtl
    jax.config.update("jax_enable_x64", True)
    print(f"torch {version('torch')}, jax {jax.__version__}")
    if path:
        from benchmarks import agree_libmtl

        report(f"LibMTL {agree_libmtl.version_of(path)}", agree_libmtl.pairs(path))
    else:
        from benchmarks import agree_torchjd

        report(f"TorchJD {version('torchjd')}", agree_torchjd.pairs())


if __name__ == "__main__":
    main()
