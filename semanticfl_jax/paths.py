"""The one way a path that a user gives becomes a path: `~`, `$VAR`, relative, and no URLs.

The standard library alone is imported, so that a mistake is answered at once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from semanticfl_jax.errors import ConfigError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def local_path(given: str | os.PathLike, name: str) -> Path:
    """Return the path that `given` means on this machine; a relative one stays relative.

    Args:
      given: as typed: with `~`, `~user`, `$VAR` or `${VAR}`, or without.
      name: of the field or flag, for messages.

    Raises:
      ConfigError: for an empty path, a variable or a user that does not exist, or a URL.
    """
    text = os.fspath(given)
    if not text.strip():
        raise ConfigError(
            f"{name} must be a path, got {text!r}; leave it out, or see whether a variable in it "
            "is set"
        )
    if _URL.match(text):
        raise ConfigError(
            f"{name} must be a path on this machine, got {text!r}; mount the bucket (gcsfuse, "
            "s3fs, an HDFS gateway), or use a local directory and copy what it holds"
        )
    if "\0" in text:
        raise ConfigError(f"{name} must be a path, got {text!r}")
    expanded = os.path.expandvars(os.path.expanduser(text))
    if expanded.startswith("~") and os.path.expanduser(text) == text:
        who = expanded.split("/")[0]
        raise ConfigError(
            f"{name}={text}: there is no home directory for {who}; set HOME, or give the whole "
            f"path (./{who} is a folder of that name)"
        )
    missing = _VARIABLE.search(expanded)
    if missing and not os.path.exists(text):  # a folder may have such a name
        variable = missing[1] or missing[2]
        raise ConfigError(f"{name}={text}: the variable {variable} is not set")
    return Path(text if missing else expanded)


def path_or_name(given: str | os.PathLike, name: str) -> str:
    """Return a name as it is, and what looks like a path as `local_path` does."""
    text = os.fspath(given)
    looks_like_one = text.startswith(("~", ".", "/")) or "$" in text or _URL.match(text)
    return str(local_path(text, name)) if looks_like_one or not text.strip() else text


def home() -> Path | None:
    """Return the user's home directory; None for a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None
