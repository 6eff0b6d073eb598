"""What a command says, and how it ends: one line for what a user can mend, on any terminal."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from semanticfl_jax.devices.start import cannot_start
from semanticfl_jax.errors import SemanticFLError

#: What stands for characters that a terminal's encoding does not have.
_PLAIN = {"±": "+/-", "µ": "u", "×": "x", "–": "-", "—": "-", "…": "...", "’": "'"}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "ENOSPC")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for characters that cannot be encoded, as an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in text)
    return plain, error.end


class _Steady:
    """A stream that is dropped when its reader is gone or the disk is full."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Send what is still to come to nowhere: the run is worth more than its log."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_output() -> None:
    """Make output line-buffered in any encoding, and ignore a closed pipe."""
    codecs.register_error("semanticfl", _replace)
    _fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Steady) or not hasattr(stream, "reconfigure"):
            continue
        stream.reconfigure(errors="semanticfl", line_buffering=True)
        setattr(sys, name, _Steady(stream))


def _fill_closed() -> None:
    """Open nothing in place of standard streams that are closed, as a daemon's are.

    The next file that is opened would take their number, and what libraries print would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def fail(error: BaseException | str, debug: bool = False) -> NoReturn:
    """End the command with one line on standard error, and exit status 2 or the error's own."""
    if debug and isinstance(error, BaseException):
        traceback.print_exception(error)
    line = error if isinstance(error, str) else explain(error) or str(error)
    print(f"error: {line}", file=sys.stderr)
    status = error.exit_status if isinstance(error, SemanticFLError) else 2
    if threading.active_count() > 1 and isinstance(error, BaseException) and is_full(error):
        # Threads that were writing checkpoints would each print the same again.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def explain(error: BaseException) -> str | None:
    """Return one line for an error of the machine or of a library; None for one of the program."""
    if is_full(error):
        where = next((e.filename for e in _chain(error) if getattr(e, "filename", None)), None)
        place = f" ({where})" if where else ""
        return (
            f"the disk is full{place}; make room and run the same command again: it resumes from "
            "the last checkpoint that was saved whole"
        )
    for each in _chain(error):
        text = " ".join(str(each).split())
        if isinstance(each, MemoryError) or "RESOURCE_EXHAUSTED" in text:
            return (
                f"out of memory ({text[:200] or 'of the host'}); lower batch_size, model.width, "
                "runtime.clients_per_chunk or runtime.eval_batch_size"
            )
        if _raised_in(each, "jax/_src/config.py"):
            return f"JAX cannot start: {text[:200]}; correct that variable of JAX's, or unset it"
        if not isinstance(each, SemanticFLError) and _from_jax_start(each):  # and not its line
            return cannot_start(each)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return None


def is_full(error: BaseException) -> bool:
    """Return whether an error comes of a disk without room."""
    return any(
        getattr(each, "errno", None) in _FULL or any(text in str(each) for text in _FULL_TEXTS)
        for each in _chain(error)
    )


def quieten() -> None:
    """Leave to the command's one line what libraries would log of the same error."""
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(_not_of_full_disks)

    usual = threading.excepthook

    def of_threads(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is None or not is_full(failure.exc_value):
            usual(failure)

    threading.excepthook = of_threads


def _not_of_full_disks(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    text = record.getMessage()
    return not ((error is not None and is_full(error)) or any(each in text for each in _FULL_TEXTS))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it comes of."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        waiting += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


def _from_jax_start(error: BaseException) -> bool:
    return "Unable to initialize backend" in str(error) or _raised_in(error, "xla_bridge.py")


def _raised_in(error: BaseException, file: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.endswith(file)
