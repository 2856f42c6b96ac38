"""Pareto fronts in one program: how much of a known front they reach, what they cost.

    python -m benchmarks.pareto --out benchmarks/results/pareto.json     # all of it
    python -m benchmarks.pareto --parts costs --out benchmarks/results/pareto.json

For each problem of `pareto_problems` and each method some 200 preferences are trained
by `mtl_optax.pareto_front`; then 25 networks on the digits. With `--parts` the other
part stays as the file has it. A weighted sum, `constant`, is what
peers' convex combinations of losses can reach.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_optax as mtl
from benchmarks import pareto_cost, pareto_page, timing
from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.data.pareto_problems import (
    PROBLEMS,
    WORST,
    Problem,
    best_on_rays,
    stays_in,
)
from mtl_optax.study.engine.problem import batch_indices

MethodOf = Callable[[jax.Array], optax.GradientTransformationExtraArgs]
METHODS = "constant", "tchebycheff", "stch", "pbi", "cosmos", "epo", "pmgda"
END = 0.02  # a loss below that is an end of the front
POINTS = 50


class Sizes(NamedTuple):
    """How much of everything."""

    problems: tuple[str, ...] = (*PROBLEMS, "digits")
    methods: tuple[str, ...] = METHODS

    two: int = 199  # divisions of the lattice for two tasks
    three: int = 19  # for three: 210 preferences
    steps: int = 1000
    digits: int = 25  # preferences
    digits_steps: int = 400
    cost_steps: int = 1000
    rounds: int = 5


QUICK = Sizes(
    two=5, three=2, steps=20, digits=3, digits_steps=5, cost_steps=5, rounds=1
)
# Of which the costs are measured
COSTS = {
    "VLMOP2": ("constant", "stch", "epo"),
    "DTLZ2": ("stch", "pmgda"),
    "digits": ("stch", "epo"),
}


def as_weights(ray: jax.Array) -> jax.Array:
    """The weights that make losses on this ray equal, 1/p with sum 1."""
    inverse = 1 / jnp.maximum(ray, 1e-3)
    return inverse / jnp.sum(inverse)


def methods(num_tasks: int, chosen: Sequence[str] = METHODS) -> dict[str, MethodOf]:
    """Each from a ray of losses, but for `constant`, from weights."""
    of_weights = {
        "tchebycheff": mtl.tchebycheff,
        "stch": partial(mtl.stch, mu=0.01),
        "epo": mtl.epo,
    }
    of_rays = {"pbi": mtl.pbi, "cosmos": partial(mtl.cosmos, mu=5.0)}
    of_rays["pmgda"] = mtl.pmgda

    def weighted(make: Any, ray: jax.Array) -> Any:
        return make(num_tasks, preference=as_weights(ray))

    def directed(make: Any, ray: jax.Array) -> Any:
        return make(num_tasks, preference=ray)

    made: dict[str, MethodOf] = {
        "constant": lambda weights: mtl.constant(num_tasks, weights=weights),
        **{name: partial(weighted, make) for name, make in of_weights.items()},
        **{name: partial(directed, make) for name, make in of_rays.items()},
    }
    return {name: made[name] for name in chosen}


def thinned(points: np.ndarray) -> np.ndarray:
    """Those that the picture shows."""
    return points[:: max(1, len(points) // POINTS)]


def summary(front: mtl.ParetoFront, volume: float) -> dict[str, Any]:
    """What the page says of a front."""
    losses = np.asarray(front.losses, np.float64)
    return {
        "share": float(front.hypervolume) / volume,
        "non_dominated": int(front.non_dominated.sum()),
        "between": int((losses.min(axis=1) > END).sum()),
        "spacing": float(front.spacing),
        "losses": thinned(losses).round(4).tolist(),
    }


def preferences_of(problem: Problem, sizes: Sizes) -> jax.Array:
    divisions = sizes.two if problem.num_tasks == 2 else sizes.three
    return mtl.simplex_lattice(problem.num_tasks, divisions)


def toy(name: str, problem: Problem, sizes: Sizes) -> dict[str, Any]:
    """All methods on one problem."""
    preferences = preferences_of(problem, sizes)
    best = best_on_rays(problem, preferences)
    rate = optax.cosine_decay_schedule(0.02, sizes.steps)
    about = {
        "losses_fn": problem.losses,
        "params": jnp.asarray(problem.start, jnp.float32),
        "steps": sizes.steps,
        "optimizer": optax.chain(optax.adam(rate), stays_in(problem.box)),
        "reference": jnp.full(problem.num_tasks, WORST),
    }
    results = {
        method: summary(mtl.pareto_front(make, preferences, **about), problem.volume)
        for method, make in methods(problem.num_tasks, sizes.methods).items()
    }
    return {
        "problem": name,
        "num_tasks": problem.num_tasks,
        "count": len(preferences),
        "steps": sizes.steps,
        "concave": problem.concave,
        "volume": problem.volume,
        "best_share": best / problem.volume,
        "front": problem.front(POINTS).round(4).tolist(),
        "results": results,
    }


class Digits(NamedTuple):
    """Two overlapping digits, and a network that reads both."""

    losses: Callable[..., Any]
    evaluate: Callable[[Any], Any]  # losses on the test images
    accuracies: Callable[[Any], Any]
    params: Any
    batches: Any
    trunk: Any  # a tree of bools

    @classmethod
    def of(cls, steps: int) -> "Digits":
        problem = digits_problem(2)
        params, _ = problem.init(0)
        train, test = (
            jax.tree.map(jnp.asarray, problem.splits[name])
            for name in ("train", "test")
        )
        order = jnp.asarray(batch_indices(0, len(train.images), steps, 128))

        def losses(params: Any, at: Any) -> Any:
            batch = jax.tree.map(lambda x: x[at], train)
            return problem.losses(params, (), batch, None)[0]

        def on_test(params: Any) -> Any:
            return problem.losses(params, (), test, None)[0]

        def accuracies(params: Any) -> Any:
            return problem.evaluate(params, (), test, None)["accuracy"]

        shared = problem.shared(params)
        return cls(losses, on_test, accuracies, params, order, shared)

    def on_trunk(self, make: MethodOf) -> MethodOf:
        return lambda preference: mtl.on_shared(make(preference), self.trunk)


def digits(sizes: Sizes) -> dict[str, Any]:
    """A network for each preference, judged by its losses on test images."""
    data = Digits.of(sizes.digits_steps)
    inner = mtl.simplex_lattice(2, sizes.digits + 1)[1:-1]
    results = {}
    for name, make in methods(2, sizes.methods).items():
        front = mtl.pareto_front(
            data.on_trunk(make),
            inner,
            losses_fn=data.losses,
            params=data.params,
            batches=data.batches,
            optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, sizes.digits_steps)),
            evaluate=data.evaluate,
            reference=jnp.full(2, WORST),
        )
        accuracy = np.asarray(jax.vmap(data.accuracies)(front.params), np.float64)
        results[name] = summary(front, WORST**2) | {
            "accuracies": accuracy.round(2).tolist(),
            "best_accuracies": accuracy.max(axis=0).round(2).tolist(),
        }
    return {
        "problem": "digits",
        "num_tasks": 2,
        "count": len(inner),
        "steps": sizes.digits_steps,
        "results": results,
    }


def fronts(sizes: Sizes) -> list[dict[str, Any]]:
    """All of them."""
    found = []
    for name in sizes.problems:
        before = timing.load_average()
        size = digits(sizes) if name == "digits" else toy(name, PROBLEMS[name], sizes)
        found.append(size | {"load_average": [before, timing.load_average()]})
    return found


def costs(sizes: Sizes) -> list[dict[str, Any]]:
    """One program against one run after the other."""
    found = []
    for name in sizes.problems:
        picked = [m for m in COSTS.get(name, ()) if m in sizes.methods]
        if name == "digits":
            # Longer steps: fewer of them, and rounds.
            rounds = max(sizes.rounds // 2, 1)
            data = Digits.of(sizes.cost_steps // 4 + 1)
            lattice = mtl.simplex_lattice(2, sizes.digits + 1)[1:-1]
            work = pareto_cost.Work(
                data.losses, data.params, data.batches, optax.adam(3e-3)
            )
            made = {k: data.on_trunk(make) for k, make in methods(2, picked).items()}
        else:
            problem, rounds = PROBLEMS[name], sizes.rounds
            lattice = preferences_of(problem, sizes)
            work = pareto_cost.Work(
                losses=lambda params, at, own=problem.losses: own(params),
                params=jnp.asarray(problem.start, jnp.float32),
                batches=jnp.arange(sizes.cost_steps),
                after=optax.chain(optax.adam(0.02), stays_in(problem.box)),
            )
            made = methods(problem.num_tasks, picked)
        for method, make in made.items():
            row = pareto_cost.compare(make, lattice, work, rounds)
            found.append({"problem": name, "method": method, **row})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds, not minutes")
    parts = ("fronts", "costs")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    names = {"problems": (*PROBLEMS, "digits"), "methods": METHODS}
    for what, known in names.items():
        parser.add_argument(f"--{what}", nargs="+", choices=known, default=known)
    parser.add_argument("--out", type=Path, help="the numbers, as JSON")
    options = parser.parse_args(argv)
    sizes = QUICK if options.quick else Sizes()
    sizes = sizes._replace(**{what: tuple(getattr(options, what)) for what in names})
    record: dict[str, Any] = {"benchmark": "pareto", "quick": options.quick}
    record["environment"] = timing.environment()
    kept: dict[str, Any] = {"sizes": [], "costs": []}
    if options.out is not None and options.out.exists():
        kept = json.loads(options.out.read_text(encoding="utf-8"))
    for part, key, measure in (("fronts", "sizes", fronts), ("costs", "costs", costs)):
        record[key] = measure(sizes) if part in options.parts else kept[key]
    if options.out is not None:
        timing.write_json(options.out, record)
    print(pareto_page.body(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
