"""Links that nobody has to write: from code like `mtl.cagrad(2)` to its docstring."""

import re
from typing import Any

from docutils import nodes
from public import groups
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

CODE = re.compile(r"(?:mtl|(mtl_optax(?:\.\w+)*))\.(\w+)(?:\(.*\))?")


class LinkCode(SphinxTransform):
    """Code in the text, not in programs, that names a public symbol with its module."""

    default_priority = 210
    links = nodes.reference, addnodes.pending_xref

    def apply(self, **kwargs: Any) -> None:
        """Once for each page."""
        public = {
            f"{module}.{x}" for group in groups() for module, x in group.symbols()
        }
        for code in list(self.document.findall(nodes.literal)):
            found = CODE.fullmatch(code.astext())
            target = found and f"{found[1] or 'mtl_optax'}.{found[2]}"
            if target in public and not isinstance(code.parent, self.links):
                link = addnodes.pending_xref(
                    "",
                    code.deepcopy(),
                    refdomain="py",
                    reftype="obj",
                    reftarget=target,
                    refdoc=self.env.docname,
                    refexplicit=True,
                    refwarn=True,
                )
                code.replace_self(link)


def from_other_module(app: Sphinx, env: Any, node: Any, shown: Any) -> Any:
    """The place of a name that a docstring of a private module uses as `mtl` has it."""
    if node.get("refdomain") != "py":
        return None
    name = f"mtl_optax.{node['reftarget']}"
    domain = env.domains.python_domain
    if name not in domain.objects:
        return None
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", name, node, shown
    )


def link_methods(app: Sphinx, name: str, source: list[str]) -> None:
    """Under the head of each method on the page of choices."""
    if name == "docs/choosing":
        source[0] = re.sub(
            r"^### (\w+)$",
            r"### \1\n\n{py:obj}`mtl.\1 <mtl_optax.\1>`",
            source[0],
            flags=re.M,
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_transform(LinkCode)
    app.connect("missing-reference", from_other_module)
    app.connect("source-read", link_methods)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
