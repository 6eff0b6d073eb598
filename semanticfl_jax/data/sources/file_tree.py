"""Files by name, whether they lie in a directory or in a .zip or .tar that is never unpacked."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from semanticfl_jax.errors import MissingFileError, SemanticFLError


def open_tree(path: str | os.PathLike) -> Directory | Archive:
    """The files of a directory, or of a .zip or .tar file.

    Raises:
      FileNotFoundError: if there is neither.
    """
    path = Path(path)
    if path.is_dir():
        return Directory(path)
    if path.is_file():
        return Archive(path)
    raise MissingFileError(f"data_dir: no directory or archive {path}")


class Directory:
    """The files below a directory; symbolic links are followed, hidden entries are not there."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def cache_prefix(self) -> Path:
        """Where a cache of what is read goes; a suffix is added. Hidden: no file of the tree."""
        return self.path / ".decoded"

    @functools.cached_property
    def names(self) -> list[str]:
        """Every file, relative and with forward slashes, sorted."""
        names = []

        def refuse(error: OSError) -> None:
            raise error  # os.walk would pass over a folder that cannot be read

        for folder, folders, files in os.walk(self.path, onerror=refuse, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = Path(folder).relative_to(self.path)
            names += [(relative / n).as_posix() for n in files if not n.startswith(".")]
        return sorted(names)

    def fingerprint(self) -> str:
        """Tells trees apart by the names, sizes and times of their files."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(_describe(name, self.path / name))
        return digest.hexdigest()

    def open(self, name: str) -> BinaryIO:
        """One file, to be read; from any thread."""
        return open(self.path / name, "rb")


class Archive:
    """The files in a .zip or .tar; a compressed .tar is held in memory, unpacked, while open.

    Hidden entries, and the `__MACOSX` folder of archives made on a Mac, are not there.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def cache_prefix(self) -> Path:
        """Where a cache of what is read goes; a suffix is added."""
        return self.path.with_name(f"{self.path.name}.decoded")

    @functools.cached_property
    def _members(self) -> dict[str, Callable[[], bytes]]:
        try:
            members = self._zip() if zipfile.is_zipfile(self.path) else self._tar()
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, gzip.BadGzipFile) as error:
            raise SemanticFLError(f"{self.path} is no whole .zip or .tar file: {error}") from None
        found = {}
        for name, read in members:
            parts = PurePosixPath(name).parts
            if not any(part.startswith(".") or part == "__MACOSX" for part in parts):
                found["/".join(parts)] = read
        return found

    def _zip(self) -> list[tuple[str, Callable[[], bytes]]]:
        archive = zipfile.ZipFile(self.path)
        return [
            (info.filename, functools.partial(archive.read, info))
            for info in archive.infolist()
            if not info.is_dir()
        ]

    def _tar(self) -> list[tuple[str, Callable[[], bytes]]]:
        # Files are read out of order, for which a compressed stream would start again and again.
        with open(self.path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        unpacked = gzip.decompress(self.path.read_bytes()) if packed else None

        def read(member: tarfile.TarInfo) -> bytes:
            if not member.isreg():
                raise OSError("no regular file in the archive")
            with open(self.path, "rb") if unpacked is None else io.BytesIO(unpacked) as file:
                file.seek(member.offset_data)
                return file.read(member.size)

        with tarfile.open(self.path, fileobj=io.BytesIO(unpacked) if packed else None) as archive:
            members: list[tuple[str, Callable[[], bytes]]] = []
            for member in archive.getmembers():
                target = archive.getmember(member.linkname) if member.islnk() else member
                if not member.isdir():
                    members.append((member.name, functools.partial(read, target)))
        return members

    @property
    def names(self) -> list[str]:
        """Every file, relative and with forward slashes, sorted."""
        return sorted(self._members)

    def fingerprint(self) -> str:
        """Tells archives apart by their name, size and time, without reading them."""
        return hashlib.sha256(_describe(self.path.name, self.path)).hexdigest()

    def open(self, name: str) -> BinaryIO:
        """One file, to be read; from any thread."""
        return io.BytesIO(self._members[name]())


def _describe(name: str, path: Path) -> bytes:
    stat = path.stat()
    return f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape")
