"""TFRecord files, read without TensorFlow; their checksums are verified.

A record is its length (uint64), the length's checksum, the bytes, and theirs; little-endian. A
checksum is CRC-32C (Castagnoli), rotated and shifted by a constant ("masked").
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from semanticfl_jax.errors import SemanticFLError

#: Records whose checksums are computed at once.
_TOGETHER = 512
_POLYNOMIAL = np.uint32(0x82F63B78)


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file in order.

    Raises:
      SemanticFLError: if the file is cut off or damaged; the message names it and the record.
    """
    size, done = path.stat().st_size, 0
    with open(path, "rb") as file:
        while file.tell() < size:
            heads, records, checksums = [], [], []
            while file.tell() < size and len(records) < _TOGETHER:
                head = file.read(12)
                length = int.from_bytes(head[:8], "little")
                if len(head) < 12 or length + 4 > size - file.tell():
                    raise SemanticFLError(
                        f"{path} is damaged or cut off after {done + len(records)} records"
                    )
                heads.append(head)
                records.append(file.read(length))
                checksums.append(file.read(4))
            intact = masked_crc32c([head[:8] for head in heads]) == _numbers(heads)
            intact &= masked_crc32c(records) == _numbers(checksums)
            if not intact.all():
                raise SemanticFLError(f"{path} is damaged in record {done + int(intact.argmin())}")
            yield from records
            done += len(records)


def _numbers(texts: Sequence[bytes]) -> np.ndarray:
    """Return the last four bytes of each, as uint32 [n]."""
    return np.array([int.from_bytes(text[-4:], "little") for text in texts], np.uint32)


def masked_crc32c(texts: Sequence[bytes]) -> np.ndarray:
    """Return the masked CRC-32C of each of n byte strings, uint32 [n]; together, byte by byte."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    lengths = np.array([len(texts[i]) for i in order])
    table, crc = _table(), np.full(len(texts), 0xFFFFFFFF, np.uint32)
    block = np.zeros((int(lengths.max(initial=0)), len(texts)), np.uint8)
    for row, i in enumerate(order):
        block[: len(texts[i]), row] = np.frombuffer(texts[i], np.uint8)
    # Longest first: those that are not at their end yet are the first `active`.
    active = np.searchsorted(-lengths, -np.arange(len(block)), side="left")
    for column, count in zip(block, active.tolist(), strict=True):
        part = crc[:count]
        crc[:count] = table[(part ^ column[:count]) & 0xFF] ^ (part >> 8)
    crc = ~crc
    result = np.empty_like(crc)
    result[order] = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    return result


@functools.cache
def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, _POLYNOMIAL, np.uint32(0))
    return table
