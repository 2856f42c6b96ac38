"""How exact the quadratic programs' solutions are, and what they cost, by size.

Random task gradients of each size, more tasks than dimensions among them: by how many
roundings of its largest terms each optimality condition is violated at most, over all
matrices; and the time of one matrix among a batch, as a ratio to that of one Cholesky
factor of its size in the same batch.

    python -m benchmarks.optimality --quick
    python -m benchmarks.optimality --out optimality.json
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import tables, timing
from mtl_optax.core.solvers.dual_cone import project_dual_cone
from mtl_optax.core.solvers.min_norm import min_norm_weights

SIZES = ((12, 6), (20, 10), (20, 19), (50, 30), (50, 49), (64, 8), (10, 100), (50, 200))
TIMED = 40  # matrices in a timed batch

Solver = Callable[[jax.Array], jax.Array]


def upgrad(gramian: jax.Array) -> jax.Array:
    """The projections of all T gradients, `[T, T]`."""
    each = jnp.eye(len(gramian), dtype=gramian.dtype) / len(gramian)
    return jax.vmap(project_dual_cone, (None, 0))(gramian, each)


def dualproj(gramian: jax.Array) -> jax.Array:
    """The projection of the mean, `[1, T]`."""
    return project_dual_cone(gramian, jnp.full_like(gramian[0], 1 / len(gramian)))[None]


def mgda(gramian: jax.Array) -> jax.Array:
    """The weights of the shortest vector, `[T]`."""
    return min_norm_weights(gramian, jnp.ones(len(gramian), bool))


SOLVERS: dict[str, Solver] = {"upgrad": upgrad, "dualproj": dualproj, "mgda": mgda}


def gramians(num_tasks: int, width: int, count: int) -> Any:
    """`[count, T, T]`: one half of Gaussian rows, one of small whole numbers."""
    rng = np.random.default_rng(1000 * num_tasks + width)
    shape = (count // 2, num_tasks, width)
    rows = np.concatenate([rng.standard_normal(shape), rng.integers(-3, 4, shape)])
    return rows @ rows.mT


def roundings(name: str, gramian: Any, found: Any) -> float:
    """The largest violation of the optimality conditions, in roundings."""
    eps = np.finfo(gramian.dtype).eps
    gramian, found = gramian.astype(float), found.astype(float)
    norms = np.sqrt(np.diagonal(gramian, axis1=1, axis2=2))
    norms = np.where(norms > 0, norms, 1)
    if name == "mgda":
        slope = np.einsum("bts,bs->bt", gramian, found)
        gap = slope - np.einsum("bt,bt->b", slope, found)[:, None]
        off = np.abs(np.minimum(norms**2 * found, gap))
        scale = np.einsum("bts,bs->bt", np.abs(gramian), found)
    else:
        num_tasks = gramian.shape[-1]
        start = np.eye(num_tasks) / num_tasks if name == "upgrad" else 1 / num_tasks
        cosines = gramian / norms[:, :, None] / norms[:, None, :]
        lengths = norms[:, None, :] * found
        slope = np.einsum("bts,bps->bpt", cosines, lengths)
        off = np.abs(np.minimum(norms[:, None, :] * (found - start), slope))
        scale = np.einsum("bts,bps->bpt", np.abs(cosines), lengths)
    scale = scale.max(-1)
    return float(np.max(off.max(-1) / np.where(scale > 0, scale, 1)) / eps)


def measure(
    num_tasks: int, width: int, dtype: Any, count: int, rounds: int
) -> dict[str, Any]:
    """Of each solver its residual and its time over that of a Cholesky factor."""
    matrices = gramians(num_tasks, width, count).astype(dtype)
    some = jnp.asarray(matrices[:: max(count // TIMED, 1)][:TIMED])
    definite = some + jnp.eye(num_tasks, dtype=dtype)[None]
    found, contenders = {}, {}
    for name, solver in SOLVERS.items():
        chunked = jax.jit(lambda x, f=solver: lax.map(f, x, batch_size=20))
        found[name] = roundings(name, matrices, np.asarray(chunked(matrices)))
        batched = jax.jit(jax.vmap(solver)).lower(some).compile()
        contenders[name] = lambda f=batched: f(some).block_until_ready()
    factor = jax.jit(lax.linalg.cholesky).lower(definite).compile()
    contenders["cholesky"] = lambda: factor(definite).block_until_ready()
    before = timing.load_average()
    times = timing.interleave(contenders, rounds=rounds)
    over = timing.ratios(times.wall, "cholesky")
    return {
        "num_tasks": num_tasks,
        "width": width,
        "dtype": np.dtype(dtype).name,
        "rounds": rounds,
        "load_average": [before, timing.load_average()],
        "results": {
            name: {"roundings": found[name], "over_cholesky": over[name]._asdict()}
            for name in SOLVERS
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few matrices and sizes")
    parser.add_argument("--count", type=int, help="matrices of each size, default 2000")
    parser.add_argument("--rounds", type=int, help="default 30, with --quick 2")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    count = options.count or (8 if options.quick else 2000)
    record: dict[str, Any] = {
        "benchmark": "optimality",
        "quick": options.quick,
        "count": count,
        "environment": timing.environment(),
        "sizes": [],
    }
    for num_tasks, width in SIZES[: 1 if options.quick else None]:
        for dtype in (np.float32, np.float64):
            rounds = options.rounds or (2 if options.quick else 30)
            with jax.enable_x64(dtype is np.float64):
                found = measure(num_tasks, width, dtype, count, rounds)
            record["sizes"].append(found)
    print(tables.optimality(record))
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
