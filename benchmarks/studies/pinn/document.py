"""What the study says of all equations, at equal steps and at equal passes."""

import numpy as np

from benchmarks.studies.pinn.claim import CLAIM, measured
from benchmarks.studies.pinn.figures import alignment, errors
from benchmarks.studies.pinn.methods import passes
from benchmarks.studies.pinn.rule import PASSES, RULE, aligned, error
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import claims, parts
from mtl_optax.study.report import document as blocks
from mtl_optax.study.report.document import Document, Table

HEAD = (
    *("part", "method", "rate", "steps", "backward passes", "MSE"),
    *("lowest to highest", "alignment", "ms a step"),
)
NOTE = (
    "MSE: geometric mean over seeds, and the lowest and the highest of them. "
    "Alignment: of the tasks' gradients, mean over the second half of training. "
    "Milliseconds: of one step of one run, with as many at once as the engine trains, "
    "on this machine, which may have had other work."
)


def table(result: StudyResult) -> Table:
    """A row a part and method."""
    rows = []
    for name, part in result.parts.items():
        settings = part.settings
        for method, own in part.methods.items():
            assert own.path is not None
            logs, records = error(own), len(own.path)
            lanes = len(own.candidates) * settings.every_seed
            chosen = own.candidates[own.chosen[0]]
            rows.append(
                [
                    *(name, method, str(chosen), str(settings.steps)),
                    f"{passes(method, own, records, settings.steps)[-1]:.0f}",
                    f"{10 ** logs.mean():.2e}",
                    f"{10 ** logs.min():.1e} to {10 ** logs.max():.1e}",
                    f"{np.mean(aligned(own)):.2f}",
                    f"{1e3 * own.run_seconds / settings.steps / lanes:.2f}",
                ]
            )
    return Table("Errors", NOTE, HEAD, rows)


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """The claim, errors of all parts, figures; then each part as it is."""
    common, found = parts.document(result, documents), measured(result)
    return common._replace(
        body=[
            claims.shown(CLAIM, found),
            table(result),
            *blocks.figures((errors, alignment), result),
            *common.body,
            blocks.Details("How it is measured", [*map(blocks.Text, (RULE, PASSES))]),
        ],
        files=claims.files(CLAIM, found),
    )
