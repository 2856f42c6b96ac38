"""The site's first address leads to its first page, which lies in a folder."""

from pathlib import Path

from sphinx.application import Sphinx


def write(app: Sphinx, error: Exception | None) -> None:
    """index.html, beside the folders."""
    if error is None:
        page = app.builder.get_target_uri(app.config.root_doc)
        Path(app.outdir, "index.html").write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={page}">'
            f'<title>{app.config.html_title}</title><a href="{page}">'
            f"{app.config.html_title}</a>\n"
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
