"""One HTML page that needs no other file and no network."""

import base64
from html import escape
from pathlib import Path

from mtl_optax.study.styles import GLYPHS, style

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
.dot { margin-right: .5em; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption, footer, .small { color: #555; font-size: .9rem; }
.warning { border-left: 4px solid #D55E00; padding-left: 1rem; }
"""


def page(title: str, body: str) -> str:
    """A whole page with this body, which is HTML already."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mtl-optax: {escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def table(
    head: list[str], rows: list[tuple[str, list[str]]], looks: bool = True
) -> str:
    """A row is a name and cells; that of a method is shown with its colour."""

    def row(tag: str, cells: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    def dot(method: str) -> str:
        if not looks:
            return escape(method)
        look = style(method)
        return (
            f'<span class="dot" style="color:{look.colour}">{GLYPHS[look.marker]}'
            f"</span>{escape(method)}"
        )

    body = "".join(
        row("td", [dot(method), *map(escape, cells)]) for method, cells in rows
    )
    heads = row("th", [escape(name) for name in head])
    return f'<div class="table"><table>{heads}{body}</table></div>'


def figure(file: Path, caption: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(file.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
