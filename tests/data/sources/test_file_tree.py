"""Files in directories and archives: what is ignored, what is broken, and what is not read."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import zipfile

import pytest

from semanticfl_jax.data.sources.contents import describe_contents
from semanticfl_jax.data.sources.file_tree import is_ignored, open_tree, read_text

FILES = {"a/1.txt": b"one", "a/b/2.txt": b"two" * 400, "3.txt": b""}
LEFT_BEHIND = [
    "__MACOSX/a/._1.txt",
    "a/._1.txt",
    "a/.DS_Store",
    "Thumbs.db",
    "a/THUMBS.DB",
    "desktop.ini",
    ".ipynb_checkpoints/x.txt",
    "@eaDir/1.txt",
    "a/Icon\r",
]


def write(root, files=FILES):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar(files=FILES):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return content.getvalue()


def zipped(path, files=FILES, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def contents(tree):
    found = {}
    for name in tree.names:
        with tree.open(name) as file:
            found[name] = file.read()
    return found


@pytest.mark.parametrize("kind", ["directory", "zip", "tar"])
def test_what_systems_leave_behind_is_nowhere(tmp_path, kind):
    files = {**FILES, **dict.fromkeys(LEFT_BEHIND, b"x")}
    path = tmp_path / f"x.{kind}"
    if kind == "directory":
        write(path, files)
    elif kind == "zip":
        zipped(path, files)
    else:
        path.write_bytes(tar(files))
    tree = open_tree(path)
    assert contents(tree) == FILES
    assert tree.folders() == ["a"] and tree.folders("a/") == ["b"]
    assert not is_ignored("thumbs") and is_ignored("Desktop.ini")


PACKERS = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_compression_of_tar_is_read_or_refused_whole(tmp_path, kind):
    packed = PACKERS[kind](tar())
    path = tmp_path / f"x.{kind}"
    path.write_bytes(packed)
    assert contents(open_tree(path)) == FILES
    # A .tar without the last of its blocks of zeros is whole.
    size = 3072 if kind == "tar" else len(packed)
    for length in (size - 1, size // 2, 20, 0):
        path.write_bytes(packed[:length])
        with pytest.raises(ValueError, match=r"x\.tar.* is no whole \.zip or \.tar file"):
            _ = open_tree(path).names


@pytest.mark.parametrize("where", [0, 512, 1024])
def test_a_tar_is_not_read_up_to_its_damage(tmp_path, where):
    """tarfile takes a header that is damaged for the archive's end."""
    content = bytearray(tar({f"{i}.txt": b"x" for i in range(4)}))
    content[where + 148 if where != 512 else 1024 + 148] ^= 0x01  # the checksum of a header
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no whole"):
        _ = open_tree(path).names
    # Cut between two entries: every entry that is left is whole.
    path.write_bytes(tar({f"{i}.txt": b"x" for i in range(4)})[:2048])
    with pytest.raises(ValueError, match="damaged or cut off after 2 entries"):
        _ = open_tree(path).names


def patched(path, offset_local, offset_central, value):
    """A .zip whose one file claims another method or flag, in both of its headers."""
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    for place in (offset_local, central + offset_central):
        content[place] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offsets", "value", "message"),
    [
        ((8, 10), 9, "packed with Deflate64, which Python does not read; unpack it"),
        ((8, 10), 93, "packed with zstd"),
        ((8, 10), 77, "packed with method 77"),
        ((6, 8), 1, "encrypted; unpack it"),
    ],
)
def test_files_in_a_zip_that_python_cannot_unpack(tmp_path, offsets, value, message):
    path = zipped(tmp_path / "x.zip", {"a.txt": b"text"})
    patched(path, *offsets, value)
    with pytest.raises(ValueError, match=rf"x\.zip is {message}"):
        _ = open_tree(path).names
    path = zipped(tmp_path / "x.zip", {"a.txt": b"text", "b.txt": b"more"})
    patched(path, *offsets, value)
    tree = open_tree(path)
    with pytest.raises(OSError, match=message):
        tree.open("a.txt")
    with pytest.raises(ValueError, match=rf"x\.zip: cannot read a\.txt: {message}"):
        read_text(tree, "a.txt")


def test_a_file_in_a_zip_with_another_checksum_or_damaged_bytes(tmp_path):
    stored = zipped(tmp_path / "a.zip", {"a.txt": b"text text"})
    stored.write_bytes(stored.read_bytes().replace(b"text text", b"text tixt"))
    with pytest.raises(OSError, match="damaged in the archive: Bad CRC-32"):
        open_tree(stored).open("a.txt")
    packed = zipped(tmp_path / "b.zip", {"a.txt": b"xy" * 99}, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(packed.read_bytes())
    content[36:39] = b"\xff\xff\xff"
    packed.write_bytes(content)
    with pytest.raises(OSError, match="damaged in the archive"):
        open_tree(packed).open("a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), r"is a \.7z archive, which is not read; unpack it"),
        (b"Rar!\x1a\x07" + bytes(99), r"is a \.rar archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "packed by zstd"),
        (b"<!doctype html>", "no whole"),
    ],
)
def test_what_is_no_archive_that_is_read(tmp_path, content, message):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _ = open_tree(path).names


def test_names_with_the_separator_of_windows(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = "train\\cat\\0.txt"
        archive.writestr(info, b"0")
    assert open_tree(path).names == ["train/cat/0.txt"]


def test_links_to_nothing_and_to_folders_above_are_problems(tmp_path):
    root = write(tmp_path / "x")
    other = write(tmp_path / "other", {"5.txt": b"five"})
    os.symlink("gone", root / "a/0.txt")
    os.symlink("itself", root / "itself")
    os.symlink("..", root / "a/up")
    os.symlink(".", root / "here")
    os.symlink(other, root / "link")
    os.symlink("../../a", root / "a/b/round")
    os.symlink("1.txt", root / "a/same.txt")
    os.mkfifo(root / "pipe.txt")
    tree = open_tree(root)
    assert contents(tree) == {**FILES, "a/same.txt": b"one", "link/5.txt": b"five"}
    assert tree.problems == {
        "a/0.txt": "a link to what is not there",
        "itself": "a link to what is not there",
        "a/up": "a link to a folder that it lies in",
        "a/b/round": "a link to a folder that it lies in",
        "here": "a link to a folder that it lies in",
        "pipe.txt": "no regular file",
    }
    assert tree.folders() == ["a", "link"]
    before = tree.fingerprint()
    os.unlink(root / "a/0.txt")
    assert open_tree(root).fingerprint() != before


def test_text_that_is_no_utf_8_is_named(tmp_path):
    write(tmp_path, {"w.txt": "Bär".encode("latin-1"), "u.txt": "\ufeffBär".encode()})
    assert read_text(open_tree(tmp_path), "u.txt") == "Bär"
    with pytest.raises(ValueError, match=r"w\.txt must be UTF-8 text, but byte 1"):
        read_text(open_tree(tmp_path), "w.txt")
    with pytest.raises(FileNotFoundError, match="no directory or archive"):
        open_tree(tmp_path / "nowhere")


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_names_that_lead_out_of_an_archive_are_not_read_and_counted(tmp_path, capsys, form):
    files = {"a/1.txt": b"one", "../a/2.txt": b"two", "/abs/3.txt": b"three", "a/../../4": b"four"}
    path = tmp_path / f"x.{form}"
    zipped(path, files) if form == "zip" else path.write_bytes(tar(files))
    # What is absolute is taken as if it were relative, as tar does.
    assert contents(open_tree(path)) == {"a/1.txt": b"one", "abs/3.txt": b"three"}
    told = capsys.readouterr().err
    assert "x." in told and "not read are 2 files whose names lead out of it (../a/2.txt" in told


def test_what_an_archive_holds_is_described(tmp_path):
    assert describe_contents(zipped(tmp_path / "none.zip", {})).endswith("none.zip holds no files")
    inner = zipped(tmp_path / "inner.zip").read_bytes()
    outer = zipped(tmp_path / "outer.zip", {"inner.zip": inner})
    assert describe_contents(outer) == "in it are 1 .zip"
    assert describe_contents(tmp_path / "inner.zip") == "in it are 1 folders (a); 3 .txt"
    (tmp_path / "text.zip").write_text("no archive")
    assert describe_contents(tmp_path / "text.zip").endswith("text.zip is a file")


def linked(path, *links, files=FILES):
    """A .tar of the files and of links (name, kind, target) after them."""
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        for name, kind, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


def test_links_in_a_tar_lead_to_files_or_are_problems(tmp_path):
    path = linked(
        tmp_path / "x.tar",
        ("a/hard.txt", tarfile.LNKTYPE, "a/1.txt"),
        ("a/soft.txt", tarfile.SYMTYPE, "b/../hard.txt"),
        ("gone.txt", tarfile.LNKTYPE, "nowhere.txt"),
        ("out.txt", tarfile.SYMTYPE, "../../3.txt"),
        ("c", tarfile.DIRTYPE, ""),
        ("folder", tarfile.SYMTYPE, "c"),
        ("round.txt", tarfile.SYMTYPE, "trip.txt"),
        ("trip.txt", tarfile.SYMTYPE, "round.txt"),
        ("pipe", tarfile.FIFOTYPE, ""),
    )
    tree = open_tree(path)
    assert contents(tree) == {**FILES, "a/hard.txt": b"one", "a/soft.txt": b"one"}
    nothing = dict.fromkeys(("gone.txt", "out.txt", "round.txt", "trip.txt"), "not there")
    wanted = {**nothing, "folder": "those to files", "pipe": "no regular file"}
    assert tree.problems.keys() == wanted.keys()
    assert all(wanted[name] in why for name, why in tree.problems.items())


def test_a_tar_is_no_zip_whatever_it_ends_with(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"x/1.txt": b"of the inner one"}).read_bytes()
    files = {**FILES, "z.zip": inner}
    assert contents(open_tree(linked(tmp_path / "x.tar", files=files))) == files


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_holes_of_files_in_a_tar_are_zeros(tmp_path, form):
    folder = write(tmp_path / "x", {"1.bin": b"", "2.txt": b"after it"})
    with open(folder / "1.bin", "wb") as file:
        for place in (0, 1 << 20, 3 << 20):
            file.seek(place)
            file.write(b"%d" % place)
        file.truncate(4 << 20)
    command = ["tar", "-S", f"--format={form}", "-cf", tmp_path / "x.tar", "-C", folder, "."]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tar that stores holes")
    expected = {name: (folder / name).read_bytes() for name in ("1.bin", "2.txt")}
    assert contents(open_tree(tmp_path / "x.tar")) == expected
