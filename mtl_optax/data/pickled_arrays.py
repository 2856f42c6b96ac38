"""What a pickle of arrays may name, and what is called in its place.

Arrays are views of the bytes in the pickle, so none can be larger than what was read.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_LARGEST = 2**48  # of a side of an array: beyond every file, and no overflow


class Late(ABC):
    """What stands for a value until all of the file has been read."""

    def __setstate__(self, state: Any) -> None:
        """Without this a pickle could set any attribute, past all checks."""
        raise ValueError("a value is given a state")

    @abstractmethod
    def value(self) -> Any:
        """The value; raises `ValueError` where it cannot be had."""


class Known:
    """A name that pickles may use, and what a call of it does here."""

    __slots__ = ("_call", "name")

    def __init__(self, name: str, call: Callable[..., Any] | None = None):
        self.name, self._call = name, call

    def __call__(self, *arguments: Any) -> Any:
        """What the pickle gets for the call that it asks for."""
        if self._call is None:
            raise ValueError(f"{self.name} is called")
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        """Refuse the pickle's wish to change this very object."""
        raise ValueError(f"{self.name} is given a state")


class _Dtype:
    """A dtype, whose byte order comes as its state."""

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?[biufcSU]\d*", name):
            raise ValueError(f"an array of dtype {name!r}, not of numbers or strings")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """(version, byte order, then what records and dates have)."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in "<>|=":
            raise ValueError(f"a dtype with the state {state!r}")
        self.dtype = self.dtype.newbyteorder(state[1])


def _dtype_of(given: Any) -> np.dtype:
    """Its dtype, if it is a `_Dtype`."""
    if not isinstance(given, _Dtype):
        raise ValueError(f"a {type(given).__name__} as dtype")
    return given.dtype


def _array_of(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array over the bytes of a pickle, of just their size."""
    dtype = _dtype_of(dtype)
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"an array of a {type(data).__name__}, not of bytes")
    size = dtype.itemsize
    for side in checked_sizes(shape):
        size *= side
    if size != len(data):
        raise ValueError(
            f"an array of shape {shape} and dtype {dtype} in {len(data)} bytes, "
            f"where {size} are asked for"
        )
    if not data:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def checked_sizes(shape: Any) -> tuple[int, ...]:
    """The shape or strides of an array: whole numbers, none below 0 or absurd."""
    if not isinstance(shape, tuple) or len(shape) > 32:
        raise ValueError(f"an array of shape {shape!r}")
    for side in shape:
        if not isinstance(side, int) or not 0 <= side < _LARGEST:
            raise ValueError(f"an array of shape {shape!r}")
    return shape


class _Array(Late):
    """An array, whose shape, dtype and data come as its state."""

    def __init__(self, kind: Any, shape: Any, typecode: Any):
        if kind is not _NDARRAY:
            raise ValueError(f"an array of type {kind!r}")

    def __setstate__(self, state: Any) -> None:
        """(version, shape, dtype, whether in Fortran's order, data)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array with a state of another form than NumPy's")
        _, shape, dtype, fortran, data = state
        self._value = _array_of(data, dtype, shape, "F" if fortran else "C")

    def value(self) -> np.ndarray:
        """The array."""
        if not hasattr(self, "_value"):
            raise ValueError("an array without data")
        return self._value


class _Buffer(Late):
    """An array of protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None):
        if order not in ("C", "F", "K"):
            raise ValueError(f"an array of order {order!r}")
        array = _array_of(data, dtype, shape, "F" if order == "F" else "C")
        # K, of NumPy 2.3: the data lie in C's order of these axes.
        self._value = array if axes is None else array.transpose(checked_sizes(axes))

    def value(self) -> np.ndarray:
        """The array."""
        return self._value


def _scalar(dtype: Any, data: Any) -> Any:
    """A NumPy scalar."""
    return _array_of(data, dtype, (), "C")[()]


def _latin1(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in protocols 0 to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"an encoding {encoding!r}")
    return text.encode("latin1")


def _complex(real: Any, imaginary: Any) -> complex:
    """A complex number."""
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise ValueError("a complex number of other things than two numbers")
    return complex(real, imaginary)


_NDARRAY = Known("numpy.ndarray")
NAMES: Mapping[str, Known] = {
    known.name: known
    for known in (
        _NDARRAY,
        Known("numpy.core.multiarray._reconstruct", _Array),
        Known("numpy.core.multiarray.scalar", _scalar),
        Known("numpy.core.numeric._frombuffer", _Buffer),
        Known("numpy.dtype", _Dtype),
        Known("_codecs.encode", _latin1),
        Known("builtins.complex", _complex),
        Known("builtins.bytes", lambda: b""),  # empty ones, in protocols 0 to 2
    )
}
