"""The document of a study of several parts: what each says, then a section for each."""

from typing import Any

from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report.document import (
    SMOKE,
    Details,
    Document,
    Figure,
    Heading,
    Links,
    Points,
    Table,
    Text,
    pick,
)


def document(whole: StudyResult, documents: dict[str, Document]) -> Document:
    """What any study can say; one that says more adds to it.

    Args:
      whole: of all parts.
      documents: part -> its own, whose tables and figures the sections show.
    """
    statements = [f"{n}: {x.judgement.statement}" for n, x in whole.parts.items()]
    body = [x for n, own in documents.items() for x in section(whole, n, own)]
    rules = dict.fromkeys(x for own in whole.parts.values() for x in own.part.rules)
    credits = dict.fromkeys(x for own in documents.values() for x in own.credits)
    return Document(
        title=whole.study.title,
        question=whole.study.question,
        summary=[Points(statements), *([SMOKE] if whole.is_quick else [])],
        body=[*body, Details("Rules", [*map(Text, rules)], open=True)],
        credits=list(credits),
    )


def section(whole: StudyResult, name: str, own: Document) -> list[Any]:
    """A part: its title, what it says, a link to its page, its tables and figures."""
    asked = [] if own.question == whole.study.question else [Text(own.question)]
    return [
        Heading(own.title),
        *asked,
        *(block for block in own.summary if block != SMOKE),
        Links("All numbers of this part:", {name: f"{name}/report.html"}),
        # A figure lies where the part has written it.
        *(
            block._replace(name=f"{name}/{block.name}")
            if isinstance(block, Figure)
            else block
            for block in pick(own.body, Table, Figure)
        ),
    ]
