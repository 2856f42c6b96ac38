"""How every test runs: eight virtual devices, strict promotion, float32 by default."""

import functools
import gc
import hashlib
import importlib
import itertools
import os
import pathlib
import shutil
import sys
import threading

import jax
import pytest
from jax._src import compiler  # jax.jit's compiler_options, for all of a test at once
from jax._src.interpreters import mlir
from jax.experimental.compilation_cache import compilation_cache

# Before anything touches a backend: the device count is fixed with it.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_enable_compilation_cache", False)
CACHE_FOLDER = "jax_compilation_cache_dir"
# Millions of objects live as long as the programs: do not walk them so often.
gc.set_threshold(20_000, 10, 10)


def is_known(option):
    """To this version's XLA."""
    lowered = jax.jit(lambda x: x).lower(1.0)
    try:
        lowered.compile(compiler_options=dict([option]))
    except jax.errors.JaxRuntimeError:
        return False
    return True


# Nearly all the time goes into XLA's optimising programs that run for a millisecond.
# With these it takes a quarter.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
# Fusions are written by XLA's older code, in half the time, and then optimised in full:
# of 607 updates in float32 595 are those of users bit for bit, the others to one bit.
# LLVM's expensive passes take a tenth to a quarter of the time and change no bit.
ROUNDED = {
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
QUICK, ROUNDED = (dict(filter(is_known, x.items())) for x in (QUICK, ROUNDED))
MARKED = {"rounded": ROUNDED, "optimized": {}}
given = dict(QUICK)  # to the compiler now
get_compile_options = compiler.get_compile_options


def with_given(*args, env_options_overrides=None, **kwargs):
    options = given | dict(env_options_overrides or {})
    return get_compile_options(*args, env_options_overrides=options, **kwargs)


compiler.get_compile_options = with_given
# Of 2,310 programs of seven files 1,018 were one that the process had compiled before:
# for another test, or before JAX forgot it. A program is its text, options and devices.
compiled = {}
KEPT = 2000  # of them, the last: a thousand take about a gigabyte
backend_compile_and_load = compiler.backend_compile_and_load


def compile_once(backend, module, devices, options, host_callbacks):
    """The executable of a module; it depends on nothing but what makes the key."""
    arguments = backend, module, devices, options, host_callbacks
    if host_callbacks:
        return backend_compile_and_load(*arguments)
    places = [str(device) for device in devices]
    text = f"{places} {module.operation.get_asm()}".encode()
    key = hashlib.sha256(options.SerializeAsString() + text).digest()
    if key not in compiled:
        if len(compiled) >= KEPT:
            del compiled[next(iter(compiled))]
        compiled[key] = backend_compile_and_load(*arguments)
    return compiled[key]


compiler.backend_compile_and_load = compile_once


# A program is written in an MLIR context, which takes 2 ms to make; newer versions of
# JAX keep them. Each thread has one for so many programs, whose text it holds.
PROGRAMS = 100
contexts = threading.local()
make_ir_context = mlir.make_ir_context


def shared_context():
    """As new, but for what the programs before have left in it."""
    if getattr(contexts, "left", 0) == 0:
        contexts.kept, contexts.left = make_ir_context(), PROGRAMS
    contexts.left -= 1
    return contexts.kept


if not hasattr(mlir, "_create_ir_context"):  # a version that keeps none
    mlir.make_ir_context = shared_context


def compile_with(options):
    """From here on; what was compiled with others is forgotten."""
    if given != options:
        given.clear()
        given.update(options)
        jax.clear_caches()


def options_of(item):
    marked = [name for name in MARKED if item.get_closest_marker(name)]
    return MARKED[marked[0]] if marked else QUICK


# Files that take long come first: whoever runs the last of all has little left to do.
# Some are given out in parts, by this parameter; those of `SHARING` stay together, for
# the programs that one of them has compiled.
SHARING = "test_contracts.py", "test_contracts_active.py", "test_contracts_sharded.py"
PARTS = {
    "test_many_hosts.py": None,  # waits for most of its time
    "test_notebooks.py": "path",
    "test_scripts.py": "path",
    "test_priority.py": None,
    "test_golden.py": "name",
    "test_nn_contract.py": None,
    **dict.fromkeys(SHARING),
    "test_vmtl_toy.py": None,
    "test_benchmarks.py": None,
}


def file_of(item):
    return SHARING[0] if item.path.name in SHARING else item.path.name


def group_of(item):
    """The tests that one process runs one after the other."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    part = parameters.get(PARTS.get(item.path.name), "")
    return f"{file_of(item)} {getattr(part, 'stem', part)}".strip()


# Every row of a table meets every check of the contract. Of the other checks the fast
# run leaves these, some of each family, and the full run all.
SAMPLE = {"unitary", "uw", "mgda", "pcgrad", "db_mtl", "graddrop", "HardSharing"}


def pytest_addoption(parser):
    parser.addoption(
        "--row",
        type=pathlib.Path,
        metavar="FILE",
        help="Python file with a ROW of a method of your own, for the table of methods",
    )


def pytest_configure(config):
    """A row from elsewhere stands in the table before tests are made of that."""
    file = config.getoption("--row")
    if file:
        from methods import METHODS

        sys.path.insert(0, str(file.resolve().parent))
        METHODS.append(importlib.import_module(file.stem).ROW)


@functools.cache
def rows():
    """Names of all rows of the tables, which need JAX as it is set up above."""
    from architectures import ARCHITECTURES
    from golden_adapter import ADAPTERS
    from methods import METHODS

    return {method.name for method in METHODS} | set(ARCHITECTURES) | set(ADAPTERS)


def is_a_row_too_many(item):
    """For the fast run: a row of a table that is not in the sample."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    row = parameters.get("method", parameters.get("name"))
    row = getattr(row, "name", row)
    known = isinstance(row, str) and row in rows() - SAMPLE
    return known and not item.get_closest_marker("contract")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Long files first; in a group what is optimised last, so that it changes once."""
    files = [*PARTS, *dict.fromkeys(item.path.name for item in items)]
    choices = [QUICK, *MARKED.values()]
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if is_a_row_too_many(item):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda x: (files.index(file_of(x)), choices.index(options_of(x))))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    compile_with(options_of(item))


GOLDEN = "reference values"
MAPS = pathlib.Path("/proc/self/maps")  # Linux only


def precision(dtype):
    """A context in which `float64` means float64; float32 and it share a process."""
    return jax.enable_x64(dtype == "float64")


@pytest.fixture(autouse=True, scope="session")
def processes_of_their_own(tmp_path_factory):
    """Studies, scripts and kernels that tests start compile quickly too.

    Neither they nor studies in this process keep or find anything in the user's cache.
    """
    flags = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()]
    folder = tmp_path_factory.mktemp("compiled")
    jax.config.update(CACHE_FOLDER, str(folder))
    with pytest.MonkeyPatch.context() as patch:
        # This process has read its own before.
        patch.setenv("XLA_FLAGS", " ".join([os.environ.get("XLA_FLAGS", ""), *flags]))
        patch.setenv(CACHE_FOLDER.upper(), str(folder))
        yield
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def cache_of_a_study_is_off_again():
    """A command that turns JAX's persistent cache on does so for its own test only."""
    yield
    if jax.config.jax_enable_compilation_cache:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Each compiled program holds memory maps, of which a process may have 65,530."""
    if nextitem is None or file_of(nextitem) != file_of(item):
        compile_with(QUICK)  # Doctests do not come by here.
        jax.clear_caches()


tests_run = itertools.count()


@pytest.fixture(autouse=True)
def stay_below_the_limit():
    """The same within a file that compiles a lot; a full process aborts.

    Counted after every tenth test, since it takes as long as a short one.
    """
    yield
    if next(tests_run) % 10 or not MAPS.exists():
        return
    if MAPS.read_bytes().count(b"\n") > 30_000:
        compiled.clear()
        jax.clear_caches()
        gc.collect()  # programs may hang in circles


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
