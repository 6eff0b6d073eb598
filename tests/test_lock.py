"""A directory has one writer at a time, whatever ends it."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from semanticfl_jax import lock as locking
from semanticfl_jax.errors import ConfigError, DirectoryInUseError
from semanticfl_jax.lock import NAME, Lock

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from semanticfl_jax.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_named_until_it_is_killed(tmp_path, holder):
    with pytest.raises(DirectoryInUseError) as error:
        Lock(tmp_path)
    message = str(error.value)
    assert f"in use by process {holder.pid} on {socket.gethostname()}, since 20" in message
    assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", message)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / NAME).exists()  # what it left behind is in nobody's way
    with Lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_a_lock_is_left_behind_when_its_holder_is_killed_and_to_look_is_in_nobody_s_way(
    tmp_path, holder, monkeypatch
):
    assert not locking.left_behind(tmp_path / "nothing") and not locking.left_behind(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert locking.left_behind(tmp_path)
    # A run that begins while somebody looks waits for that, and is not refused.
    looking = os.open(tmp_path / NAME, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(locking.time, "sleep", lambda seconds: os.close(looking))
    with Lock(tmp_path):
        assert not locking.left_behind(tmp_path)  # this process has it
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert not locking.left_behind(tmp_path)  # nobody here can tell


def test_a_later_lock_of_the_same_process_takes_over(tmp_path):
    first = Lock(tmp_path)
    second = Lock(tmp_path / ".")
    assert not first.held and second.held
    first.release()
    assert (tmp_path / NAME).exists()
    second.release()
    second.release()
    assert not (tmp_path / NAME).exists()


def test_a_directory_that_was_made_for_nothing_is_removed(tmp_path):
    with Lock(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    with Lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert (tmp_path / "a" / "b" / "file").exists()


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--workdir=.*file cannot be written to \(File exists\)"):
        Lock(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be written to"):
        Lock(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="cannot be written to"):
        Lock(Path("/proc/run"))


def test_without_locks_of_the_file_system_the_file_decides(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locking.fcntl, "flock", unsupported)
    host, here = socket.gethostname(), tmp_path / NAME
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    for who in ("", "{", json.dumps({"host": host, "pid": gone.pid})):
        here.write_text(who)
        Lock(tmp_path).release()
    for who in ({"host": host, "pid": os.getppid()}, {"host": "elsewhere", "pid": 1}):
        here.write_text(json.dumps(who))
        with pytest.raises(DirectoryInUseError, match="If that process is gone, delete "):
            Lock(tmp_path)
