"""The page docs/choosing.md, which `mtl-optax methods --markdown` prints.

The advice comes from choosing.py, the rest from the docstrings, through the catalogue.
A test compares the committed page with what this gives.
"""

import mtl_optax as mtl
from mtl_optax.study.catalogue import COSTS, INFERRED, Method, methods
from mtl_optax.study.choosing import GUIDE, INTRODUCTION, Advice

REMARKS = """\
* **Memory and time.** With `mtl.lazy_task_grads` a method that sees the losses costs
  one backward pass, whatever T, and one that sees the Gramian at most T: a third to
  three fifths of that where layers have fewer rows (batch times positions) than inputs
  ([how](gramian.md)). With many tasks `mtl.feature_task_grads` forms the
  Gramian at the shared representation for about the price of one pass,
  `mtl.subsample_tasks` draws some of the tasks, and `mtl.every_k` holds weights for k
  steps.
* **Heads.** Put the method on what tasks share, `mtl.on_shared(method, mask)`; each
  head then gets its own gradient. Else a head is trained with the weight of its task.
* **Missing tasks.** Every method takes `active=`: missing tasks get weight 0, the
  others what the method gives them alone. `mtl.skip_nonfinite_tasks` finds NaN itself.
* **Scale of the update.** Methods that return a mean, a sum or a fixed norm need other
  learning rates under SGD. Adam is indifferent to constant factors.
* **Adam is not a cure.** It rescales parameters, not tasks: inside a shared parameter
  the largest loss still rules. `mtl.per_task(optax.scale_by_adam(), num_tasks)` in
  front of `unitary` rescales each task.
"""


def markdown() -> str:
    """The whole page."""
    rows = methods()
    parts = [
        INTRODUCTION,
        _table(
            ("where you are", "try, in this order", "why, and what to look out for"),
            [_advice(row) for row in GUIDE if _public(row)],
        ),
        REMARKS,
        "## Costs\n",
        "T is the number of tasks.\n",
        _table(COSTS, [(_link(row.name), *row.costs()[1:]) for row in rows]),
        "## Methods\n",
        f"{INFERRED}\n",
        *map(_section, rows),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _public(advice: Advice) -> list[str]:
    return [name for name in advice.names if name in mtl.__all__]


def _advice(advice: Advice) -> tuple[str, ...]:
    return advice.situation, ", ".join(map(_link, _public(advice))), advice.why


def _link(name: str) -> str:
    return f"[`{name}`](#{name})"


def _section(method: Method) -> str:
    promises = (f"* **{name}**: {text}" for name, text in method.promises().items())
    return "\n".join([f"### {method.name}\n", f"{method.summary}\n", *promises, ""])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)
