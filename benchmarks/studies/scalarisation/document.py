"""What the study of scalarisation says of both parts together."""

from benchmarks.studies.scalarisation import claim
from benchmarks.studies.scalarisation.figures import accuracy_from_sum, loss_and_gap
from benchmarks.studies.scalarisation.rule import (
    PLAIN,
    REGULARISED,
    Runs,
    at_one_rate,
    ratio,
    tuned,
)
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import claims, parts
from mtl_optax.study.report import document as blocks
from mtl_optax.study.report.document import Document, Points, Table
from mtl_optax.study.report.paired import change, mean_sd
from mtl_optax.study.report.styles import styles

SAID = "{}: {}."


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """The verdicts, two figures, the claims, and what each method reaches."""
    common = parts.document(result, documents)
    found = claim.of_parts(result.parts)
    plain, regularised = (result.parts[x] for x in (PLAIN, REGULARISED))
    both = tuned(plain), tuned(regularised)
    gains = [
        f"{name} {change(own.accuracy - both[0][name].accuracy)}"
        for name, own in both[1].items()
    ]
    lines = [SAID.format(own.title, claims.verdict(x)) for own, x in found]
    lines.append(f"Dropout and L2 change test accuracy by points: {', '.join(gains)}.")
    tables = [
        table("Plain, at the rate of the sum", at_one_rate(plain)),
        table("Plain, each at its own rate", both[0]),
        table("Regularised, each with what is best for it", both[1]),
    ]
    return common._replace(
        summary=[Points(lines), *common.summary],
        body=[
            *blocks.figures((accuracy_from_sum, loss_and_gap), result.parts),
            *(claims.shown(*own) for own in found),
            *tables,
            *common.body,
        ],
        files=claims.files_of(found),
    )


def table(title: str, found: dict[str, Runs]) -> Table:
    """A row a method: what it reaches, and that from the sum."""
    base = found[BASELINE]
    rows = []
    for name, own in found.items():
        train = ratio(own.train, base.train)
        apart = [
            change(own.accuracy - base.accuracy),
            f"{train.mean:.2f} [{train.low:.2f}, {train.high:.2f}]",
            change(100 * (own.gap - base.gap)),
        ]
        rows.append(
            [
                *(name, mean_sd(own.accuracy), f"{100 * own.train.mean():.2f}"),
                f"{100 * own.gap.mean():.1f}",
                *(["-"] * 3 if name == BASELINE else apart),
            ]
        )
    return Table(
        title,
        "Test accuracy in percent, losses in 100 × nat, means over seeds; behind "
        f"them accuracy minus that of {BASELINE}, training loss over that of "
        f"{BASELINE}, gap minus that of {BASELINE}, each with its interval.",
        ["method", "accuracy", "train", "gap", "accuracy -", "train /", "gap -"],
        rows,
        styles(found),
    )
