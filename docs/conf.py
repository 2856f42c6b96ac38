"""The documentation site: uv run sphinx-build -W -c docs . build/site

Its source is the whole repository, so that links between pages, notebooks, results and
README hold on the site as they do in the repository.
"""

import sys
from importlib import metadata, resources
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "site"))

project = "mtl_optax"
release = metadata.version("mtl-optax")

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/api/*.rst",
    "notebooks/*.ipynb",
    "benchmarks/results/**.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "myst_nb",
    "docstrings",
    "api_pages",
    "insertions",
    "links",
    "front_door",
]

# A broken reference is a warning, and the command above makes warnings errors.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:\w+", r"(chex|collections|flax|jax|numpy|optax|typing)\..*"),
    (r"py:exc", r"\w+(Error|Warning)"),
    ("py:mod", r"mtl_optax\.core\..*"),
    # Of loaders: the page on your data says what they are.
    (r"py:\w+", r"Bad(Data|DataSet|Layout)|Dataset|Diverged|Refused|scale_crop_flip"),
]
suppress_warnings = ["myst.header"]  # a program's results may leave a level out
# Docstrings: types are said in words, and `name` is code.
default_role = "code"
autodoc_typehints = "none"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 72

# Markdown: anchors as GitHub makes them. Notebooks are shown as they were committed.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"

html_theme = "furo"
html_title = "mtl_optax"
html_static_path = [
    "_static",
    str(resources.files("mathjax") / "static/mathjax/es5/tex-svg.js"),
]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
mathjax_path = "tex-svg.js"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
