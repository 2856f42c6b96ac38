"""Files of torch.save, read without torch and without running what is in them.

Two formats. Since torch 1.6, a zip archive: `NAME/data.pkl` says what there is,
`NAME/data/KEY` holds the numbers of one storage, uncompressed. Before, and with
`_use_new_zipfile_serialization=False`, five pickles one after another (a magic number,
the version, sizes of the machine's types, what there is, the keys of the storages),
then the storages, each behind its length. Either way the pickle speaks of a tensor as a
view of a storage: an offset, a shape and strides.
"""

import math
import mmap
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_optax.data.faults import BadData
from mtl_optax.data.pickled_arrays import Known, Late, checked_sizes
from mtl_optax.data.pickles import load, plain

CURE = "Get the file again, or save it anew with torch.save"
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "Bool": "?",
    "Byte": "u1",
    "Char": "i1",
    "Short": "i2",
    "Int": "i4",
    "Long": "i8",
    "Half": "f2",
    "Float": "f4",
    "Double": "f8",
    "ComplexFloat": "c8",
    "ComplexDouble": "c16",
    "BFloat16": "u2",  # the upper half of a float32
}


def read_torch(path: Path | str) -> Any:
    """What `torch.save` wrote, as long as that is tensors, numbers and containers.

    Args:
      path: of the file, of any torch since 0.4.

    Returns:
      Tuples, lists and dicts (an `OrderedDict` too is one) of NumPy arrays, numbers,
      strings and None. A tensor or parameter is an array of its own, wherever it lay;
      bfloat16 is float32, which holds each of its numbers.

    Raises:
      BadData: if the file is neither format or damaged, if a tensor reaches beyond its
        storage or is larger than the file, or if the pickle in it names anything but
        tensors, parameters and `OrderedDict` (a whole module, say), which is then
        neither imported nor called.
      OSError: if there is no such file.

    Cost: the file's size in memory, and two passes over it.

    When not to use it: for sparse or quantized tensors, whose names are refused.

    Example:
      >>> import pickle, tempfile
      >>> from pathlib import Path
      >>> from mtl_optax.data.torch_files import read_torch
      >>> head = 0x1950A86A20F9469CFC6C, 1001, {}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "old.pt")  # as of torch.save({"epoch": 3}, path)
      ...     parts = (*head, {"epoch": 3}, [])
      ...     _ = path.write_bytes(b"".join(pickle.dumps(x, 2) for x in parts))
      ...     read_torch(path)
      {'epoch': 3}
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(4)
        if not start:
            raise BadData(path, "the file is empty", CURE)
        try:
            if start == b"PK\x03\x04":
                return _read_archive(path)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                return _read_pickles(stream, path)
        except BadData:
            raise
        except Exception as error:  # of a damaged archive, any may come
            found = f"not a file of torch.save that can be read: {error}"
            raise BadData(path, found, CURE) from error


def _read_archive(path: Path) -> Any:
    """The format since torch 1.6."""
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(inside) != 1:
            raise ValueError(f"{len(inside)} entries NAME/data.pkl in the archive")
        folder = inside[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"  # absent before torch 2.1
        big = order in archive.namelist() and _stored(archive, order) == b"big"

        def fill(storage: _Storage) -> None:
            storage.fill(_stored(archive, f"{folder}data/{storage.key}"), big=big)

        storages = _Storages(path, fill)
        pickled = BytesIO(_stored(archive, inside[0]))
        return plain(load(pickled, path, NAMES, storages), path)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry, which torch never compresses: so it is no larger than the file."""
    if name not in archive.namelist():
        raise ValueError(f"no entry {name} in the archive")
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"the entry {name} is compressed")
    return archive.read(name)


def _read_pickles(stream: mmap.mmap, path: Path) -> Any:
    """The format before torch 1.6."""
    if plain(load(stream, path), path) != _MAGIC:
        raise ValueError("neither a zip archive nor torch's magic number")
    version = plain(load(stream, path), path)
    if version != _VERSION:
        raise ValueError(f"version {version} of the format, where {_VERSION} is read")
    load(stream, path)  # sizes of types; data are little-endian on every machine
    storages = _Storages(path)
    loaded = load(stream, path, NAMES, storages)
    keys = plain(load(stream, path), path)
    for key in keys:
        if key not in storages.by_key:
            raise ValueError(f"a storage {key!r} which no tensor has")
        storage = storages.by_key[key]
        numel = int.from_bytes(stream.read(8), "little")
        if numel != storage.numel:
            raise ValueError(f"{numel} elements in a storage of {storage.numel}")
        storage.fill(stream.read(numel * storage.dtype.itemsize))
    return plain(loaded, path)


class _Storage:
    """A stretch of numbers in the file."""

    def __init__(self, key: str, kind: str, numel: int):
        self.key, self.kind, self.numel = key, kind, numel
        self.dtype = np.dtype(_DTYPES[kind])
        self.data: np.ndarray | None = None

    def fill(self, data: bytes, big: bool = False) -> None:
        """Its numbers, from the file."""
        if len(data) != self.numel * self.dtype.itemsize:
            raise ValueError(
                f"{len(data)} bytes in storage {self.key} of {self.numel} {self.kind}"
            )
        self.data = np.frombuffer(data, self.dtype.newbyteorder(">" if big else "<"))


class _Part(NamedTuple):
    """What a tensor sees of a storage: all, but for some files before torch 0.4."""

    storage: _Storage
    first: int
    numel: int
    largest: int  # bytes of a tensor: the file's size


class _Storages:
    """Answers what the pickle says of data outside it."""

    def __init__(self, path: Path, fill: Callable[[_Storage], None] | None = None):
        self.by_key: dict[str, _Storage] = {}
        self._fill, self._size = fill, path.stat().st_size

    def __call__(self, pid: Any) -> _Part:
        """Of ("storage", type, key, device, numel), before 1.6 with a part or None."""
        match pid:
            case ("storage", Known(name=name), str(key), _, int(numel), *rest):
                kind = name.removeprefix("torch.").removesuffix("Storage")
            case _:
                raise ValueError("data outside the pickle that are no storage")
        if kind not in _DTYPES or numel < 0:
            raise ValueError(f"a storage of {numel} elements of type {name}")
        if key not in self.by_key:
            self.by_key[key] = _Storage(key, kind, numel)
            if numel * self.by_key[key].dtype.itemsize > self._size:
                raise ValueError(f"a storage of {numel} {kind}, larger than the file")
            if self._fill is not None:
                self._fill(self.by_key[key])
        storage = self.by_key[key]
        if (storage.kind, storage.numel) != (kind, numel):
            raise ValueError(f"storage {key} has two types or sizes")
        match rest:
            case [] | [None]:
                return _Part(storage, 0, numel, self._size)
            case [(_, int(first), int(seen))] if 0 <= first <= first + seen <= numel:
                return _Part(storage, first, seen, self._size)
            case _:
                raise ValueError(f"a part of storage {key} that is not in it")


class _Tensor(Late):
    """A view of a storage."""

    def __init__(self, part: Any, offset: Any, shape: Any, strides: Any, *_: Any):
        if not isinstance(part, _Part):
            raise ValueError("a tensor without storage")
        checked_sizes((offset, *checked_sizes(shape), *checked_sizes(strides)))
        pairs = list(zip(shape, strides, strict=True))
        last = offset + sum((size - 1) * stride for size, stride in pairs)
        at = f"a tensor of shape {shape}, strides {strides} and offset {offset}"
        if 0 not in shape and last >= part.numel:
            raise ValueError(f"{at} in a storage of {part.numel} elements")
        if math.prod(shape) * part.storage.dtype.itemsize > part.largest:
            raise ValueError(f"{at}, larger than the file")
        self._part, self._offset, self._pairs = part, offset, pairs

    def value(self) -> np.ndarray:
        """A copy of what it sees."""
        data, shape = self._part.storage.data, tuple(size for size, _ in self._pairs)
        if data is None:
            raise ValueError(f"no data of storage {self._part.storage.key}")
        if 0 in shape:
            seen = np.empty(shape, data.dtype)
        else:
            strides = tuple(stride * data.itemsize for _, stride in self._pairs)
            start = data[self._part.first + self._offset :]
            seen = np.lib.stride_tricks.as_strided(start, shape, strides)
        if self._part.storage.kind == "BFloat16":
            return (seen.astype(np.uint32) << 16).view(np.float32)
        return seen.astype(data.dtype.newbyteorder("="), order="C")


class _Ordered(dict):
    """An `OrderedDict`, without the attributes that module states have."""

    def __setstate__(self, state: Any) -> None:
        """Leaves `_metadata` out."""


def _ordered(*items: Any) -> _Ordered:
    """An `OrderedDict`; Python 2 gives its items here, as a list of lists."""
    return _Ordered(*items)


def _parameter(tensor: Any, *_: Any) -> Any:
    """A parameter is its tensor."""
    return tensor


NAMES: Mapping[str, Known] = {
    known.name: known
    for known in (
        Known("collections.OrderedDict", _ordered),
        Known("torch._utils._rebuild_tensor", _Tensor),  # before torch 0.4
        Known("torch._utils._rebuild_tensor_v2", _Tensor),
        Known("torch._utils._rebuild_parameter", _parameter),
        *(Known(f"torch.{kind}Storage") for kind in _DTYPES),
    )
}
