"""Downloads of published files: with progress, verified, and there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from semanticfl_jax.errors import SemanticFLError

#: Seconds without a byte after which a download is given up.
TIMEOUT = 60
_BLOCK = 1 << 20


def download(url: str, path: Path, md5: str) -> None:
    """Download a file, beside its place and renamed once it is verified.

    Args:
      url: of the file.
      path: where it goes; its directory is made if it is missing.
      md5: its published checksum, in hexadecimal.

    Raises:
      SemanticFLError: if it cannot be had or written, or is not the published file; nothing is left
        behind.
    """
    by_hand = f"; with a browser, save {url} as {path}"
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            found = _copy(url, file, path.name)
        if found != md5:
            raise SemanticFLError(
                f"{url} is not the published file: its MD5 is {found} and not {md5}; the download "
                "was damaged, or the file has changed there"
            )
        os.replace(beside, path)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise SemanticFLError(f"{url} cannot be downloaded: {reason}{by_hand}") from None
    except OSError as error:
        raise SemanticFLError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def md5_of(path: Path) -> str:
    """Return a file's MD5 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _copy(url: str, file, name: str) -> str:
    """Write what is at `url` to an open file; return its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        total = answer.length
        with tqdm(
            total=total, desc=name, unit="B", unit_scale=True, unit_divisor=1000, disable=None
        ) as bar:
            while block := answer.read(_BLOCK):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
    return digest.hexdigest()
