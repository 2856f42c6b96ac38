"""One dense weight's part of the Gramian: by rows, by its gradients, and the rule.

The weight is `[m, n]`, its layer has R rows, and T cotangents `[T, R, n]` of its
outputs are given. Measured is the Gramian and then the weighted sum with weights that
depend on it, in two ways, interleaved:

    rows     K_ts = <D_t, (X X') D_s>; the sum is one product more, of the same factors
    direct   the gradients X' D_t, kept; the sum is one read of them

Printed is time by rows over that by gradients, and where the rule of
`core/layerwise/forms.py`, which counts multiplications, takes the slower form.

    python -m benchmarks.gramian_forms --quick
    python -m benchmarks.gramian_forms --out forms.json
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mtl_optax as mtl
from benchmarks.timing import (
    environment,
    interleave,
    load_average,
    summarise,
    write_json,
)
from mtl_optax.core.layerwise.forms import Rule, Sizes

ROWS = (64, 128, 256, 512, 1024, 2048, 4096)
TASKS = (2, 8, 32)
SQUARE = ((256, 256), (1024, 1024), (2048, 2048))
OTHERS = ((1024, 256), (256, 1024))
# With --near: R for which rows take so many multiplications in place of one.
NEAR = (0.7, 0.85, 1.0, 1.2, 1.5)
# What takes longer is left out: GFLOP of the dearer way, GiB of cotangents.
DEAREST, LARGEST = 100, 0.5


class Case(NamedTuple):
    """One weight and what reaches it."""

    rows: int
    inputs: int
    outputs: int
    tasks: int

    @property
    def sizes(self) -> Sizes:
        """As the rule sees them."""
        return Sizes(1, self.tasks, self.rows, self.inputs, self.outputs)

    @property
    def counted(self) -> float:
        """Multiplications by rows over those by gradients."""
        return self.sizes.by_rows() / self.sizes.direct()

    @property
    def affordable(self) -> bool:
        """Whether to measure it."""
        flops = 2 * max(self.sizes.by_rows(), self.sizes.direct())
        cotangents = 4 * self.tasks * self.rows * self.outputs
        return flops <= DEAREST * 1e9 and cotangents <= LARGEST * 2**30

    def __str__(self) -> str:
        return f"R={self.rows} [{self.inputs}, {self.outputs}] T={self.tasks}"


def at_ratio(counted: float, inputs: int, outputs: int, tasks: int) -> Case:
    """The one with so many multiplications by rows over those by gradients."""
    cases = (Case(r, inputs, outputs, tasks) for r in range(16, 8 * inputs, 16))
    return min(cases, key=lambda case: abs(case.counted - counted))


def by_form(form: str) -> Callable[..., Any]:
    """From X and D to the Gramian and the weighted sum, in this form."""

    def step(x: jax.Array, d: jax.Array) -> Any:
        gramian, combine = mtl.gramian_vjp(pullback_of(x, d), d, form=form)
        return gramian, combine(weights_from(gramian))

    return step


WAYS = {"rows": by_form("rows"), "direct": by_form("direct")}


def pullback_of(x: jax.Array, d: jax.Array) -> Callable[..., Any]:
    """That of a dense layer."""
    weight = jnp.zeros((x.shape[1], d.shape[2]))
    return jax.vjp(lambda w: x @ w, weight)[1]


def weights_from(gramian: jax.Array) -> jax.Array:
    """Some that cannot be known before the Gramian is."""
    return jnp.diag(gramian) / jnp.trace(gramian)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Times of all ways, over that by rows of the same round."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(case.rows, case.inputs)), jnp.float32)
    d = jnp.asarray(
        random.normal(size=(case.tasks, case.rows, case.outputs)), jnp.float32
    )
    contenders, found = {}, {}
    for name, way in WAYS.items():
        compiled = jax.jit(way).lower(x, d).compile()
        found[name] = np.asarray(compiled(x, d)[0])
        contenders[name] = lambda run=compiled: jax.block_until_ready(run(x, d))
    for gramian in found.values():
        np.testing.assert_allclose(
            gramian, found["direct"], atol=1e-5 * np.max(np.diag(found["direct"]))
        )
    summary = summarise(interleave(contenders, rounds, warmup=1), "rows")
    over = {
        kind: 1 / summary["direct"][f"{kind}_ratio"]["median"]
        for kind in ("wall", "cpu")
    }
    return {"times": summary, "over": over}


def record(case: Case, rounds: int) -> dict[str, Any]:
    """One row of the result, which is printed too."""
    row: dict[str, Any] = case._asdict() | {"counted": case.counted}
    row |= measure(case, rounds)
    row["rule"] = "rows" if Rule().rows_pay(case.sizes) else "gradients"
    row["load"] = load_average()
    print(line(row), flush=True)
    return row


def lost(row: dict[str, Any], kind: str = "cpu") -> float:
    """Time of the form that the rule takes over the better one's, at least 1."""
    by_rows = row["over"][kind]
    return max(1.0, by_rows if row["rule"] == "rows" else 1 / by_rows)


HEAD = "| weight | R | T | counted | rows, ms | direct | CPU | wall | rule | loses |"


def line(row: dict[str, Any]) -> str:
    """A row of the table of everything."""
    times = row["times"]
    cpu = [times[name]["cpu_ms"]["median"] for name in WAYS]
    cells = [
        f"{row['inputs']}×{row['outputs']}",
        *(str(row[name]) for name in ("rows", "tasks")),
        f"{row['counted']:.2f}",
        *(f"{value:.3g}" for value in cpu),
        *(f"{row['over'][kind]:.2f}" for kind in ("cpu", "wall")),
        row["rule"],
        f"{lost(row):.2f}" if lost(row) > 1 else "",
    ]
    return f"| {' | '.join(cells)} |"


def grid(rows: list[dict[str, Any]]) -> list[str]:
    """By weight and tasks, the ratios over the numbers of rows."""
    found = {(r["inputs"], r["outputs"], r["tasks"], r["rows"]): r for r in rows}
    numbers = sorted({r["rows"] for r in rows})
    lines = [
        f"| weight | T | {' | '.join(f'R = {n}' for n in numbers)} |",
        "|---" * (len(numbers) + 2) + "|",
    ]
    for m, n, tasks in dict.fromkeys(key[:3] for key in found):
        cells = [cell(found.get((m, n, tasks, rows))) for rows in numbers]
        lines.append(f"| {m}×{n} | {tasks} | {' | '.join(cells)} |")
    return lines


def cell(row: dict[str, Any] | None) -> str:
    """The ratio, bold where the rule takes rows."""
    if row is None:
        return "-"
    ratio = f"{row['over']['cpu']:.2f}"
    return f"**{ratio}**" if row["rule"] == "rows" else ratio


def chosen(options: argparse.Namespace) -> list[Case]:
    """What is to be measured."""
    if options.quick:
        return [Case(r, 32, 32, 2) for r in (8, 64)]
    pairs = [(m, n, t) for m, n in SQUARE + OTHERS for t in TASKS]
    if options.near:
        return [at_ratio(r, *pair) for pair in pairs for r in NEAR]
    return [Case(r, *pair) for pair in pairs for r in ROWS]


def main(arguments: list[str] | None = None) -> int:
    """Prints every case, then the grid, and writes both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small weight")
    parser.add_argument("--near", action="store_true", help="where the rule changes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    about = environment()
    cases = chosen(options)
    print(HEAD, "|---" * 11 + "|", sep="\n")
    rows = [record(case, options.rounds) for case in cases if case.affordable]
    if not options.near:
        print("", *grid(rows), sep="\n")
    if options.out:
        write_json(options.out, {"environment": about, "cases": rows})
    return 0


if __name__ == "__main__":
    main()
