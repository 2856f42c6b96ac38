"""How every test runs: eight virtual devices, strict promotion, float32 by default."""

import pathlib

import jax
import pytest
from jax._src import compiler  # jax.jit's compiler_options, for all of a test at once

# Before anything touches a backend: the device count is fixed with it.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_x64", False)


def is_known(option):
    """To this version's XLA."""
    lowered = jax.jit(lambda x: x).lower(1.0)
    try:
        lowered.compile(compiler_options=dict([option]))
    except jax.errors.JaxRuntimeError:
        return False
    return True


# Nearly all the time goes into XLA's optimising programs that run for a millisecond.
# With these it takes a quarter; a test marked `optimized` has the defaults.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
QUICK = dict(filter(is_known, QUICK.items()))
given = {}  # to the compiler now
get_compile_options = compiler.get_compile_options


def with_given(*args, env_options_overrides=None, **kwargs):
    options = given | dict(env_options_overrides or {})
    return get_compile_options(*args, env_options_overrides=options, **kwargs)


compiler.get_compile_options = with_given


def compile_with(options):
    """From here on; what was compiled with others is forgotten."""
    if given != options:
        given.clear()
        given.update(options)
        jax.clear_caches()


def is_optimized(item):
    return item.get_closest_marker("optimized") is not None


def pytest_collection_modifyitems(items):
    """Optimized tests at the end of their file, so that it changes over once."""
    files = list(dict.fromkeys(item.path for item in items))
    items.sort(key=lambda item: (files.index(item.path), is_optimized(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    compile_with({} if is_optimized(item) else QUICK)


GOLDEN = "reference values"
MAPS = pathlib.Path("/proc/self/maps")  # Linux only


def precision(dtype):
    """A context in which `float64` means float64; float32 and it share a process."""
    return jax.enable_x64(dtype == "float64")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Each compiled program holds memory maps, of which a process may have 65,530."""
    yield
    compile_with({})  # Doctests do not come by here.
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
