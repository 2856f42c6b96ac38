"""Reference values: 1,100 cases from public implementations and 60-digit solves.

What a case demands is in golden/README.md; how it is called, in golden_from_*.py.
"""

from collections import Counter, defaultdict

import golden_case as golden
import numpy as np
import pytest
from conftest import precision
from golden_adapter import ADAPTERS
from golden_case import Trajectory

DTYPES = ("float64", "float32")


def marks(dtype, entry):
    """Solvers take a second to compile for each task count.

    So one dtype in the fast run, and XLA's optimisations for the other only, which has
    the rounding that users see.
    """
    single = dtype == "float32"
    slow = [pytest.mark.slow] if single or entry.slow else []
    return [*slow, pytest.mark.rounded] if single else slow


VARIANTS = [
    pytest.param(name, dtype, id=f"{name}-{dtype}", marks=marks(dtype, entry))
    for name, entry in ADAPTERS.items()
    for dtype in DTYPES
]


class Findings:
    """Collects every failure and count of a method, to report them at once."""

    def __init__(self):
        self.counts = Counter()
        self.failures = []
        self.worst = 0.0

    def require(self, held, what, count=None):
        if count:
            self.counts[count] += 1
        if not held:
            self.failures.append(what)

    def finite(self, name, got):
        self.require(np.all(np.isfinite(got)), f"{name}: not finite")

    def close(self, name, got, expected, bound):
        """Within the stored bound, or only finite where none can be held."""
        self.finite(name, got)
        if bound is None:
            self.counts["finite only"] += 1
            return
        error = np.max(np.abs(np.asarray(got, np.float64) - expected), initial=0.0)
        self.worst = max(self.worst, error / bound if bound else float(error > 0))
        self.require(error <= bound, f"{name}: {error:.3g} > {bound:.3g}", "asserted")

    def report(self, title, tell):
        counts = ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items()))
        tell(f"{title}: {counts}; worst error/tolerance {self.worst:.2g}")
        assert self.counts, f"{title}: nothing was checked"
        assert not self.failures, "\n".join([title, *self.failures])


def bound_of(case, array, dtype):
    return case["tol"].get(array, {}).get("f64" if dtype == "float64" else "f32")


@pytest.mark.parametrize(("name", "dtype"), VARIANTS)
def test_reference_values(name, dtype, golden_report):
    stored = ADAPTERS[name].cases()
    widths = defaultdict(int)
    for _, arrays in stored:
        if "J" in arrays:
            num_tasks, width = arrays["J"].shape[-2:]
            widths[num_tasks] = max(widths[num_tasks], width)
    found = Findings()
    with precision(dtype):
        for case, arrays in stored:
            for call in ADAPTERS[name].calls(case["args"], arrays):
                if isinstance(call, Trajectory):
                    check_steps(case, call, dtype, found)
                    continue
                width = widths[len(arrays["J"])]
                direction, weights = golden.run(call, arrays["J"], width, dtype)
                check(case, arrays["J"], call, direction, weights, dtype, found)
            found.counts["cases"] += 1
    found.report(f"{name} {dtype}", golden_report)


def check_steps(case, trajectory, dtype, found):
    """Holds every step of a trajectory to its values."""
    directions, states = golden.follow(trajectory, dtype)
    for tolerance, values, read in trajectory.wanted:
        got = directions if read is None else np.asarray(read(states), np.float64)
        bound = bound_of(case, tolerance, dtype)
        found.close(f"{case['id']}/{tolerance}", got, values, bound)


def check(case, matrix, call, direction, weights, dtype, found):
    """Holds one call to what its case demands."""
    name = f"{case['id']}/{call.tolerance}"
    found.finite(name, direction)
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        found.finite(f"{name} weights", weights)
    if case.get("convention_only"):
        convention(case, call, direction, dtype, found)
    elif call.direction is None:
        DEGENERATE[case["method"]](case, matrix, direction, dtype, found)
    else:
        bound = bound_of(case, call.tolerance, dtype)
        found.close(name, direction, call.direction, bound)
        if call.weights is not None and case.get("weights_unique", True):
            bound = bound_of(case, call.weights_tolerance, dtype)
            found.close(f"{name} weights", weights, call.weights, bound)
    if case["method"] == "mgda" and case["args"]["normalization"] == "none":
        minimises_the_norm(name, matrix, weights, dtype, found)


def convention(case, call, direction, dtype, found):
    """Only counted: the equations have no unique answer, `convention_only`."""
    error = np.max(np.abs(direction - call.direction))
    bound = bound_of(case, call.tolerance, dtype)
    agrees = bound is not None and error <= bound
    found.counts[f"by convention {'same' if agrees else 'other'}"] += 1


def bargain_does_not_exist(case, matrix, direction, dtype, found):
    """Where 0 is in the hull: finite, and zero for zero gradients."""
    held = matrix.any() or not direction.any()
    found.require(held, f"{case['id']}: not zero", "degenerate")


def near_the_mean_and_harmless(case, matrix, direction, dtype, found):
    """cagrad where 0 is in the hull: zero, or in the ball and in the dual cone."""
    mean, c = matrix.mean(axis=0), case["args"]["c"]
    size = np.linalg.norm(matrix, axis=1).max()
    slack = 16 * np.finfo(dtype).eps
    radius = c * np.linalg.norm(mean)
    in_ball = np.linalg.norm(direction - mean) <= radius + slack * size
    harmless = np.min(matrix @ direction) >= -slack * size * np.linalg.norm(direction)
    held = not direction.any() or (in_ball and harmless)
    what = f"{case['id']}: in ball {in_ball}, harmless {harmless}"
    found.require(held, what, "degenerate")


DEGENERATE = {
    "nash_mtl": bargain_does_not_exist,
    "fairgrad": bargain_does_not_exist,
    "cagrad": near_the_mean_and_harmless,
}


def minimises_the_norm(name, matrix, weights, dtype, found):
    """Simplex weights with `<g_t, d> >= |d|^2`, unique or not."""
    slack = 64 * np.finfo(dtype).eps
    size = np.linalg.norm(matrix, axis=1)
    direction = weights @ matrix
    reached = np.sum(weights * size)  # what rounding in d is relative to
    below = direction @ direction - matrix @ direction
    held = (
        np.all(weights >= 0)
        and abs(weights.sum() - 1) <= slack
        and np.all(below <= slack * (size + reached) * reached)
    )
    found.require(held, f"{name}: not the min-norm point", "optimal")


def test_every_stored_case_is_run():
    run = Counter()
    for entry in ADAPTERS.values():
        run[entry.method] += len(entry.cases())
    assert run == golden.methods()
    assert sum(run.values()) == 1100
