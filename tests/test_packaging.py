"""What a user installs, and what the repository promises about installing it."""

import configparser
import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mtl_optax as mtl

ROOT = Path(__file__).resolve().parents[1]
MAIN_COMMAND = "pip install uv && uv run mtl-optax study"
TEST_COMMAND = "pip install uv && uv run pytest"

# Imports all modules of the package, which one finds by walking it.
IMPORT_ALL = """
import importlib, pkgutil, sys, mtl_optax
names = [m.name for m in pkgutil.walk_packages(mtl_optax.__path__, "mtl_optax.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 10, names
"""

# The first module of the search path is the wheel; what it loads must suffice.
IMPORT_WHEEL = """
import sys
wheel, extras = sys.argv[1], sys.argv[2:]
sys.path.insert(0, wheel)
import mtl_optax
assert mtl_optax.__file__.startswith(wheel), mtl_optax.__file__
missing = [name for name in mtl_optax.__all__ if not hasattr(mtl_optax, name)]
assert not missing, missing
loaded = [name for name in extras if name in sys.modules]
assert not loaded, f"import mtl_optax loads {loaded}, which only the extra brings"
"""


def run(*command, cwd=None):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked as an installer would, in a folder that holds nothing else.

    Built by the backend itself, so that no index is asked.
    """
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (path,) = out.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site)
    return site


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel):
    top = {path.name for path in wheel.iterdir()}
    assert top == {"mtl_optax", f"mtl_optax-{mtl.__version__}.dist-info"}
    files = {path.relative_to(wheel) for path in wheel.glob("mtl_optax/**/*.*")}
    assert Path("mtl_optax/py.typed") in files
    for name in (
        "catalogue/advice.md",
        "study/report/page.html.j2",
    ):  # read at run time
        assert Path("mtl_optax", name) in files
    source = ROOT.glob("mtl_optax/**/*.py")
    assert {path.relative_to(ROOT) for path in source} <= files


@pytest.mark.slow
def test_wheel_metadata(wheel):
    (info,) = wheel.glob("*.dist-info")
    metadata = email.message_from_string((info / "METADATA").read_text("utf-8"))
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert (info / "licenses" / "LICENSE").is_file()
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in required]
    assert sorted(names) == ["chex", "flax", "jax", "jaxlib", "numpy", "optax"]
    assert all(">=" in requirement for requirement in required)
    scripts = configparser.ConfigParser()
    scripts.read(info / "entry_points.txt", "utf-8")
    main = "mtl_optax.study.command.cli:main"
    assert dict(scripts["console_scripts"]) == {"mtl-optax": main}


@pytest.mark.slow
def test_wheel_imports_from_an_empty_folder(wheel, tmp_path):
    extras = ("matplotlib", "sklearn")
    run(
        *(sys.executable, "-I", "-W", "error", "-c", IMPORT_WHEEL, wheel, *extras),
        cwd=tmp_path,
    )


@pytest.mark.contract
def test_every_module_imports_without_a_warning():
    run(sys.executable, "-W", "error", "-c", IMPORT_ALL, cwd=ROOT)


@pytest.mark.contract
def test_the_package_alone_needs_no_flax():
    run(sys.executable, "-c", "import mtl_optax, sys; assert 'flax' not in sys.modules")


def test_readme_and_ci_give_the_same_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"pip install uv && [^\n`]+", readme)
    assert list(dict.fromkeys(command.strip() for command in commands)) == [
        MAIN_COMMAND,
        TEST_COMMAND,
    ]
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert f"test_command='{TEST_COMMAND}'" in script


def committed_files():
    """Files under version control, or that would be if one added all."""
    listed = run(
        *("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
    )
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]  # not one just deleted


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_committed_files_hold_no_lock_no_path_of_a_machine_and_no_index():
    # Written in pieces, since this file is read too.
    folders = ["/ro" + "ot", "/wo" + "rk", "/t" + r"mp/[\w-]+", "/ho" + r"me/[\w-]+"]
    folders += ["/Us" + r"ers/[\w-]+", "/opt/" + r"pypi[\w-]*"]
    folders += [re.escape(str(p)) for p in (ROOT, Path.home()) if len(p.parts) > 1]
    indexes = [r"pypi\." + "org", "python" + r"hosted\.org", "find-" + "links"]
    pattern = re.compile(
        rf"(?<![\w.~-])(?:{'|'.join(folders)})(?![\w-])|{'|'.join(indexes)}"
    )
    names = {path.name for path in committed_files()}
    assert not names & {"uv.lock", "poetry.lock", "pdm.lock"}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in committed_files()
        for number, line in enumerate(
            path.read_bytes().decode("utf-8", "ignore").splitlines(), 1
        )
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
