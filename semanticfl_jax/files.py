"""Writing files whole: a reader sees the old file or the new one, never a part."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write(path: str | os.PathLike, save: Callable[[BinaryIO], Any]) -> None:
    """Calls `save` with a file open beside `path`, which is then renamed to `path`.

    The directory is made if it is missing; nothing is left behind if `save` fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            save(file)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
