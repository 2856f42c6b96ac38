"""Times the rules of methods on a Gramian alone, beside those of peers, by tasks.

One compiled call a matrix and one row of weights back, as a peer's call gives them; so
the launch of a program is in the time of ours, of which a training step has only one
in all ("launch" is that of a program which does nothing). TorchJD's weightings get
float32, as ours do; JaxJD's float64, which it asks for. Then UPGrad from the Jacobian
at the sizes that JaxJD has published times of, beside those, which are of another
machine.

    python -m benchmarks.solvers --quick
    python -m benchmarks.solvers --torchjd --jaxjd FOLDER --out solvers.json
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtl_optax as mtl
from benchmarks import peers, solver_tables, timing
from benchmarks.peers_published import JAXJD as PUBLISHED

TASKS = (2, 4, 8, 10, 16, 20, 32, 50, 64)
QUICK_TASKS = (2, 5)
MATRICES = 4  # of each size, all of which a sample solves
LAUNCH = "launch"
REG_EPS = 1e-4  # TorchJD's and JaxJD's

# As peers have them: UPGrad regularised, CAGrad not rescaled
RULES: dict[str, mtl.Weighting] = {
    "upgrad": mtl.upgrad.weighting(reg_eps=REG_EPS),
    "dualproj": mtl.dualproj.weighting(reg_eps=REG_EPS),
    "mgda": mtl.mgda.weighting(),
    "cagrad": mtl.cagrad.weighting(c=0.4, rescale=0),
    "nash_mtl": mtl.nash_mtl.weighting(max_norm=1.0),
    "fairgrad": mtl.fairgrad.weighting(),
    "pcgrad": mtl.pcgrad.weighting(key=0),
    "aligned_mtl": mtl.aligned_mtl.weighting(),
    "imtl_g": mtl.imtl_g.weighting(),
}
# No peer has these.
OURS: dict[str, mtl.Weighting] = {
    "imgrad": mtl.imgrad.weighting(rescale=0),
    "conic": mtl.conic.weighting(cosine=0.9),
}
# Weights that depend on draws
NOT_COMPARED = ("pcgrad",)


def gramians(num_tasks: int) -> Any:
    """`[MATRICES, T, T]`: neighbours in conflict, norms from 1 to 3."""
    random = np.random.default_rng(num_tasks)
    mix = np.eye(num_tasks) - 0.6 * np.eye(num_tasks, k=-1)
    mix *= np.geomspace(1.0, 3.0, num_tasks)[:, None]
    noise = random.standard_normal((MATRICES, num_tasks, 4 * num_tasks))
    rows = mix @ noise / np.sqrt(4 * num_tasks)
    return (rows @ rows.mT).astype(np.float32)


def compiled(rule: mtl.Weighting, num_tasks: int) -> Callable[[jax.Array], jax.Array]:
    """The weights of a Gramian, `[T]`."""
    state, active = rule.init(num_tasks), jnp.ones(num_tasks, bool)
    losses = jnp.ones(num_tasks)

    def weights(gramian: jax.Array) -> jax.Array:
        return rule.update(gramian, state, losses=losses, active=active)[0]

    return jax.jit(weights)


class Solver:
    """Solves all of some matrices, one call after the other."""

    def __init__(self, solve: Callable[[Any], Any], matrices: Sequence[Any]):
        self.solve, self.matrices = solve, matrices

    def __call__(self) -> None:
        for matrix in self.matrices:
            jax.block_until_ready(self.solve(matrix))

    def weights(self) -> Any:
        """Of each matrix."""
        return np.stack([np.asarray(self.solve(m), np.float64) for m in self.matrices])


def ours(matrices: Any, names: Sequence[str]) -> dict[str, Solver]:
    num_tasks = matrices.shape[-1]
    here = [jnp.asarray(matrix) for matrix in matrices]
    found = {
        name: Solver(compiled((RULES | OURS)[name], num_tasks), here) for name in names
    }
    return found | {LAUNCH: Solver(jax.jit(lambda gramian: gramian[0] + 1), here)}


def theirs(
    matrices: Any, names: Sequence[str], others: peers.Peers
) -> dict[str, dict[str, Solver]]:
    """For each method of ours the solvers of peers, by name."""
    found: dict[str, dict[str, Solver]] = {name: {} for name in names}
    if others.torchjd:
        from benchmarks import peers_torchjd

        for name, solver in peers_torchjd.solvers(names, matrices).items():
            found[name][f"torchjd {name}"] = Solver(*solver)
    if others.jaxjd and "upgrad" in names:
        from benchmarks import peers_jaxjd

        doubles = peers_jaxjd.doubles(matrices)
        for title, solve in peers_jaxjd.weightings(others.jaxjd, doubles[0]).items():
            found["upgrad"][title] = Solver(solve, doubles)
    return {name: solvers for name, solvers in found.items() if solvers}


def measure(
    num_tasks: int, names: Sequence[str], others: peers.Peers, rounds: int
) -> dict[str, Any]:
    """Everything about one number of tasks, ready for JSON."""
    matrices = gramians(num_tasks)
    solvers, peer = ours(matrices, names), theirs(matrices, names, others)
    apart = {
        title: float(np.abs(solver.weights() - (w := solvers[name].weights())).max())
        / float(np.abs(w).max())
        for name, found in peer.items()
        if name not in NOT_COMPARED
        for title, solver in found.items()
    }
    contenders = solvers | {k: v for found in peer.values() for k, v in found.items()}
    before = timing.load_average()
    samples = timing.interleave(contenders, rounds, warmup=1)
    samples = timing.Samples(
        *({k: v / MATRICES for k, v in t.items()} for t in (samples.wall, samples.cpu))
    )
    results = timing.summarise(samples, LAUNCH)
    for name, found in peer.items():
        results[name]["over_peer"] = timing.over(samples, name, found)
    return {
        "num_tasks": num_tasks,
        "rounds": rounds,
        "matrices": MATRICES,
        "load_average": [before, timing.load_average()],
        "deviations": apart,
        "results": results,
    }


def from_jacobians(
    num_tasks: int, num_params: int, others: peers.Peers, rounds: int
) -> dict[str, Any]:
    """UPGrad of one flat Jacobian, Gramian and sum included, in ms."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((num_tasks, num_params)).astype(np.float32)
    tx = mtl.upgrad(num_tasks, reg_eps=REG_EPS)
    grads = {"w": jnp.asarray(matrix)}
    params = {"w": jnp.zeros(num_params)}
    state = tx.init(params)
    step = jax.jit(lambda grads: tx.update(grads, state, params)[0])
    contenders: dict[str, Any] = {"upgrad": Solver(step, [grads])}
    if others.torchjd:
        from benchmarks import peers_torchjd

        aggregator = peers_torchjd.aggregation.UPGrad()
        tensors = peers_torchjd.tensors(matrix[None])
        contenders["torchjd upgrad"] = Solver(aggregator, tensors)
    if others.jaxjd:
        from benchmarks import peers_jaxjd

        doubles = peers_jaxjd.doubles(matrix[None])
        for title, solve in peers_jaxjd.aggregators(others.jaxjd, doubles[0]).items():
            contenders[title] = Solver(solve, doubles)
    before = timing.load_average()
    samples = timing.interleave(contenders, rounds, warmup=2)
    results = timing.summarise(samples, "upgrad")
    others_of_it = [name for name in contenders if name != "upgrad"]
    results["upgrad"]["over_peer"] = timing.over(samples, "upgrad", others_of_it)
    return {
        "num_tasks": num_tasks,
        "num_params": num_params,
        "rounds": rounds,
        "load_average": [before, timing.load_average()],
        "results": results,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--tasks", nargs="+", type=int, help=f"default {TASKS}")
    parser.add_argument(
        "--methods", nargs="+", choices=RULES | OURS, default=[*RULES, *OURS]
    )
    parser.add_argument("--rounds", type=int, help="default 15, with --quick 3")
    peers.add_choices(parser, jaxjd=True)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    others = peers.found(options)
    rounds = options.rounds or (3 if options.quick else 15)
    record: dict[str, Any] = {
        "benchmark": "solvers",
        "quick": options.quick,
        "reference": LAUNCH,
        "environment": timing.environment() | others.environment(),
        "sizes": [],
        "jacobians": [],
        "published": PUBLISHED,
    }
    for num_tasks in options.tasks or (QUICK_TASKS if options.quick else TASKS):
        record["sizes"].append(measure(num_tasks, options.methods, others, rounds))
        print(solver_tables.by_tasks(record["sizes"][-1]), flush=True)
    for row in record["published"]["rows"][: 1 if options.quick else None]:
        sizes = row["num_tasks"], row["num_params"]
        record["jacobians"].append(from_jacobians(*sizes, others, rounds))
    print(solver_tables.jacobians(record))
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
