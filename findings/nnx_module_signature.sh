#!/usr/bin/env bash
# Flax NNX: the signature of every module is (*args, **kwargs).
#
# Package: flax 0.12.8 (jax 0.10.2), sphinx 9.0.4.
# Expected: inspect.signature(nnx.Linear) lists in_features, out_features and so on, as it
#   does for a plain class, and so help() and Sphinx's autodoc show them.
# Seen: (*args: 'Any', **kwargs: 'Any') -> 'Any', for modules of one's own too: the
#   metaclass of nnx.Module has a __call__, which inspect asks first. autodoc shows
#   (*args, **kwargs) then. inspect.signature(nnx.Linear.__init__) is right.
# What it did here: the pages of mtl_optax.nn told nobody how to build a network; the site
#   reads the signature of `__init__` (docs/site/docstrings.py).
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 \
    jax==0.10.2 jaxlib==0.10.2 sphinx==9.0.4
mkdir "$work/docs"
cat >"$work/docs/conf.py" <<'EOF'
extensions = ["sphinx.ext.autodoc"]
autodoc_typehints = "none"
EOF
cat >"$work/docs/index.rst" <<'EOF'
Modules
=======

.. autoclass:: flax.nnx.Linear
EOF
"$work/env/bin/python" -m sphinx -q -b text "$work/docs" "$work/out" 2>/dev/null
"$work/env/bin/python" - "$work/out/index.txt" <<'EOF'
import inspect
import pathlib
import sys

import flax
from flax import nnx


class Own(nnx.Module):
    def __init__(self, width: int):
        self.width = width


(shown,) = [x for x in pathlib.Path(sys.argv[1]).read_text().splitlines() if "class" in x][:1]
print("flax", flax.__version__, "Own:", inspect.signature(Own), "autodoc:", shown)
assert list(inspect.signature(Own.__init__).parameters) == ["self", "width"]
for module in (Own, nnx.Linear):
    kept = list(inspect.signature(module).parameters)
    assert kept == ["args", "kwargs"], "changed: the signature of a module is its own"
assert "(*args, **kwargs)" in shown, "changed: autodoc shows the arguments of a module"
EOF
