"""Every notebook runs, and the committed file shows a run that went well."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mtl_optax as mtl

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORT = {
    "02_choose_a_method": "40",
    "03_flat_minima": "300",
    "04_task_groups": "40",
    "05_architectures": "100",
    "06_adam_versus_sgd": "10",
    "07_are_conflicts_special": "20",
    "08_corruptions": "20",
    "09_pinn": "10",
    "10_write_your_own_method": "100",
    "11_cost_of_a_method": "1",  # rounds
    "12_reinforcement_learning": "64",
}  # steps
# Run first in the kernel. ipykernel warns about itself when it shuts down.
STRICT = r"""
import warnings

warnings.simplefilter("error")
warnings.filterwarnings("ignore", module=r"ipykernel\.")
"""
# A file's address on somebody's machine: POSIX homes and roots, Windows drives.
MACHINE = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|tmp|var|opt|mnt|work|usr|private)/[\w.-]"
    r"|\b[A-Za-z]:\\\\?\w"
)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@each
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_OPTAX_STEPS", SHORT.get(path.stem, "2000"))
    # Elsewhere than in the checkout, but with the package that these tests import
    monkeypatch.setenv("PYTHONPATH", str(Path(mtl.__file__).parents[1]))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=folder
    ).execute()


@each
def test_notebook_is_committed_after_a_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@each
def test_notebook_names_no_machine_and_no_user(path):
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = dict(output.get("data", {}), text=output.get("text", ""))
            for kind, content in data.items():
                if not kind.startswith("image/"):
                    assert not MACHINE.search(str(content)), content
        assert not MACHINE.search(cell.source), cell.source
