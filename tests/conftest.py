"""How every test runs: eight virtual devices, strict promotion, float32 by default."""

import pathlib

import jax
import pytest

# Before anything touches a backend: the device count is fixed with it.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_x64", False)

GOLDEN = "reference values"
MAPS = pathlib.Path("/proc/self/maps")  # Linux only


def precision(dtype):
    """A context in which `float64` means float64; float32 and it share a process."""
    return jax.enable_x64(dtype == "float64")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Each compiled program holds memory maps, of which a process may have 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def stay_below_the_limit():
    """The same within a file that compiles a lot; a full process aborts."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """The test runs with float64 on."""
    with precision("float64"):
        yield


@pytest.fixture
def golden_report(record_property):
    """Takes a line for the terminal summary: what was held to the reference values."""
    return lambda line: record_property(GOLDEN, line)


def pytest_terminal_summary(terminalreporter):
    reports = [r for rs in terminalreporter.stats.values() for r in rs]
    lines = {
        text
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name == GOLDEN
    }
    if lines:
        terminalreporter.section(GOLDEN)
        for line in sorted(lines):
            terminalreporter.write_line(line)
