"""What the study of recent methods says of two and four tasks together."""

from typing import Any

from benchmarks.studies.recent import tables
from benchmarks.studies.recent.figures import worst
from benchmarks.studies.recent.measured import of_part
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import document as blocks
from mtl_optax.study.report import parts


def document(
    whole: StudyResult, documents: dict[str, blocks.Document]
) -> blocks.Document:
    """Verdicts, the worst tasks and a table a method, then each part."""
    found = {name: of_part(own) for name, own in whole.parts.items()}
    common = parts.document(whole, documents)
    shown: list[Any] = [*blocks.figures((worst,), found), tables.beside(found)]
    said = []
    if new := tables.new_in(found):
        shown = [tables.verdicts(found), *shown]
        each = [tables.of_method(found, name) for name in new]
        shown += [blocks.Details("Each method", each, open=True)]
        said = [blocks.Text(tables.statement(found), "strong")]
    return common._replace(
        summary=[*said, *common.summary], body=[*shown, *common.body]
    )
