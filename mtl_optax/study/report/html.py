"""A document as one HTML page that needs no other file and no network."""

import base64

import jinja2

from mtl_optax.study.report.document import Document

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mtl_optax.study.report", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["base64"] = lambda data: base64.b64encode(data).decode()


def page(document: Document) -> str:
    """The whole page."""
    return _TEMPLATES.get_template("page.html.j2").render(document=document)
