"""Reads tensors of an old PyTorch file (before version 1.6, not a zip) without running its pickle.

A pickle is a program. This reader walks through its instructions as data (`pickletools`), knows the
few that a dictionary of tensors needs, and refuses any other instruction or name.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXT = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "GLOBAL")


class _Mark:
    """The stack's mark, below the members of a tuple or list."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the named tensors of a state dictionary that `torch.save` wrote before version 1.6.

    Args:
      path: the file.

    Raises:
      ValueError: if the file is something else, or holds more than tensors.
    """
    with open(path, "rb") as file:
        try:
            header = [_walk(file, path) for _ in range(3)]
        except ValueError as error:
            raise ValueError(f"{path} is not an old PyTorch file: {error}") from error
        if header[:2] != [_MAGIC, _PROTOCOL] or not header[2].get("little_endian"):
            raise ValueError(f"{path} is not an old, little-endian PyTorch file")
        tensors, keys = _walk(file, path), _walk(file, path)
        storages = {}
        kinds = {view["key"]: view["dtype"] for view in tensors.values()}
        for key in keys:
            count = int(np.frombuffer(file.read(8), "<i8")[0])
            dtype = np.dtype(kinds[key])
            storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return {name: _view(storages[view["key"]], view) for name, view in tensors.items()}


def _view(storage: np.ndarray, view: dict[str, Any]) -> np.ndarray:
    strides = [step * storage.itemsize for step in view["strides"]]
    base = storage[view["offset"] :]
    return np.lib.stride_tricks.as_strided(base, view["shape"], strides, writeable=False).copy()


def _walk(file: BinaryIO, path: Path) -> Any:
    """Return the value that one pickle describes; tensors as {key, dtype, offset, shape, ...}."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    state = None

    def above_mark() -> list[Any]:
        place = max(i for i, value in enumerate(stack) if value is _Mark)
        members = stack[place + 1 :]
        del stack[place:]
        return members

    for instruction, argument, _ in pickletools.genops(file):
        name = instruction.name
        if name == "STOP":
            value = stack.pop()
            if isinstance(value, dict) and state is not None:
                return {key: item for key, item in value.items() if isinstance(item, dict)}
            return value
        if name in _NUMBERS_AND_TEXT:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "PROTO":
            pass
        elif name == "MARK":
            stack.append(_Mark)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "APPENDS":
            members = above_mark()
            stack[-1].extend(members)
        elif name == "SETITEM":
            key, item = stack[-2:]
            del stack[-2:]
            stack[-1][key] = item
        elif name == "SETITEMS":
            members = above_mark()
            stack[-1].update(zip(members[::2], members[1::2], strict=True))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop(), path))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments, path))
        elif name == "BUILD":  # attributes of the dictionary: its format's version, not a tensor
            state = stack.pop()
        else:
            raise ValueError(f"{path}: instruction {name} is not one that tensors need")
    raise ValueError(f"{path} ends too early")


def _storage(description: Any, path: Path) -> dict[str, Any]:
    kind, storage, key, _, _, view = description
    if kind != "storage" or storage not in _STORAGES or view is not None:
        raise ValueError(f"{path}: {storage!r} is not a supported storage")
    return {"key": key, "dtype": _STORAGES[storage]}


def _call(function: Any, arguments: tuple, path: Path) -> dict[str, Any]:
    if function == _DICT:
        return dict(arguments[0]) if arguments else {}
    if function == _TENSOR:
        storage, offset, shape, strides = arguments[:4]
        return {**storage, "offset": offset, "shape": shape, "strides": strides}
    raise ValueError(f"{path} calls {function!r}; it holds more than tensors")
