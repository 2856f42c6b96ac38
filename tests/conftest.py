"""How every test runs: eight virtual devices, strict promotion, float32 by default."""

import jax
import pytest

# Before anything touches a backend: the device count is fixed with it.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_x64", False)

GOLDEN_REPORT = pytest.StashKey[list[str]]()


def precision(dtype):
    """A context in which `float64` means float64; float32 and it share a process."""
    return jax.enable_x64(dtype == "float64")


@pytest.fixture
def x64():
    """The test runs with float64 on."""
    with precision("float64"):
        yield


@pytest.fixture(scope="session")
def golden_report(request):
    """Lines for the terminal summary: how many reference values were held to what."""
    return request.config.stash.setdefault(GOLDEN_REPORT, [])


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(GOLDEN_REPORT, [])
    if lines:
        terminalreporter.section("reference values")
        for line in lines:
            terminalreporter.write_line(line)
