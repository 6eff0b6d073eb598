"""Compression of archives: what is unpacked, what is refused, and in which words."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from semanticfl_jax.files import GIT_LFS_POINTER, git_lfs_pointer

#: What the libraries raise for damaged streams. bz2 has no error of its own.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError, ValueError)

_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
    b"\x5d\0\0": lzma.decompress,
}
#: First bytes of archives that Python's library does not read.
_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": ".7z archive",
    b"Rar!": ".rar archive",
    b"\x28\xb5\x2f\xfd": "file packed by zstd",
    b"\x1f\x9d": "file packed by compress",
    b"\x04\x22\x4d\x18": "file packed by lz4",
}
_ZIP_METHODS = {
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
}
#: Names of other methods, of the .zip format's specification (APPNOTE, 4.4.5).
_OTHER_METHODS = {9: "Deflate64", 93: "zstd", 95: "xz", 98: "PPMd", 99: "AES encryption"}
UNPACK = "unpack it and name the folder instead"


def unpacked(path: Path) -> bytes | None:
    """Return the contents of a file packed by gzip, bzip2 or xz; None for another file.

    Raises:
      One of `DAMAGE`: if the file is damaged or cut off.
    """
    with open(path, "rb") as file:
        head = file.read(8)
    for magic, unpack in _UNPACKERS.items():
        if head.startswith(magic):
            return unpack(path.read_bytes())
    return None


def unsupported(path: Path) -> str | None:
    """Return what a file is, and what to do, if it is an archive of a kind that is not read."""
    with open(path, "rb") as file:
        head = file.read(len(GIT_LFS_POINTER))
    pointer = git_lfs_pointer(head)
    if pointer:
        return f"is {pointer}"
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            return f"is a {kind}, which is not read; {UNPACK}"
    return None


def zip_refusal(info: zipfile.ZipInfo) -> str | None:
    """Return why a file of a .zip archive is not read, and what to do; None if it is read."""
    if info.flag_bits & 1:
        return f"encrypted; {UNPACK}"
    if info.compress_type not in _ZIP_METHODS:
        method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
        return f"packed with {method}, which Python does not read; {UNPACK}"
    return None


def read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return one file of a .zip archive; from any thread.

    Raises:
      OSError: for a file that is not read; the message is the reason.
      One of `DAMAGE`, zipfile.BadZipFile: if the file is damaged.
    """
    refusal = zip_refusal(info)
    if refusal is not None:
        raise OSError(refusal)
    return archive.read(info)


def is_tar(path: Path) -> bool:
    """Return whether a file begins like a .tar that is not compressed (POSIX's and GNU's mark)."""
    with open(path, "rb") as file:
        return file.read(262)[257:] == b"ustar"


def link_target(
    members: Mapping[str, tarfile.TarInfo], member: tarfile.TarInfo
) -> tarfile.TarInfo | None:
    """Return what a link of a .tar leads to, over other links; the member itself if it is none.

    Args:
      members: by normalised name.
      member: one of them.

    Returns:
      None where there is nothing, or links lead to one another.
    """
    target: tarfile.TarInfo | None = member
    for _ in range(len(members)):
        if target is None or not (target.islnk() or target.issym()):
            return target
        # A hard link's name is of the archive, a symbolic one's is seen from its folder.
        folder = posixpath.dirname(target.name) if target.issym() else ""
        target = members.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
    return None


def read_member(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """Return a regular file of an unpacked .tar that is open; holes of a sparse one are zeros."""
    file.seek(member.offset_data)
    if not member.issparse():
        return file.read(member.size)
    content = bytearray(member.size)
    holes_between: Any = member.sparse  # (start, length) of what is stored, in typeshed bytes
    for start, length in holes_between:
        content[start : start + length] = file.read(length)
    return bytes(content)


def require_end(archive: tarfile.TarFile) -> None:
    """Raise `tarfile.ReadError` unless the members that were listed are all.

    tarfile takes a damaged header, or the end of the file, for the end of the archive. Every
    archive ends with a block of zeros.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError(
            f"damaged or cut off after {len(archive.getnames())} entries, at byte {archive.offset}"
        )
