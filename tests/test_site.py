"""The documentation site builds without a warning, is complete and works offline."""

import html
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import mtl_optax as mtl
from mtl_optax import analysis, flax_support, nn, rl

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder with the site, from the command that README gives."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "-c", "docs", "."]
    done = subprocess.run(
        [*command, out / "html", "-d", out / "doctrees"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="session")
def pages(site):
    """Path -> [(attribute, value)] of what links and what is linked to."""
    return {
        path: [
            (attribute, html.unescape(value))
            for attribute, value in re.findall(
                r'\b(href|src|id)="([^"]*)"', path.read_text("utf-8")
            )
        ]
        for path in site.rglob("*.html")
    }


def public():
    """Every symbol that users may import, as they do."""
    modules = [
        importlib.import_module(f"{analysis.__name__}.{found.name}")
        for found in pkgutil.iter_modules(analysis.__path__)
    ]
    for module in (mtl, nn, rl):
        for name in module.__all__:
            if not inspect.ismodule(getattr(module, name)):
                yield f"{module.__name__}.{name}"
    for module in (flax_support, rl.replay, *modules):
        for name, value in inspect.getmembers(module):
            own = getattr(value, "__module__", "") == module.__name__
            shown = ">>> " in (inspect.getdoc(value) or "") or module is rl.replay
            if own and shown and inspect.isfunction(value) and name not in mtl.__all__:
                yield f"{module.__name__}.{name}"


def test_no_public_symbol_is_missing(pages):
    anchors = {
        value for links in pages.values() for kind, value in links if kind == "id"
    }
    wanted = set(public())
    assert len(wanted) > 150
    assert not wanted - anchors


def test_no_link_within_the_site_is_broken(pages):
    ids = {
        path: {value for kind, value in links if kind == "id"}
        for path, links in pages.items()
    }
    broken = []
    for path, links in pages.items():
        for kind, value in links:
            parts = urlsplit(value)
            if kind == "id" or parts.scheme or parts.netloc:
                continue
            target = (
                (path.parent / unquote(parts.path)).resolve() if parts.path else path
            )
            anchor = unquote(parts.fragment)
            if not target.exists() or (
                anchor and anchor not in ids.get(target, {anchor})
            ):
                broken.append(f"{path.name}: {value}")
    assert not broken, "\n".join(broken)


def test_it_needs_no_network(site, pages):
    loaded = [
        value for links in pages.values() for kind, value in links if kind == "src"
    ]
    for path in pages:
        heads = re.findall(r"<link [^>]*>", path.read_text("utf-8"))
        loaded += [x for head in heads for x in re.findall(r'href="([^"]*)"', head)]
    for style in site.rglob("*.css"):
        loaded += re.findall(
            r"(?:url\(|@import )['\"]?([^'\")]+)", style.read_text("utf-8")
        )
    assert any("tex-svg.js" in address for address in loaded)
    assert not {x for x in loaded if x.startswith(("http:", "https:", "//"))}
    assert (site / "searchindex.js").exists()


def test_every_finding_and_notebook_has_its_place(site):
    findings = (site / "docs" / "findings.html").read_text("utf-8")
    scripts = list((ROOT / "findings").glob("*.sh"))
    assert scripts
    for script in scripts:
        assert script.name in findings
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert (site / "notebooks" / f"{notebook.stem}.html").exists()
