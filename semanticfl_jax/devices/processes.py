"""Several processes as one run: who writes, who waits for whom, and what all must agree on.

Every process runs the same program on its own devices: it reads the data, deals the same partition
and takes part in every compiled round. Process 0, the main one, alone writes and speaks. In a run
of one process nothing here does anything.
"""

import contextlib
import itertools
import zlib
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import process_allgather

from semanticfl_jax.errors import SemanticFLError

# Bytes of an error that other processes are told.
_MESSAGE = 2000
# How long a process waits for another: the main one may first build anchors, for hours.
_PATIENCE_MS = 7 * 24 * 3600 * 1000
_meetings = itertools.count()


def is_main() -> bool:
    """Return whether this is the process that writes files and speaks to the user."""
    return jax.process_index() == 0


def anywhere(flag: bool) -> bool:
    """Return whether `flag` is true in any process; all must ask."""
    return bool(flag if jax.process_count() == 1 else process_allgather(np.bool_(flag)).any())


def of_main(number: int) -> int:
    """Return the main process's `number`, where others may have another; all must ask."""
    return number if jax.process_count() == 1 else int(process_allgather(np.int32(number))[0])


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Let the main process do what is inside first; the others then find the files it wrote.

    An error in one process is an error in all: those without one of their own raise ValueError with
    its message, so that nobody waits for a process that has given up. No collective operation may
    be inside.
    """
    if jax.process_count() == 1:
        yield
        return
    if not is_main():
        _meet(None)
    failure = None
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        failure = error
    if is_main():
        _meet(failure)
    _meet(failure)


def require_equal(what: str, *arrays: np.ndarray) -> None:
    """Raise SemanticFLError, in all processes, unless arrays of numbers are the same in all."""
    if jax.process_count() == 1:
        return
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array), checksum)
    if len(np.unique(process_allgather(np.uint32(checksum)))) > 1:
        raise SemanticFLError(f"{what} must be the same for all processes, and differ")


def _meet(failure: BaseException | None) -> None:
    """Wait for all processes, and raise what any of them failed with."""
    # A barrier of the coordinator, because collectives of devices give up after some minutes.
    barrier = ocp.multihost.get_barrier_sync_fn()
    barrier(key=f"semanticfl_jax.{next(_meetings)}", timeout_ms=_PATIENCE_MS)
    message = np.zeros(_MESSAGE, np.uint8)
    if failure is not None:
        text = f"process {jax.process_index()}: {str(failure) or type(failure).__name__}"
        encoded = text.encode()[:_MESSAGE]
        message[: len(encoded)] = list(encoded)
    told = process_allgather(message)
    if failure is not None:
        raise failure
    for other in told:
        if other.any():
            raise SemanticFLError(bytes(other[other > 0]).decode(errors="replace"))
