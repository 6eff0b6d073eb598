"""Files by name, whether they lie in a directory or in a .zip or .tar that is never unpacked.

What systems and programs leave among files is in neither; `is_ignored` is the one list of it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import posixpath
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from semanticfl_jax.data.sources import packing
from semanticfl_jax.errors import MissingFileError, SemanticFLError

#: Names, in lower case, that systems and programs leave among files; so are those with a dot first.
_LEFT_BEHIND = frozenset(
    {
        "__macosx",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
_BROKEN_LINK, _NO_FILE = "a link to what is not there", "no regular file"


def is_ignored(name: str) -> bool:
    """Return whether a file or folder, by its name, is none of the user's."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def open_tree(path: str | os.PathLike) -> Directory | Archive:
    """Return the files of a directory, or of a .zip or .tar file.

    Raises:
      MissingFileError: if there is neither.
    """
    path = Path(path)
    if path.is_dir():
        return Directory(path)
    if path.is_file():
        return Archive(path)
    raise MissingFileError(f"data_dir: no directory or archive {path}")


class Directory:
    """The files below a directory; symbolic links are followed, ignored entries are not there.

    Links that lead nowhere, or to a folder that holds them, and what is no regular file, are no
    files of the tree, but its `problems`.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def cache_prefix(self) -> Path:
        """Where a cache of what is read goes; a suffix is added. Hidden: no file of the tree."""
        return self.path / ".decoded"

    @functools.cached_property
    def names(self) -> list[str]:
        """Every file, relative and with forward slashes, sorted."""
        return list(self._found[0])

    @property
    def problems(self) -> Mapping[str, str]:
        """Why entries that should be files or folders are none, by name, sorted."""
        return self._found[1]

    @functools.cached_property
    def _found(self) -> tuple[dict[str, os.stat_result], dict[str, str]]:
        files: dict[str, os.stat_result] = {}
        problems: dict[str, str] = {}
        top = os.stat(self.path)
        # Folders to read, each with the identities of those that it lies in, itself included.
        waiting = [("", frozenset({(top.st_dev, top.st_ino)}))]
        while waiting:
            prefix, above = waiting.pop()
            for entry in self._scan(prefix):
                name = f"{prefix}{entry.name}"
                try:
                    status = entry.stat()
                except OSError:
                    problems[name] = _BROKEN_LINK
                    continue
                if stat.S_ISDIR(status.st_mode):
                    identity = (status.st_dev, status.st_ino)
                    if identity in above:
                        problems[name] = "a link to a folder that it lies in"
                    else:
                        waiting.append((f"{name}/", above | {identity}))
                elif stat.S_ISREG(status.st_mode):
                    files[name] = status
                else:
                    problems[name] = _NO_FILE
        return dict(sorted(files.items())), dict(sorted(problems.items()))

    def _scan(self, prefix: str) -> list[os.DirEntry]:
        try:
            with os.scandir(self.path / prefix) as entries:
                return [entry for entry in entries if not is_ignored(entry.name)]
        except OSError as error:
            raise SemanticFLError(
                f"{self.path / prefix} cannot be read: {error.strerror or error}"
            ) from None

    def folders(self, prefix: str = "") -> list[str]:
        """Return names of the folders in a folder, sorted; those without any file count, too.

        Args:
          prefix: "" for the tree's top, else a folder with a slash at its end.
        """
        return sorted(
            entry.name
            for entry in self._scan(prefix)
            if f"{prefix}{entry.name}" not in self.problems and entry.is_dir()
        )

    def fingerprint(self) -> str:
        """Tell trees apart by the names, sizes and times of their files."""
        digest = hashlib.sha256()
        for name, status in self._found[0].items():
            digest.update(_describe(name, status))
        for name, reason in self.problems.items():
            digest.update(f"{name}\0{reason}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def open(self, name: str) -> BinaryIO:
        """Return one file, to be read; from any thread."""
        return open(self.path / name, "rb")


class _Refused(SemanticFLError):
    """An archive that is whole, and not read."""


class Archive:
    """The files in a .zip or .tar; a compressed .tar is held in memory, unpacked, while open.

    Links in a .tar are followed to other files of it. Those that lead nowhere or to a folder, and
    what is no regular file, are its `problems`, as a directory's are.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def cache_prefix(self) -> Path:
        """Where a cache of what is read goes; a suffix is added."""
        return self.path.with_name(f"{self.path.name}.decoded")

    @property
    def problems(self) -> Mapping[str, str]:
        """Why entries that should be files are none, by name, sorted."""
        return self._found[1]

    @functools.cached_property
    def _found(self) -> tuple[dict[str, Callable[[], bytes]], dict[str, str]]:
        try:
            # A .tar whose last file is a .zip, or an .npz, ends like a .zip.
            tar = packing.is_tar(self.path) or not zipfile.is_zipfile(self.path)
            found: dict[str, Callable[[], bytes] | str] = {}
            outside = []
            for name, read in self._tar() if tar else self._zip():
                parts = [part for part in PurePosixPath(name).parts if part != "/"]
                if ".." in parts:
                    outside.append(name)
                elif not any(is_ignored(part) for part in parts):
                    found["/".join(parts)] = read
        except _Refused:
            raise
        except (tarfile.TarError, zipfile.BadZipFile, *packing.DAMAGE) as error:
            reason = packing.unsupported(self.path) or f"is no whole .zip or .tar file: {error}"
            raise SemanticFLError(f"{self.path} {reason}") from None
        if outside:
            some = f"{len(outside)} files whose names lead out of it ({outside[0]}, ...)"
            print(f"{self.path}: not read are {some}", file=sys.stderr)
        files = {name: read for name, read in sorted(found.items()) if not isinstance(read, str)}
        return files, {name: why for name, why in sorted(found.items()) if isinstance(why, str)}

    def _zip(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        archive = zipfile.ZipFile(self.path)
        files = [info for info in archive.infolist() if not info.is_dir()]
        refusals = [packing.zip_refusal(info) for info in files]
        if files and all(refusals):
            raise _Refused(f"{self.path} is {refusals[0]}")
        for info in files:
            # Some Windows programs write their own separator.
            name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")
            yield name, functools.partial(packing.read_zipped, archive, info)

    def _tar(self) -> Iterator[tuple[str, Callable[[], bytes] | str]]:
        # Files are read out of order, for which a compressed stream would start again and again.
        unpacked = packing.unpacked(self.path)

        def read(member: tarfile.TarInfo) -> bytes:
            with open(self.path, "rb") if unpacked is None else io.BytesIO(unpacked) as file:
                return packing.read_member(file, member)

        stream = None if unpacked is None else io.BytesIO(unpacked)
        with tarfile.open(self.path, mode="r:", fileobj=stream) as archive:
            members = archive.getmembers()
            packing.require_end(archive)
            by_name = {posixpath.normpath(member.name): member for member in members}
            for member in members:
                target = packing.link_target(by_name, member)
                if target is None:
                    yield member.name, _BROKEN_LINK
                elif target.isreg():
                    yield member.name, functools.partial(read, target)
                elif not member.isdir():
                    folder = "a link to a folder; in archives only those to files are followed"
                    yield member.name, folder if target.isdir() else _NO_FILE

    @functools.cached_property
    def names(self) -> list[str]:
        """Every file, relative and with forward slashes, sorted."""
        return list(self._found[0])

    def folders(self, prefix: str = "") -> list[str]:
        """Return the folders in a folder that hold files, sorted; see `Directory.folders`."""
        inside = (name.removeprefix(prefix) for name in self.names if name.startswith(prefix))
        return sorted({name.partition("/")[0] for name in inside if "/" in name})

    def fingerprint(self) -> str:
        """Tell archives apart by their name, size and time, without reading them."""
        return hashlib.sha256(_describe(self.path.name, self.path.stat())).hexdigest()

    def open(self, name: str) -> BinaryIO:
        """Return one file, to be read; from any thread.

        Raises:
          OSError: if it cannot be unpacked; the message is the reason alone.
        """
        try:
            return io.BytesIO(self._found[0][name]())
        except OSError:
            raise
        except (zipfile.BadZipFile, zlib.error, *packing.DAMAGE) as error:
            raise OSError(f"damaged in the archive: {error}") from None


def read_text(tree: Directory | Archive, name: str) -> str:
    """Read a file of UTF-8 text.

    Raises:
      SemanticFLError: naming the file, if it cannot be read or is in another encoding.
    """
    try:
        with tree.open(name) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SemanticFLError(
            f"{tree.path}: {name} must be UTF-8 text, but byte {error.start} is none of it; save "
            "it as UTF-8"
        ) from None
    except OSError as error:
        raise SemanticFLError(f"{tree.path}: cannot read {name}: {error}") from None


def _describe(name: str, status: os.stat_result) -> bytes:
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
