"""What the study of VMTL shows on all shares of labels together."""

from benchmarks.studies.vmtl.rule import RULE, SINGLE
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import parts
from mtl_optax.study.report.document import Details, Document, Table, Text
from mtl_optax.study.report.styles import styles
from mtl_optax.study.report.summaries import side_by_side

NOTE = (
    "Test accuracy in percent, mean over domains and seeds; behind it the 95 % "
    f"interval of the paired difference from {SINGLE}."
)


def document(whole: StudyResult, documents: dict[str, Document]) -> Document:
    """The accuracies, then each part."""
    rows = side_by_side(whole)
    looks = styles(row[0] for row in rows)
    table = Table("Accuracy", NOTE, ["arm", *whole.parts], rows, looks)
    rule = Details("Rule", [Text(RULE)], open=True)
    each = parts.document(whole, documents)
    return each._replace(body=[table, *each.body, rule])
