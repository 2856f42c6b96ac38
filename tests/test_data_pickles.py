"""Pickles of arrays: what is read, and what is refused without being run."""

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mtl_optax.data.faults import BadData
from mtl_optax.data.pickles import read_pickle

FILES = Path(__file__).parent / "files"
CALLS = []
SAMPLES = {
    "numbers": (True, None, 3, -(10**30), 2.5, 2 + 1j, [np.float32(1.5), np.int64(3)]),
    "strings": {"a": b"", "b": b"\x00\xff", 3: "ü", 1.5: ()},
    "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "axes": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "Fortran": np.asfortranarray(np.arange(6, dtype=">f4").reshape(3, 2)),
    "stride": np.arange(10)[::2],
    "empty": np.zeros((0, 3), np.float16),
    "no axis": np.array(5, ">i2"),
    "booleans": np.array([True, False]),
    "words": [np.array(["ab", "c"]), np.array([b"ab", b"c"])],
}


def record(*arguments):
    """What a pickle must not be able to call."""
    CALLS.append(arguments)


class Calls:
    """Its pickle calls a function of the choice of who made it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.pickle"


def read(path, data):
    path.write_bytes(data)
    return read_pickle(path)


def same(one, other):
    """Whether type, dtype, shape and values are, all the way down."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return same(list(one), list(other)) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and all(same(a, b) for a, b in pairs)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", SAMPLES)
def test_every_protocol(path, name):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(SAMPLES[name], protocol)
        assert same(read(path, data), SAMPLES[name]), protocol


@pytest.mark.parametrize("path", sorted(FILES.glob("*.pickle")), ids=lambda p: p.stem)
def test_files_of_other_versions(path):
    """Of Python 2, NumPy 1 and NumPy 2, see tests/files/README.md."""
    images, labels, test_images, test_labels = read_pickle(path)
    assert images.dtype == np.uint8
    assert images.shape == (10, 6, 6)
    assert all((images[row, row % 6] == 25 * row).all() for row in range(10))
    assert (labels[:, 0] == np.arange(10)).all()
    assert (labels[:, 1] == 3 * np.arange(10) % 10).all()
    assert test_images.dtype == np.float32
    np.testing.assert_array_equal(test_images, images[:4].astype(np.float32) / 255)
    assert test_labels.dtype == np.int32


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (record, "test_data_pickles.record"),
        (print, "builtins.print"),
        (os.getcwd, f"{os.name}.getcwd"),
        (getattr, "builtins.getattr"),
        (np.frombuffer, "frombuffer"),
    ],
)
def test_nothing_is_called(path, protocol, function, name, capsys):
    arguments = () if function is os.getcwd else ("hello",)
    data = pickle.dumps([np.zeros(2), Calls(function, *arguments)], protocol)
    with pytest.raises(BadData, match=name) as error:
        read(path, data)
    assert "no pickled code is run" in str(error.value)
    assert error.value.path == path
    assert not CALLS
    assert not capsys.readouterr().out


def test_nothing_is_imported(path, tmp_path, monkeypatch):
    (tmp_path / "a_module_that_records.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadData, match=r"asks for a_module_that_records\.name"):
        read(path, b"ca_module_that_records\nname\n.")


class Thing:
    """Of a class of its own."""

    def __init__(self):
        self.number = 3


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param(
            *(Thing(), "test_data_pickles.Thing|copyreg._reconstructor"), id="a thing"
        ),
        (Thing, "test_data_pickles.Thing"),
        (np.ndarray, "it holds a numpy.ndarray"),
        (np.dtype("f4"), "it holds a _Dtype"),
        (np.array([1, "a"], object), "dtype 'O8'"),
        (np.zeros(2, [("x", "f4")]), "dtype 'V4'"),
        (np.array(["2020-01-01"], "M8[D]"), "dtype 'M8'"),
        (np.ma.zeros(2), "numpy.ma"),
        ({1, 2}, "it holds a set|builtins.set"),
        ({(1, 2): 3}, "a dict has a tuple as key"),
    ],
    ids=str,
)
def test_other_types_are_refused(path, value, found):
    for protocol in (2, 5):
        with pytest.raises(BadData, match=found):
            read(path, pickle.dumps(value, protocol))


def test_what_contains_itself(path):
    loop = [1]
    loop.append(loop)
    with pytest.raises(BadData, match="contains itself"):
        read(path, pickle.dumps(loop))


def test_what_is_nested_deeply_is_refused_not_a_crash(path):
    with pytest.raises(BadData, match="recursion"):
        read(path, b"(" * 100_000 + b"l" * 100_000 + b".")


def test_shared_parts_are_read_once(path):
    """Twenty lists of the next one twice: a million leaves, were they copied."""
    nested = [np.arange(3)]
    for _ in range(20):
        nested = [nested, nested]
    one, other = read(path, pickle.dumps(nested))
    assert one is other


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "the file is empty"),
        (b"no pickle", "no opcode|ends early"),
        (pickle.dumps(np.arange(100), 4)[:-60], "ends early|follow"),
        (b"\x8e" + (2**40).to_bytes(8, "little") + b"abc.", "1099511627776 bytes are"),
        (b"B" + (2**31).to_bytes(4, "little") + b"abc.", "2147483648 bytes are"),
        (b"]r" + (2**31).to_bytes(4, "little") + b".", "memo"),
        (b"]p123456789\n.", "memo"),
        (b"\x80\x05\x97.", "out-of-band|buffers"),
        (b"U\x01aQ.", "refers to data outside"),
        (b"cnumpy\nndarray\n(i0\ntR.", "."),
        (b"cnumpy\nndarray\n(tR.", "numpy.ndarray is called"),
        (b"cnumpy\ndtype\n(tR.", "."),
        (b"cnumpy\ndtype\n(Vf4,O\ntR.", "dtype 'f4,O'"),
        (b"cnumpy\ndtype\n}b.", "numpy.dtype is given a state"),
        (pickle.dumps(np.arange(3), 5)[:-1] + b"}Vvalue\nI2\nsb.", "given a state"),
        (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "encoding 'rot13'"),
    ],
    ids=range(16),
)
def test_damaged_files(path, data, found):
    tracemalloc.start()
    try:
        with pytest.raises(BadData, match=found):
            read(path, data)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(2**40,), (2**40, 0, 2), (3,), (-4,), (4, 2.0), [4]])
def test_an_array_of_another_size_than_its_bytes(path, shape):
    """The pickle of four numbers with another shape put in."""

    class Claims:
        def __reduce__(self):
            make, arguments, (version, _, *rest) = np.arange(4.0).__reduce__()
            return make, arguments, (version, shape, *rest)

    with pytest.raises(BadData, match="shape"):
        read(path, pickle.dumps(Claims()))


def test_missing_file(path):
    with pytest.raises(FileNotFoundError):
        read_pickle(path)
