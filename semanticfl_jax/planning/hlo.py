"""What a compiled program says of itself: memory, collectives, and transfers to the host."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

#: Operations in which devices exchange arrays.
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
_HOST = ("infeed", "outfeed", "send", "recv")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8}
_BYTES |= {"s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4}

_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z\-]+)\(")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|called_computations)=\{?%?([\w.\-]+)")


class Collective(NamedTuple):
    """An exchange between devices.

    Attributes:
      kind: of `COLLECTIVES`.
      bytes: of its results, on each device.
      in_loop: whether it stands in a loop, and so may happen more than once.
    """

    kind: str
    bytes: int
    in_loop: bool


class Memory(NamedTuple):
    """Bytes on each device: what goes in, what comes out beside it, and what is needed between."""

    arguments: int
    results: int
    temporaries: int

    @property
    def total(self) -> int:
        """Return all of it."""
        return self.arguments + self.results + self.temporaries


def memory_of(compiled: Any) -> Memory:
    """Return the memory of a compiled program; results that take an argument's place are none."""
    found = compiled.memory_analysis()
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(found.argument_size_in_bytes, max(0, results), found.temp_size_in_bytes)


def collectives_of(text: str) -> list[Collective]:
    """Return the collectives of a program's optimised text (`compiled.as_text()`)."""
    computations = _computations(text)
    looped = _in_loops(computations)
    found = []
    for name, lines in computations.items():
        for line in lines:
            operation = _OPERATION.match(line)
            if operation is None:
                continue
            result, name_of = operation.groups()
            kind = name_of.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            sizes = [_size(array) for array in _ARRAY.findall(result)]
            # But for all-reduce, "-start" gives (operand, result, ...): the larger is what arrives.
            started = name_of != kind and kind != "all-reduce"
            found.append(Collective(kind, max(sizes) if started else sum(sizes), name in looped))
    return found


def estimated_cycles(text: str) -> int | None:
    """Return the cycles that a TPU's compiler expects its operations to take, added up.

    Each operation is counted once, also in a loop; transfers that run beside are not. None: the
    text tells nothing, as for a CPU.
    """
    found = [int(cycles) for cycles in _CYCLES.findall(text)]
    return sum(found) if found else None


def host_transfers(text: str) -> list[str]:
    """Return the lines of a program's text in which something crosses to the host or from it."""
    found = []
    for line in text.splitlines():
        operation = _OPERATION.match(line)
        if operation and (
            operation[2] in _HOST or "is_host_transfer=true" in line or "xla_python_cpu" in line
        ):
            found.append(line.strip())
    return found


def _computations(text: str) -> dict[str, list[str]]:
    """Return {name: lines} of a program's text."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            lines = found.setdefault(head[1], [])
        else:
            lines.append(line)
    return found


def _in_loops(computations: dict[str, list[str]]) -> set[str]:
    """Return the names of computations that loops call, directly or not."""
    calls = {
        name: [called for line in lines for called in _CALLED.findall(line)]
        for name, lines in computations.items()
    }
    left = [
        body
        for lines in computations.values()
        for line in lines
        if " while(" in line
        for body in _CALLED.findall(line)
    ]
    found: set[str] = set()
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += calls.get(name, [])
    return found


def _size(array: tuple[str, str]) -> int:
    kind, shape = array
    return _BYTES.get(kind, 0) * math.prod(int(length) for length in shape.split(",") if length)
