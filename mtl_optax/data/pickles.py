"""Pickles of arrays, read without running what is in them.

A pickle is a program: it names functions and has them called. Here names are looked up
in a short table of our own functions, which check what they are given; any other name
ends the reading, and nothing is imported. Before that, a first pass over the opcodes
compares the sizes that they claim with what the file holds, so that nothing larger than
the file is allocated.
"""

import itertools
import mmap
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_optax.data.faults import BadData
from mtl_optax.data.pickled_arrays import NAMES, Known, Late

CURE = (
    "Only arrays, numbers, strings, tuples, lists and dicts are read, and no pickled "
    "code is run: make the file anew from these, or get it again if it is damaged"
)
_RENAMED = {"numpy._core.": "numpy.core.", "__builtin__": "builtins"}
_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_TWO_LINES = {"GLOBAL", "INST"}
# Bytes of the number that says how many bytes follow
_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def read_pickle(path: Path | str) -> Any:
    """What a pickle holds, as long as that is arrays, numbers, strings and containers.

    All protocols (0 to 5), of Python 2 and 3, of NumPy 1 and 2.

    Args:
      path: of the file.

    Returns:
      NumPy arrays (read-only) and scalars, bool, int, float, complex, str, bytes and
      None, in tuples, lists and dicts. Byte strings of Python 2 are str, by latin1.

    Raises:
      BadData: if the file names a function or class that is not one of these, which is
        then neither imported nor called; if an array is of Python objects or records,
        has another size than its shape asks for, or the file ends early.
      OSError: if there is no such file.

    Cost: the file's size in memory, and twice that for its largest array while it is
    read; two passes over the file.

    When not to use it: for files of your own; `numpy.savez` needs no pickle.

    Example:
      >>> import pickle, tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from mtl_optax.data.pickles import read_pickle
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "two.pickle")
      ...     _ = path.write_bytes(pickle.dumps((np.arange(3), "labels")))
      ...     read_pickle(path)
      (array([0, 1, 2]), 'labels')
    """
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            raise BadData(path, "the file is empty", "Get it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            return plain(load(stream, path), path)


def load(
    stream: Any,
    path: Path | str,
    names: Mapping[str, Known] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """A stream's next pickle, its `Late` values not yet replaced; adds to `NAMES`."""
    try:
        start = stream.tell()
        _check_sizes(stream)
        end = stream.tell()
        stream.seek(start)
        loaded = _Unpickler(stream, path, {**NAMES, **(names or {})}, persistent).load()
        stream.seek(end)
    except BadData:
        raise
    except Exception as error:  # of a damaged pickle, any may come
        raise BadData(path, f"not a pickle that can be read: {error}", CURE) from error
    return loaded


def plain(loaded: Any, path: Path | str) -> Any:
    """The same with values for what was `Late`; refuses every other type."""
    try:
        return _plain(loaded, {})
    except (ValueError, RecursionError) as error:
        raise BadData(path, f"not a pickle that can be read: {error}", CURE) from error


class _Unpickler(pickle.Unpickler):
    """Looks names up in a table."""

    def __init__(self, stream: Any, path: Any, names: Any, persistent: Any):
        super().__init__(stream, encoding="latin1")
        self._path, self._names, self._persistent = path, names, persistent

    def find_class(self, module: str, name: str) -> Any:
        """The table's entry, in place of an import."""
        for old, new in _RENAMED.items():
            module = (
                new + module.removeprefix(old) if module.startswith(old) else module
            )
        full = f"{module}.{name}"
        if full not in self._names:
            raise BadData(self._path, f"the pickle asks for {full}", CURE)
        return self._names[full]

    def persistent_load(self, pid: Any) -> Any:
        """What the file holds outside the pickle; torch's storages."""
        if self._persistent is None:
            raise ValueError("it refers to data outside the pickle")
        return self._persistent(pid)


def _check_sizes(stream: Any) -> None:
    """Goes to the end of the pickle; refuses sizes above what the file holds."""
    # Not by `pickletools.genops`, which copies all data and ends at Python 2's strings.
    start = stream.tell()
    stream.seek(0, 2)
    size = stream.tell()
    stream.seek(start)
    for count in itertools.count(1):
        code = stream.read(1)
        if code not in _OPCODES:
            raise ValueError(f"{code!r} is no opcode" if code else "it ends early")
        opcode = _OPCODES[code]
        argument = _argument(opcode, stream, size)
        # A place in the memo is a size too: that of the list which holds it. Picklers
        # count places from 0 or 1.
        if opcode.name in _PUTS and argument > count:
            raise ValueError(f"place {argument} of a memo of at most {count}")
        if opcode.name == "STOP":
            return


def _argument(opcode: pickletools.OpcodeInfo, stream: Any, size: int) -> int:
    """Reads over an opcode's argument; its number, where it is one."""
    width = opcode.arg.n if opcode.arg else 0
    if width == pickletools.UP_TO_NEWLINE:
        lines = [stream.readline() for _ in range(1 + (opcode.name in _TWO_LINES))]
        return int(lines[0]) if opcode.name == "PUT" else 0
    number = int.from_bytes(stream.read(_WIDTHS.get(width, width)), "little")
    if width in _WIDTHS:
        rest = size - stream.tell()
        if number > rest:
            raise ValueError(f"{number} bytes are to follow, and {rest} do")
        stream.seek(number, 1)
    return number


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """`plain` of a part; `done` has containers by identity, None while under way."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    if isinstance(value, np.generic):
        return value
    if id(value) in done:
        if done[id(value)] is None:
            raise ValueError("it contains itself")
        return done[id(value)]
    done[id(value)] = None
    if isinstance(value, Late):
        result = value.value()
    elif isinstance(value, list | tuple):
        parts = [_plain(part, done) for part in value]
        result = tuple(parts) if isinstance(value, tuple) else parts
    elif isinstance(value, dict):
        result = {_key(key): _plain(part, done) for key, part in value.items()}
    else:
        what = value.name if isinstance(value, Known) else type(value).__name__
        raise ValueError(f"it holds a {what}")
    done[id(value)] = result
    return result


def _key(key: Any) -> Any:
    """A dict's key: a number or a string."""
    if not isinstance(key, bool | int | float | str | bytes):
        raise ValueError(f"a dict has a {type(key).__name__} as key")
    return key
