"""Turns what the benchmarks wrote as JSON into pages and pictures beside it.

    python -m benchmarks.report benchmarks/results/*.json

`NAME.json` makes `NAME.svg`, and the part of `NAME.md` between two lines of comment:
how it was measured, the picture, the tables. What stands before and after these lines
is written by hand and stays. A page that is not there yet is made with a title; one
without the two lines is an error, so that nothing written by hand is ever lost.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import figures, goals, pareto_page, solver_tables, tables

BEGIN = "<!-- Made by `python -m benchmarks.report`; what is written here is lost. -->"
END = "<!-- From here on by hand again. -->"

Record = Mapping[str, Any]


class Kind(NamedTuple):
    """What a benchmark's record is called, says, and looks like."""

    title: str
    about: str
    body: Callable[[Record], str]
    draw: Callable[[Record, Path], None] | None = None


def _each(table: Callable[[Record], str]) -> Callable[[Record], str]:
    return lambda record: "\n".join(table(size) for size in record["sizes"])


def _solvers(record: Record) -> str:
    published = record["published"]
    step = published["step_ms"]
    return "\n".join(
        [
            "\n" + solver_tables.against_goals(record, goals.SOLVERS, goals.SOLVER),
            "\nOf JaxJD's own, by quadratic program's solver:\n",
            solver_tables.over_jaxjd(record),
            "\n## UPGrad from a Jacobian, at the sizes that JaxJD has published\n",
            "Gramian, weights and sum of one flat Jacobian. The last column is not "
            f"measured here: figures of JaxJD's ({published['source']}), on a machine "
            "that it does not name. It also gives a whole step of SGD on a network of "
            f"67 parameters with two losses: TorchJD {step['torchjd']} ms, JaxJD "
            f"{step['jaxjd']} ms.",
            solver_tables.jacobians(record),
            "\n## Every rule, by tasks",
            _each(solver_tables.by_tasks)(record),
        ]
    )


KINDS: dict[str, Kind] = {
    "aggregate": Kind(
        "Aggregation and Adam",
        "One donated step from stacked gradients on 30 leaves. *best peer* is the one "
        "of those that do the same whose time is the least; below 1 we are faster.",
        _each(tables.aggregate),
        figures.aggregate,
    ),
    "step": Kind(
        "Whole training steps",
        "Forward pass, task gradients, method, Adam; one donated program. UPGrad on "
        "the trunk unless the name says another method. *best peer* is the fastest of "
        "those with UPGrad. `T passes` and `vmapped` are by hand.",
        _each(tables.step),
        figures.step,
    ),
    "memory": Kind(
        "Memory, FLOPs and compilation of whole training steps",
        "Of XLA's compiled step, which is that of `step.py`: temporaries, FLOPs (the "
        "body of a loop counts once), time to trace and compile; *process* is the most "
        "that a fresh process held after three steps, framework included.",
        _each(tables.memory),
        figures.memory,
    ),
    "solvers": Kind(
        "Rules on a Gramian, by number of tasks",
        "One call a matrix. Ours and TorchJD's get float32, JaxJD's float64. *weights "
        "apart*: the largest difference over the largest weight.",
        _solvers,
        figures.solvers,
    ),
    "scaling": Kind(
        "Against tasks, parameters and batch",
        "Whole steps of the MLP with three layers and a head a task; UPGrad on the "
        "trunk unless the name says another method. Ratios within rounds.",
        tables.scaling,
        figures.scaling,
    ),
    "flat_cost": Kind(
        "What perturbed gradients cost",
        "Whole steps of the MLP with three layers and a head a task, lazy gradients, "
        "the mean over tasks, Adam; one donated program. Ratios of CPU time within "
        "rounds. FLOPs (the body of a loop counts once, and `flat_mtl` has its T plain "
        "gradients in one) and temporaries are those of XLA's compiled step.",
        _each(tables.flat_cost),
    ),
    "rl_update": Kind(
        "An update of MT-SAC",
        "Twin critics, actor, temperatures and target networks, one step of each, from "
        "a batch that is there; one donated program, lazy gradients of "
        "`per_sample_grads`, each method on what tasks share, a clip, Adam. Rows that "
        "begin with *peer* are `update` of metaworld-algorithms, called as its trainer "
        "does (it gives nothing away, and computes some norms for its logs): with "
        "summed loss, with its own mean of task gradients and PCGrad, and with ours in "
        "that place, by the recipe of `docs/recipes.md`.",
        _each(
            lambda size: "\n".join(
                [
                    tables.rl_update(size, goals.RL_UPDATE, goals.RL_PEER),
                    tables.rl_forms(size["forms"]),
                ]
            )
        ),
    ),
    "pareto": Kind(
        "Pareto fronts in one program",
        "One run for each preference, all of them in one vmapped program. `constant` "
        "is the weighted sum; the others aim at the rays of the lattice (tchebycheff, "
        "stch and epo with weights 1/p). Volumes are up to (1, ..., 1); *between the "
        "ends* are points none of whose losses is below 0.02; spacing is Schott's, 0 "
        "too where all points coincide: read it beside the rest. In the picture the "
        "line is the known front; of DTLZ2 the colour is the third loss. Costs: one "
        "program of all runs, against the program of one run, compiled once and called "
        "for each; ratios above 1 are in favour of the front.",
        pareto_page.body,
        pareto_page.draw,
    ),
    "train_long": Kind(
        "An hour of training that is killed again and again",
        "`mtl-optax train nyuv2` on generated files, twice, side by side: once from "
        "start to end, once ended by SIGKILL at places drawn at random, and gone on "
        "with by `--resume`. *goes on from* is the step of the last whole checkpoint "
        "at the kill, *half-written* the checkpoints that were begun.",
        _each(tables.train_long),
    ),
    "loading": Kind(
        "What the files of NYUv2 cost beside the step",
        "Generated files of the published size. *loop* is `Run` as the command starts "
        "it, between two steps at which it waits for the device; *evaluation* is that "
        "of a whole split, with the start of the processes that read. *workers 0* "
        "reads in two threads of the process itself.",
        _each(tables.loading),
    ),
    "optimality": Kind(
        "How exact the quadratic programs' solutions are",
        "Roundings: the largest violation of an optimality condition over eps times "
        "its largest term, over all matrices. Time: of one matrix, all T projections "
        "of UPGrad, over that of one Cholesky factor.",
        tables.optimality,
    ),
}


def measured(record: Record) -> str:
    """When, where and with what, from the record."""
    env = record["environment"]
    parts = [env["date"], f"{env['processor']}, {env['cpu_count']} processors"]
    parts += ["no GPU" if env["backend"] == "cpu" else env["device"]]
    load = env["load_average"]
    parts += [f"load average at the start {', '.join(map(str, load))}"] if load else []
    peers = env.get("peers") or {}
    versions = env["versions"] | peers.get("versions", {})
    text = "; ".join(parts) + ". "
    text += ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    settings = [f"{key}={value}" for key, value in env["settings"].items() if value]
    if peers.get("torch_threads"):
        settings.append(f"{peers['torch_threads']} threads of torch's")
    text += f" {'; '.join(settings)}." if settings else ""
    rounds = sorted({size["rounds"] for size in record["sizes"] if size.get("rounds")})
    if rounds:
        text += f" Interleaved rounds: {', '.join(map(str, rounds))}; medians, "
        text += "quartiles in brackets, ratios within rounds."
    if record.get("quick"):
        text += " **The quick form: it shows that everything runs, and no more.**"
    return text


def generated(record: Record, picture: str | None) -> str:
    """All between the two lines."""
    kind = KINDS[record["benchmark"]]
    image = [f"![{kind.title}]({picture})"] if picture else []
    body = kind.body(record).strip("\n")
    return "\n\n".join([measured(record), kind.about, *image, body])


def page(old: str | None, title: str, made: str, name: str, begin: str = BEGIN) -> str:
    """The page with what is made in its place."""
    block = f"{begin}\n\n{made}\n\n{END}"
    if old is None:
        return f"# {title}\n\n{block}\n"
    before, begun, rest = old.partition(begin)
    _, end, after = rest.partition(END)
    if not (begun and end):
        raise ValueError(
            f"{name} has no place for tables, and what is in it would be lost: put "
            f"these two lines where they belong, or remove the file.\n{begin}\n{END}"
        )
    return f"{before}{block}{after}"


def write(path: Path) -> Path:
    """The page and the picture of one record; returns the page's path."""
    record = json.loads(path.read_text(encoding="utf-8"))
    kind = KINDS.get(record.get("benchmark", ""))
    if kind is None:
        raise ValueError(
            f"{path.name} has benchmark {record.get('benchmark')!r}; pages are made "
            f"of {', '.join(KINDS)}."
        )
    picture = path.with_suffix(".svg")
    if kind.draw:
        kind.draw(record, picture)
    made = generated(record, picture.name if kind.draw else None)
    target = path.with_suffix(".md")
    old = target.read_text(encoding="utf-8") if target.exists() else None
    target.write_text(page(old, kind.title, made, target.name), encoding="utf-8")
    return target


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="JSON of a benchmark")
    for path in parser.parse_args(argv).results:
        print(f"Written: {write(path)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
