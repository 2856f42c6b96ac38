"""The README shows code that runs, and names every method that there is."""

import re
from pathlib import Path

import pytest
from architectures import LAYERS
from flax import nnx

import mtl_optax as mtl
from mtl_optax import nn

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
@pytest.mark.optimized  # as it is compiled for whoever copies it
def test_code_runs(number, capsys):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_method_table_names_every_method():
    table = README[README.index("## Methods") : README.index("## Contributing")]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|.*", table, re.M))))
    folders = ("from_losses", "from_gramian", "from_gradients", "from_grad_fn")
    methods = {
        name
        for name in mtl.__all__
        if getattr(mtl, name).__module__.split(".")[1] in folders
    }
    assert named == methods


def test_architecture_table_names_every_architecture():
    table = README[README.index("## Architectures") : README.index("## Methods")]
    named = set(re.findall(r"^\| `(\w+)`", table, re.M))
    classes = {n: getattr(nn, n) for n in nn.__all__}
    modules = {
        name
        for name, found in classes.items()
        if isinstance(found, type) and issubclass(found, nnx.Module)
    }
    assert named == modules - LAYERS
