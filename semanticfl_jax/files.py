"""Files written whole: a reader sees the old file or the new one, never a part.

JSON has no NaN or infinity: both are written as null.
"""

import json
import math
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.paths import home, local_path

#: How a file begins that Git LFS left in place of the real one.
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def git_lfs_pointer(begin: bytes | str | os.PathLike) -> str | None:
    """Return what a file is, and what to do, if Git LFS left it in place of the real one.

    Args:
      begin: the file's first bytes, 40 at least; or its path.

    Returns:
      A text that goes on behind "FILE is "; None for any other file.
    """
    if not isinstance(begin, bytes):
        with open(begin, "rb") as file:
            begin = file.read(len(GIT_LFS_POINTER))
    if not begin.startswith(GIT_LFS_POINTER):
        return None
    return "a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository"


def write(path: str | os.PathLike, save: Callable[[BinaryIO], Any]) -> None:
    """Call `save` with a file open beside `path`, which is then renamed to `path`.

    The directory is made if it is missing; nothing is left behind if `save` fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two threads, or machines that share the directory, may write the same file.
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(beside, "xb") as file:
            save(file)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, beside and renamed."""
    write_text(path, json.dumps(to_json_values(value), indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a file beside and rename it: a reader sees the old file or the new, never a part."""
    write(path, lambda file: file.write(text.encode("utf-8")))


def read_json_object(path: str | os.PathLike, *, missing_ok: bool = False) -> dict[str, Any]:
    """Return what a file of JSON holds, an object.

    Args:
      path: of the file.
      missing_ok: whether a file that is not there stands for an empty object.

    Raises:
      OSError: if it cannot be opened.
      SemanticFLError: if it is damaged, or holds something else.
    """
    if missing_ok and not Path(path).is_file():
        return {}
    content = Path(path).read_bytes()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = error if content else "it is empty"
        raise SemanticFLError(f"{path} is damaged: {reason}") from None
    if not isinstance(values, dict):
        raise SemanticFLError(f"{path} must hold a JSON object, has a {type(values).__name__}")
    return values


def to_json_values(value: Any) -> Any:
    """Return `value` with Python's numbers, tuples as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): to_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if not isinstance(value, float) and hasattr(value, "tolist"):
        return to_json_values(value.tolist())
    number = float(value)
    return number if math.isfinite(number) else None


def user_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/semanticfl_jax`, by default under `~/.cache`.

    A user without a home directory, as in some containers, has one of temporary files.
    """
    given, own = os.environ.get("XDG_CACHE_HOME"), home()
    if given:
        return local_path(given, "$XDG_CACHE_HOME") / "semanticfl_jax"
    if own:
        return own / ".cache" / "semanticfl_jax"
    return Path(tempfile.gettempdir()) / f"semanticfl_jax-{os.getuid()}"


def compiled_programs() -> Path:
    """Return the folder of compiled programs, unless the user names another."""
    return user_cache_dir() / "xla"
