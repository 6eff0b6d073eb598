"""Pickles of plain data, such as CIFAR's batches, read so that no code of theirs can run.

A pickle may name any function and have it called. Here the only names that mean anything are those
by which NumPy's arrays are stored, and what they stand for is our own: nothing of NumPy is called
with what the file says but `frombuffer`, and that on bytes that are there.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from semanticfl_jax.errors import SemanticFLError

#: Types of elements, as NumPy's pickles name them: truth values, integers, floating-point numbers.
_ELEMENTS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"b1", "f4", "f8"}


def loads(content: bytes) -> Any:
    """Return the data of a pickle: arrays, bytes, str, numbers, lists, tuples, dicts, None.

    Byte strings of Python 2 become str, a byte a character.

    Raises:
      SemanticFLError: for a pickle of anything else, or a damaged one.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(content), encoding="latin1").load())
    except SemanticFLError:
        raise
    except RecursionError:
        raise SemanticFLError("a pickle that is nested too deeply") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged pickles make it raise nearly everything
        raise SemanticFLError(f"no whole pickle: {error or type(error).__name__}") from None


class _DType:
    """Stands for a `numpy.dtype`: an element's type, and afterwards its byte order."""

    def __init__(self, name: str | bytes, *flags: int):
        name = name.decode("ascii") if isinstance(name, bytes) else name
        if name not in _ELEMENTS:
            raise SemanticFLError(f"a pickle of an array of {name!r}, where numbers are expected")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise SemanticFLError(f"a pickle of an array of byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a `numpy.ndarray`, which its state becomes."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, str):
            content = content.encode("latin1")
        self._set(content, dtype, shape, "F" if fortran else "C")

    def _set(self, content: Any, dtype: _DType, shape: Any, order: str) -> None:
        if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _DType):
            raise SemanticFLError("a pickle of an array without its bytes")
        self.array = np.frombuffer(content, dtype.dtype).reshape(
            shape, order="F" if order == "F" else "C"
        )


class _Name:
    """Stands for the class `numpy.ndarray` where a pickle hands it on; it cannot be called."""


def _reconstruct(kind: object, *unused: object) -> _Array:
    if kind is not _NDARRAY:
        raise SemanticFLError("a pickle of a kind of array that is not NumPy's own")
    return _Array()


def _frombuffer(content: Any, dtype: _DType, shape: Any, order: str, *unused: object) -> _Array:
    array = _Array()
    array._set(content, dtype, shape, order)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes that Python 3 writes as text in pickles for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise SemanticFLError(f"a pickle of bytes as {encoding!r}")
    return codecs.encode(text, "latin1")


_NDARRAY = _Name()
_KNOWN: dict[tuple[str, str], Callable | _Name] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}
for _package in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _KNOWN[f"{_package}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise SemanticFLError(
                f"a pickle that asks for {module}.{name}; arrays, text, numbers, lists and "
                "dictionaries are read, and nothing else"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise SemanticFLError("a pickle that refers to something outside of it")


def _plain(value: Any) -> Any:
    """Return the value with arrays for what stood for them; no other types pass."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if value is None or type(value) in (bytes, bytearray, str, int, bool, float):
        return value
    raise SemanticFLError(f"a pickle of {type(value).__name__}")
