"""What commands say of errors, and on which terminals."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from launch.console import explain, is_full
from semanticfl_jax.devices.start import cannot_start
from semanticfl_jax.errors import SemanticFLError

ROOT = Path(__file__).parents[2]


def script(text, stdout=subprocess.PIPE, **env):
    return subprocess.run(
        [sys.executable, "-c", f"from launch.console import prepare_output, fail\n{text}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


def test_what_a_terminal_cannot_show_is_shown_in_ascii():
    done = script("prepare_output(); print('87.7 ± 4.0 猫 …')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "87.7 +/- 4.0 \\u732b ...\n")
    done = script("prepare_output(); print('± 猫')", PYTHONIOENCODING="utf-8")
    assert done.stdout == "± 猫\n"


LINES = "prepare_output()\nfor i in range(9999): print('line', i)\nopen('{}', 'w').write('done')"


def test_a_log_that_nobody_reads_does_not_end_the_run(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = script(LINES.format(tmp_path / "a"), stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a").read_text() == "done"
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = script(LINES.format(tmp_path / "b"), stdout=full)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "b").read_text() == "done"


def raised(error, cause=None):
    try:
        try:
            raise cause or ValueError("first")
        except Exception as first:
            raise error from first
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            raised(OSError(errno.ENOSPC, "No space left on device", "/x/y")),
            "the disk is full (/x/y); ",
        ),
        (
            raised(OSError(errno.EDQUOT, "Disk quota exceeded")),
            "the disk is full; make room and run ",
        ),
        (raised(ValueError("UNKNOWN: write failed: No space left on device")), "the disk is full"),
        (raised(RuntimeError("save failed"), OSError(errno.ENOSPC, "full")), "the disk is full"),
        (ExceptionGroup("two", [KeyError(1), OSError(errno.ENOSPC, "x")]), "the disk is full"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes"),
            "out of memory (RESO",
        ),
        (MemoryError(), "out of memory (of the host); lower batch_size"),
        (
            RuntimeError("Unable to initialize backend 'tpu': no TPU"),
            "JAX cannot start (RuntimeErr",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
    ],
)
def test_errors_of_the_machine_are_one_line(error, line):
    assert explain(error).startswith(line)
    assert "\n" not in explain(error)
    assert is_full(error) == ("disk is full" in line)


def test_errors_of_the_program_are_not_explained_away():
    for error in (KeyError("a"), RuntimeError("shape mismatch"), AssertionError()):
        assert explain(raised(error)) is None


def test_closed_streams_are_not_what_is_opened_next(tmp_path):
    """As of a daemon: what is printed, also by C libraries, would go into the first files."""
    code = f"""
        import os
        from launch.console import prepare_output
        prepare_output()
        with open({str(tmp_path / "kept")!r}, "w") as file:
            for number in (1, 2):
                os.write(number, b"noise")
            print("noise")
            file.write("kept")
    """
    command = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, textwrap.dedent(code)]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0
    assert (tmp_path / "kept").read_text() == "kept"


def test_jax_that_does_not_start_is_explained_once():
    """By a variable that it cannot read, and by a device that is not there."""
    try:
        exec(compile("raise ValueError('no JAX_X')", "x/jax/_src/config.py", "exec"))
    except ValueError as error:
        assert explain(error) == (
            "JAX cannot start: no JAX_X; correct that variable of JAX's, or unset it"
        )
    started = RuntimeError("Unable to initialize backend 'x'")
    told = SemanticFLError(cannot_start(started))
    told.__cause__ = started
    assert explain(told).count("JAX cannot start") == 1
