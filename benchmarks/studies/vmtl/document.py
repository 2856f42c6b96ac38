"""What the study of VMTL shows on all fractions of the labels together."""

from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import parts
from mtl_optax.study.report.document import Document
from mtl_optax.study.report.summaries import side_by_side


def document(whole: StudyResult, documents: dict[str, Document]) -> Document:
    """The accuracies, then each part."""
    each = parts.document(whole, documents)
    return each._replace(body=[side_by_side(whole), *each.body])
