"""Files of torch.save: genuine ones of three versions, and damaged ones."""

import contextlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mtl_optax.data.faults import BadData
from mtl_optax.data.torch_files import read_torch

FILES = Path(__file__).parent / "files"
VERSIONS = ("torch1_python2", "torch110", "torch2", "torch2_legacy")
four, base = np.arange(4), np.arange(12, dtype=np.float32)
MANY = {
    "uint8": four.astype(np.uint8),
    "int32": four.astype(np.int32),
    "int16": four.astype(np.int16),
    "int8": -four.astype(np.int8),
    "half": (four / 2).astype(np.float16),
    "bfloat16": (four / 2).astype(np.float32),
    "bool": four > 1,
    "whole": base,
    "rows": base.reshape(3, 4)[1:],
    "transposed": base.reshape(3, 4).T,
    "step": base[1::3],
    "expanded": np.zeros((2, 3), np.float32),
    "none": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.5, np.float32),
    "parameter": np.ones(2, np.float32),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_types_and_views(version):
    found = read_torch(FILES / f"{version}_many.pt")
    assert found.pop("nested") == [1, (2.5, "text"), {"a": None}]
    assert list(found) == list(MANY)
    for name, expected in MANY.items():
        assert found[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(found[name], expected, name, strict=True)
        assert found[name].base is None or found[name].base.nbytes == expected.nbytes


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tuple_of_images_and_labels(version):
    images, left, right = read_torch(FILES / f"{version}_multi.pt")
    assert images.dtype == np.float64
    assert images.shape == (10, 7, 7)
    assert all((images[row, row % 7] == 25 * row).all() for row in range(10))
    assert left.dtype == np.int64
    assert (left == np.arange(10)).all()
    assert (right == 3 * np.arange(10) % 10).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_state_of_a_module(version):
    """An `OrderedDict` with attributes."""
    state = read_torch(FILES / f"{version}_state.pt")
    assert type(state) is dict
    assert {name: w.shape for name, w in state.items()} == {
        "weight": (1, 2),
        "bias": (1,),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.pt"


def archive(path, entries, compression=zipfile.ZIP_STORED):
    """A file of the new format from its entries."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def entries_of(name):
    with zipfile.ZipFile(FILES / name) as file:
        return {entry: file.read(entry) for entry in file.namelist()}


def test_data_of_a_machine_of_the_other_byte_order(path):
    entries = entries_of("torch2_multi.pt")
    entries["torch2_multi/byteorder"] = b"big"
    for key in "012":
        data = np.frombuffer(entries[f"torch2_multi/data/{key}"], "<u8")
        entries[f"torch2_multi/data/{key}"] = data.astype(">u8").tobytes()
    found = read_torch(archive(path, entries))
    for one, other in zip(found, read_torch(FILES / "torch2_multi.pt"), strict=True):
        np.testing.assert_array_equal(one, other)


TENSOR = (
    "ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n"
    "I{numel}\ntQI{offset}\n({shape}t({strides}tI00\nNtR."
)


def tensor(numel=4, offset=0, shape=(2, 2), strides=(2, 1)):
    """The pickle of a tensor in a storage of that many float32."""
    shape, strides = (
        "".join(f"I{n}\n" for n in numbers) for numbers in (shape, strides)
    )
    words = TENSOR.format(numel=numel, offset=offset, shape=shape, strides=strides)
    return words.encode()


def with_tensor(path, **changes):
    data = np.arange(4, dtype="<f4").tobytes()
    return archive(path, {"a/data.pkl": tensor(**changes), "a/data/0": data})


def test_a_hand_made_tensor(path):
    np.testing.assert_array_equal(read_torch(with_tensor(path)), [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"offset": 1}, "in a storage of 4 elements"),
        ({"offset": -1}, "shape"),
        ({"shape": (3, 2)}, "in a storage of 4 elements"),
        ({"strides": (2, 2)}, "in a storage of 4 elements"),
        ({"strides": (2, -1)}, "shape"),
        ({"strides": (1,)}, "shorter|argument"),
        ({"shape": (2**20, 2**20), "strides": (0, 0)}, "larger than the file"),
        ({"shape": (1,), "strides": (2**70,)}, "shape"),
        ({"numel": 5}, "16 bytes in storage 0 of 5 Float"),
        ({"numel": 2**40}, "larger than the file"),
        ({"numel": -1}, "-1 elements"),
    ],
    ids=str,
)
def test_a_tensor_beyond_its_storage(path, changes, found):
    with pytest.raises(BadData, match=found):
        read_torch(with_tensor(path, **changes))


def test_a_tensor_cannot_be_changed_once_it_is_checked(path):
    """By a state, which pickle would put into its attributes."""
    changed = tensor().removesuffix(b".") + b"}V_offset\nI2\nsb."
    archive(path, {"a/data.pkl": changed, "a/data/0": bytes(16)})
    with pytest.raises(BadData, match="given a state"):
        read_torch(path)


def test_archives_that_torch_does_not_write(path):
    good = {"a/data.pkl": tensor(), "a/data/0": bytes(16)}
    with pytest.raises(BadData, match="no entry a/data/0"):
        read_torch(archive(path, {"a/data.pkl": tensor()}))
    with pytest.raises(BadData, match="0 entries"):
        read_torch(archive(path, {"a/data/0": bytes(16)}))
    with pytest.raises(BadData, match="2 entries"):
        read_torch(archive(path, {**good, "b/data.pkl": tensor()}))
    with pytest.raises(BadData, match="compressed"):
        read_torch(archive(path, good, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kept", [0, 3, 20, 0.3, 0.6, 0.95, -1])
def test_truncated_files(path, version, kept):
    data = (FILES / f"{version}_many.pt").read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else kept])
    with pytest.raises(BadData):
        read_torch(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flipped_byte_is_an_error_or_another_number(path, version):
    """No byte of a file makes another kind of error, or a crash."""
    data = (FILES / f"{version}_state.pt").read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :])
        with contextlib.suppress(BadData):
            read_torch(path)


def test_other_files(path):
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(BadData, match="neither a zip archive nor torch's magic number"):
        read_torch(path)
    path.write_text("<html>Not found</html>")
    with pytest.raises(BadData, match="not a pickle"):
        read_torch(path)


def test_nothing_is_called(path, capsys):
    """A whole module, or any other function, is refused by its name."""
    for words, name in (
        (b"ctorch.nn.modules.linear\nLinear\n.", "torch.nn.modules.linear.Linear"),
        (b"cbuiltins\nprint\n(Vhello\ntR.", "builtins.print"),
    ):
        with pytest.raises(BadData, match=name):
            read_torch(archive(path, {"a/data.pkl": words}))
        head = b"".join(pickle.dumps(n, 2) for n in (0x1950A86A20F9469CFC6C, 1001, {}))
        path.write_bytes(head + words)
        with pytest.raises(BadData, match=name):
            read_torch(path)
    assert not capsys.readouterr().out
