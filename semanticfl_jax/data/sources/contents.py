"""What lies at a path, in words: for messages that say what was found in place of what was sought.

Nothing is read but names, and the descriptions that TFDS writes.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterator
from pathlib import Path

from semanticfl_jax.data.sources.file_tree import Archive, is_ignored
from semanticfl_jax.data.sources.image_formats import describe_unread
from semanticfl_jax.errors import MissingFileError, SemanticFLError

#: Folders below the path that are looked into, and entries looked at, at most.
_DEPTH, _ENTRIES = 3, 20_000
_NAMED = 5
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
#: Files by which data sets and models are recognised, and what they are.
_MARKS = {
    "wnids.txt": "TinyImageNet's files",
    "data_batch_1.bin": "CIFAR-10's binary files",
    "data_batch_1": "CIFAR-10's pickles",
    "train.bin": "CIFAR-100's binary files",
    "model_index.json": "a diffusion model",
    "state.json": "a data set saved by Hugging Face's save_to_disk (write it with to_parquet)",
}


def walk(top: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield what lies in a directory, and in those below it to some depth, the nearest first.

    Ends after 20,000 entries; what cannot be read is passed over.
    """
    waiting, seen = collections.deque([(top, 0)]), 0
    while waiting:
        folder, level = waiting.popleft()
        try:
            with os.scandir(folder) as entries:
                found = sorted((e for e in entries if not is_ignored(e.name)), key=lambda e: e.name)
        except OSError:
            continue
        for entry in found:
            seen += 1
            if seen > _ENTRIES:
                return
            yield Path(entry.path)
            if level < depth and Path(entry.path).is_dir():
                waiting.append((Path(entry.path), level + 1))


def describe_contents(path: Path) -> str:
    """Return what is at a path, as "found are 2 folders (cat, dog); 30 .png"."""
    if path.is_file() and path.name.lower().endswith(_ARCHIVES):
        return _describe_archive(path)
    if not path.is_dir():
        return f"{path} is a file" if path.exists() else f"{path} does not exist"
    known, files, seen = [], [], 0
    for seen, entry in enumerate(walk(path), start=1):  # noqa: B007
        where = entry.relative_to(path)
        if entry.name == "dataset_info.json":
            known.append(f"{_prepared(entry)} in {where.parent}")
        elif entry.name in _MARKS and entry.is_file():
            known.append(f"{_MARKS[entry.name]} in {where.parent}")
        elif entry.name.lower().endswith(_ARCHIVES):
            known.append(str(where))
        elif not entry.is_dir():
            files.append(entry.name)
    try:
        folders = sorted(e.name for e in path.iterdir() if e.is_dir() and not is_ignored(e.name))
    except OSError:
        folders = []
    parts = known[:_NAMED] + ["..."] * (len(known) > _NAMED)
    if folders:
        some = ", ".join(folders[:_NAMED]) + (", ..." if len(folders) > _NAMED else "")
        parts.append(f"{len(folders)} folder{'s' * (len(folders) > 1)} ({some})")
    if files:
        parts.append(describe_unread(files))
    if seen == _ENTRIES:
        parts.append("and more")
    return f"found are {'; '.join(parts)}" if parts else f"{path} is empty"


def missing_file(field: str, directory: Path, *names: str) -> MissingFileError:
    """Return the error for a file that a directory lacks, with where it is, or what is there.

    Args:
      field: that names the directory.
      directory: where the file was sought.
      names: that it may have.
    """
    line = f"{field}: {directory} has no {', nor '.join(names)}"
    folders = dict.fromkeys(path.parent for path in walk(directory) if path.name in names)
    if folders:
        return MissingFileError(f"{line}; name its folder, {' or '.join(map(str, folders))}")
    return MissingFileError(f"{line}; {describe_contents(directory)}")


def _describe_archive(path: Path) -> str:
    """Return what an archive holds, as `describe_contents` does of a directory."""
    try:
        tree = Archive(path)
        names, folders = tree.names, tree.folders()
    except SemanticFLError:
        return f"{path} is a file"
    parts = [f"{len(folders)} folders ({', '.join(folders[:_NAMED])})"] if folders else []
    parts += [describe_unread(names)] if names else []
    return f"in it are {'; '.join(parts)}" if parts else f"{path} holds no files"


def _prepared(info: Path) -> str:
    try:
        described = json.loads(info.read_bytes())
        name, kind = described["name"], described.get("fileFormat", "tfrecord")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "a damaged dataset_info.json"
    return f"{name} prepared by TFDS ({kind})"
