"""The one way a path that a user gives becomes a path: `~`, `$VAR`, relative, and no URLs.

The standard library alone is imported, so that a mistake is answered at once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from semanticfl_jax.errors import ConfigError

# `Path("gs://bucket")` is "gs:/bucket"; of other words before a colon a folder may be called.
_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://|(?:gs|s3a?|hdfs|webhdfs|abfss?|wasbs?|az|adl|dbfs|file|https?):/"
)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def local_path(given: str | os.PathLike, name: str) -> Path:
    """Return the path that `given` means on this machine; a relative one stays relative.

    What is returned means the same path if it is given again.

    Args:
      given: as typed: with `~`, `~user`, `$VAR` or `${VAR}`, or without.
      name: of the field or flag, for messages.

    Raises:
      ConfigError: for an empty path, a variable or a user that does not exist, or a URL.
    """
    text = given if isinstance(given, str) else _text(given, name)
    if not text.strip():
        raise ConfigError(
            f"{name} must be a path, got {text!r}; leave it out, or see whether a variable in it "
            "is set"
        )
    if text.startswith("file:/"):
        raise ConfigError(f"{name} must be a path, got {text!r}; leave out file://")
    if _URL.match(text):
        raise ConfigError(
            f"{name} must be a path on this machine, got {text!r}; mount the bucket (gcsfuse, "
            "s3fs, an HDFS gateway), or use a local directory and copy what it holds"
        )
    if "\0" in text or not _is_encodable(text):
        raise ConfigError(f"{name} must be a path, got {text!r}")
    expanded = os.path.expandvars(text)
    missing = _VARIABLE.search(expanded)
    if missing and os.path.exists(os.path.expanduser(text)):  # a folder may have such a name
        expanded = text
    elif missing:
        variable = missing[1] or missing[2]
        raise ConfigError(f"{name}={text}: the variable {variable} is not set")
    whole = os.path.expanduser(expanded)
    if whole.startswith("~"):
        who = whole.split("/")[0]
        raise ConfigError(
            f"{name}={text}: there is no home directory for {who}; set HOME, or give the whole "
            f"path (./{who} is a folder of that name)"
        )
    if not whole.strip() or _URL.match(whole):  # what a variable held
        return local_path(whole, f"{name}={text}, which")
    path = Path(whole)
    return Path.cwd() / path if str(path).startswith("~") else path  # it was given as ./~


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def path_or_name(given: str | os.PathLike, name: str) -> str:
    """Return a name as it is, and what looks like a path as `local_path` does."""
    text = given if isinstance(given, str) else _text(given, name)
    looks_like_one = text.startswith(("~", ".", "/")) or "$" in text or _URL.match(text)
    return str(local_path(text, name)) if looks_like_one or not text.strip() else text


def _text(given: object, name: str) -> str:
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if isinstance(text, str):
        return text
    raise ConfigError(f"{name} must be a path, got {given!r}")


def home() -> Path | None:
    """Return the user's home directory; None for a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None
