"""A directory has one writer at a time: a lock that names its holder and dies with it.

The kernel holds the lock (`flock`), so that it is free again whatever ends the process, `kill -9`
included. The file says who has it. On file systems without locks the file alone decides.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

from semanticfl_jax.errors import ConfigError, DirectoryInUseError

NAME = ".lock"

#: Tries, and seconds between them, where nobody who lives seems to have the lock: somebody looks.
_TRIES, _PAUSE = 5, 0.02

_held: dict[str, Lock] = {}
_guard = threading.Lock()


class Lock:
    """The right to write to a directory; `release` gives it back, as the end of the process does.

    A second lock of one process takes the place of the first, whose `held` is then False: a
    notebook's next `Simulation` must not wait for the last one.

    Args:
      directory: is made if it is missing, and removed again if it is empty on release.
      name: of the field or flag, for messages.

    Raises:
      DirectoryInUseError: if another process has it.
      ConfigError: if the directory cannot be written to.
    """

    def __init__(self, directory: Path, name: str = "--workdir"):
        self._key = os.path.realpath(directory)
        self._path = Path(self._key, NAME)
        self._made: list[Path] = []
        self.held = False
        with _guard:
            before = _held.pop(self._key, None)
            if before is not None:
                self._file, self._made = before._give_up()
            else:
                self._make_directory(directory, name)
                self._file = self._open(directory, name)
            self._say_who()
            self.held = True
            _held[self._key] = self

    def release(self) -> None:
        """Free the directory; a second time does nothing."""
        with _guard:
            if not self.held:
                return
            self.held = False
            _held.pop(self._key, None)
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            for directory in reversed(self._made):
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "held", False):
            self.release()

    def _give_up(self) -> tuple[int, list[Path]]:
        self.held = False
        return self._file, self._made

    def _make_directory(self, directory: Path, name: str) -> None:
        missing = []
        for each in (Path(self._key), *Path(self._key).parents):
            if each.exists():
                break
            missing.append(each)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(_unwritable(directory, name, error)) from error
        self._made = list(reversed(missing))

    def _open(self, directory: Path, name: str) -> int:
        tries = 1
        while True:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise ConfigError(_unwritable(directory, name, error)) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _read(file)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(file)
                    if tries < _TRIES and not _may_live(holder):
                        tries += 1
                        time.sleep(_PAUSE)
                        continue
                    raise DirectoryInUseError(_in_use(directory, holder)) from None
                if _may_live(holder):  # no locks here
                    os.close(file)
                    line = _in_use(directory, holder)
                    raise DirectoryInUseError(
                        f"{line}. If that process is gone, delete {self._path}"
                    ) from None
            # The last holder may have removed the file between the two calls.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    return file
            os.close(file)

    def _say_who(self) -> None:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        who = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        with contextlib.suppress(OSError):  # a full disk; the lock holds all the same
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(who).encode() + b"\n", 0)


def left_behind(directory: Path) -> bool:
    """Return whether a directory's lock is one that a killed process of this host left.

    The process must be gone, and the kernel must know of no other holder: the process may be
    another container's. To ask it is to take the lock for an instant, for which `Lock` waits.
    """
    try:
        file = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        holder = _read(file)
        if holder.get("host") != socket.gethostname() or _may_live(holder):
            return False
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # somebody holds it, or the file system has no locks
        return False
    finally:
        os.close(file)
    return True


@atexit.register
def _release_all() -> None:
    for lock in list(_held.values()):
        lock.release()


def _read(file: int) -> dict:
    try:
        who = json.loads(os.pread(file, 4096, 0))
        return who if isinstance(who, dict) else {}
    except ValueError:
        return {}


def _may_live(holder: dict) -> bool:
    """Return whether a holder may be another process that lives, as far as this host can tell."""
    if not isinstance(holder.get("pid"), int) or holder["pid"] == os.getpid():
        return False
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _in_use(directory: Path, holder: dict) -> str:
    who = "another process"
    if "pid" in holder:
        who = (
            f"process {holder['pid']} on {holder.get('host', 'an unknown host')}, since "
            f"{holder.get('since', 'an unknown time')}"
        )
    return f"{directory} is in use by {who}; wait for its end, or use another --workdir"


def _unwritable(directory: Path, name: str, error: OSError) -> str:
    return f"{name}={directory} cannot be written to ({error.strerror}); use another directory"
