"""CIFAR as published: every form gives the same images, and what is damaged is named."""

import hashlib
import http.server
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.data.sources import cifar_archives, restricted_pickle
from semanticfl_jax.data.sources.download import download

SHARED = Path(
    os.environ.get("SEMANTICFL_TEST_DATA") or Path(__file__).parents[3].parent / "shared" / "data"
)
REAL = SHARED / "tfds" / "cifar10" / "3.0.2"
FOLDERS = {
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar100", "binary"): "cifar-100-binary",
    ("cifar100", "python"): "cifar-100-python",
}
FORMS = list(FOLDERS)
PER_BATCH = 3


class Arrays:
    """Images and labels of every batch of a small CIFAR-10 or CIFAR-100."""

    def __init__(self, name, images=None, labels=None):
        rng = np.random.default_rng(len(name))
        self.name = name
        self.classes = 10 if name == "cifar10" else 100
        self.batches = 5 if name == "cifar10" else 1
        count = PER_BATCH * (self.batches + 1)
        shape = (count, 32, 32, 3)
        self.images = rng.integers(0, 256, shape, np.uint8) if images is None else images
        self.labels = rng.integers(0, self.classes, count) if labels is None else labels
        self.coarse = self.labels // 5

    def parts(self):
        """(file name without suffix, images, labels, coarse labels) of each batch, test last."""
        names = [f"data_batch_{i + 1}" for i in range(5)] + ["test_batch"]
        names = names if self.batches == 5 else ["train", "test"]
        for i, name in enumerate(names):
            rows = slice(i * PER_BATCH, (i + 1) * PER_BATCH)
            yield name, self.images[rows], self.labels[rows], self.coarse[rows]

    def names(self, kind, count):
        return [f"{kind}_{i}" for i in range(count)]

    def write(self, parent, form, *, protocol=2, labels_as=list):
        """The published layout, by its description on the data set's page."""
        folder = parent / FOLDERS[self.name, form]
        folder.mkdir(parents=True)
        small = self.name == "cifar10"
        for name, images, labels, coarse in self.parts():
            planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
            if form == "binary":
                columns = [labels] if small else [coarse, labels]
                labelled = np.column_stack([*columns, planes]).astype(np.uint8)
                (folder / f"{name}.bin").write_bytes(labelled.tobytes())
                continue
            batch = {"data": planes, "batch_label": name, "filenames": ["x.png"] * len(labels)}
            if small:
                batch["labels"] = labels_as(labels.tolist())
            else:
                batch |= {
                    "fine_labels": labels_as(labels.tolist()),
                    "coarse_labels": labels_as(coarse.tolist()),
                }
            (folder / name).write_bytes(pickle.dumps(batch, protocol))
        fine, coarse = self.names("fine", self.classes), self.names("coarse", 20)
        if form == "binary":
            files = (
                {"batches.meta.txt": fine}
                if small
                else {"fine_label_names.txt": fine, "coarse_label_names.txt": coarse}
            )
            for name, words in files.items():
                (folder / name).write_text("\n".join(words) + "\n\n")
        else:
            meta = {"label_names": fine, "num_vis": 3072}
            if not small:
                meta = {"fine_label_names": fine, "coarse_label_names": coarse}
            name = "batches.meta" if small else "meta"
            (folder / name).write_bytes(pickle.dumps(meta, protocol))
        (folder / "readme.html").write_text("")
        return folder

    def check(self, dataset):
        train = PER_BATCH * self.batches
        np.testing.assert_array_equal(dataset.train_images, self.images[:train])
        np.testing.assert_array_equal(dataset.test_images, self.images[train:])
        np.testing.assert_array_equal(dataset.train_labels, self.labels[:train])
        np.testing.assert_array_equal(dataset.test_labels, self.labels[train:])
        assert dataset.train_labels.dtype == np.int32 and dataset.train_images.dtype == np.uint8
        assert dataset.class_names == tuple(f"fine {i}" for i in range(self.classes))
        if self.name == "cifar100":
            np.testing.assert_array_equal(dataset.columns["coarse_label"], self.coarse[:train])
        else:
            assert not dataset.columns


def load(name, data_dir, **options):
    return sources.from_config(ExperimentConfig(dataset=name, data_dir=str(data_dir), **options))


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def pack(folder, kind="gztar"):
    """An archive of the published name in the folder's place."""
    stem = folder.name.replace("batches-bin", "binary").replace("batches-py", "python")
    path = shutil.make_archive(str(folder.parent / stem), kind, folder.parent, folder.name)
    shutil.rmtree(folder)
    return Path(path)


@pytest.mark.parametrize(("name", "form"), FORMS)
@pytest.mark.parametrize("where", ["itself", "parent", "two above", "archive", "beside archive"])
def test_every_form_and_place_gives_the_same_images(tmp_path, name, form, where, capsys):
    arrays = Arrays(name)
    folder = arrays.write(tmp_path / "a" / "b", form)
    if "archive" in where:
        archive = pack(folder)
        path = archive if where == "archive" else archive.parent
    else:
        path = {"itself": folder, "parent": folder.parent, "two above": tmp_path / "a"}[where]
    for _ in range(2):
        arrays.check(load(name, path))
    err = capsys.readouterr().err
    assert err.count("Writing a cache") == 1
    # Fewer images than published, and an archive with another checksum, are said.
    assert f"images in train; {name} as published has 50000" in err
    assert ("and not the published" in err) == ("archive" in where)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("labels_as", [list, np.array])
def test_pickles_of_every_protocol(tmp_path, protocol, labels_as):
    arrays = Arrays("cifar100")
    arrays.check(
        load("cifar100", arrays.write(tmp_path, "python", protocol=protocol, labels_as=labels_as))
    )


@pytest.mark.parametrize("kind", ["tar", "xztar", "bztar", "zip"])
def test_archives_packed_otherwise(tmp_path, kind):
    arrays = Arrays("cifar10")
    arrays.check(load("cifar10", pack(arrays.write(tmp_path, "python"), kind)))


def test_of_two_copies_the_whole_one_is_read_and_the_other_data_set_never(tmp_path):
    arrays, other = Arrays("cifar10"), Arrays("cifar100")
    cut = arrays.write(tmp_path, "binary")
    (cut / "data_batch_3.bin").unlink()
    pack(arrays.write(tmp_path, "python"))
    other.write(tmp_path, "python")
    arrays.check(load("cifar10", tmp_path))
    other.check(load("cifar100", tmp_path))
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"batches-bin is not whole: missing are data_batc"):
        load("cifar10", tmp_path)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-7])


def other_label(path):
    content = bytearray(path.read_bytes())
    content[0] = 200
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("form", "file", "damage", "message"),
    [
        ("binary", "data_batch_2.bin", cut_off, "data_batch_2.bin is damaged or cut off"),
        ("binary", "test_batch.bin", lambda path: path.write_bytes(b""), "test_batch.bin is dam"),
        ("binary", "data_batch_1.bin", other_label, "labels go from .* to 200, and there are 10"),
        ("python", "data_batch_2", cut_off, "data_batch_2: no whole pickle"),
        ("python", "batches.meta", lambda p: p.write_bytes(pickle.dumps({})), "lists label_names"),
        ("python", "test_batch", lambda p: p.write_bytes(pickle.dumps([1])), "be a pickled dict"),
        ("python", "test_batch", lambda p: p.write_bytes(pickle.dumps({})), "uint8 .n, 3072"),
        (
            "python",
            "test_batch",
            lambda p: p.write_bytes(pickle.dumps({"data": [[0], [0, 1]], "labels": [0, 1]})),
            "uint8 .n, 3072",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, form, file, damage, message):
    folder = Arrays("cifar10").write(tmp_path, form)
    damage(folder / file)
    with pytest.raises(ValueError, match=message):
        load("cifar10", tmp_path)


def test_a_cut_archive_tells_that_it_is_not_the_published_one(tmp_path):
    archive = pack(Arrays("cifar10").write(tmp_path, "binary"))
    archive.write_bytes(archive.read_bytes()[:-9])
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    with pytest.raises(
        ValueError, match=f"is no whole .*MD5 {md5}, and not the published c32a1d4a"
    ):
        load("cifar10", tmp_path)


class Reduced:
    def __init__(self, *how):
        self.how = how

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Reduced(os.system, ("touch pwned",)), "posix.system"),
        (Reduced(eval, ("1",)), "(__builtin__|builtins).eval"),
        (Reduced(np.load, ("x",)), r"numpy\.load|numpy\..*\.load"),
        (np.float64(1), r"numpy\._core\.multiarray\.scalar"),
        ({1, 2}, "builtins.set|set"),
        (Path("x"), "pathlib"),
        (1j, "complex"),
    ],
)
def test_pickles_can_have_nothing_called(value, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=name):
        restricted_pickle.loads(pickle.dumps({"data": value}, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        # numpy.ndarray called with a shape that would take all memory.
        b"cnumpy\nndarray\n((I1000000000000\ntR.",
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        # An array of objects, and one whose bytes are not there.
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I9\nt"
        b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'abc'\ntb.",
        b"cnumpy\nndarray\n.",
        b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",
        b"Pid\n.",
        b"",
        b"(" * 50,
        b"]" * 20000 + b"a" * 19999 + b".",
    ],
)
def test_pickles_that_misuse_what_is_admitted(content):
    with pytest.raises(ValueError, match="pickle"):
        restricted_pickle.loads(content)


def test_data_is_what_it_was():
    values = {
        "a": np.arange(6, dtype=">i4").reshape(2, 3),
        b"b": [1, -2, 3.5, None, True, "ü", b"\xff", (np.ones((2, 2), bool, order="F"),)],
    }
    for protocol in range(6):
        found = restricted_pickle.loads(pickle.dumps(values, protocol))
        np.testing.assert_array_equal(found["a"], values["a"])
        *plain, (array,) = found[b"b"]
        assert plain == values[b"b"][:-1]
        np.testing.assert_array_equal(array, np.ones((2, 2)))


@pytest.fixture
def server(tmp_path):
    """A folder that is served on this machine, and its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *args):
            pass

    (tmp_path / "served").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


def test_a_data_set_is_downloaded_once_and_verified(tmp_path, server, monkeypatch, capsys):
    folder, address = server
    arrays = Arrays("cifar10")
    archive = pack(arrays.write(folder, "binary"))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar_archives, "HOME", address)
    home = tmp_path / "data" / "new"
    # Not without being asked to.
    with pytest.raises(
        FileNotFoundError, match=r"cifar10 is not in .*new does not exist.*download=t"
    ):
        load("cifar10", home)
    with pytest.raises(
        ValueError, match=f"not the published file: its MD5 is {md5} and not c32a1d"
    ):
        load("cifar10", home, download=True)
    assert not list(home.iterdir())
    monkeypatch.setattr(
        cifar_archives, "ARCHIVES", {"cifar10": {archive.name: md5}, "cifar100": {}}
    )
    arrays.check(load("cifar10", home, download=True))
    archive.unlink()
    arrays.check(load("cifar10", home, download=True))
    assert "not the published" not in capsys.readouterr().err
    assert (home / archive.name).is_file() and not list(home.glob("*.part"))


def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(tmp_path, server):
    folder, address = server
    path = tmp_path / "x" / "a.tar.gz"
    with pytest.raises(
        ValueError, match=r"cannot be downloaded: File not found; with a browser, save"
    ):
        download(f"{address}a.tar.gz", path, "0")
    with pytest.raises(ValueError, match=r"cannot be downloaded: .*refused"):
        download("http://127.0.0.1:1/a.tar.gz", path, "0")
    (folder / "a.tar.gz").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be written: "):
        download(f"{address}a.tar.gz", tmp_path / "file" / "a.tar.gz", "0")
    assert not list((tmp_path / "x").iterdir())


def test_only_what_can_be_downloaded_takes_the_setting():
    with pytest.raises(ValueError, match="download is set, but dataset is digits"):
        ExperimentConfig(dataset="digits", download=True)


def test_the_message_says_what_is_there(tmp_path):
    (tmp_path / "cifar100" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar100" / "3.0.2" / "dataset_info.json").write_text('{"name": "cifar100"}')
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10", tmp_path)
    message = str(error.value)
    assert "found are cifar100 prepared by TFDS (tfrecord) in cifar100/3.0.2; 1 folder" in message
    assert (
        "1 .png" in message and "cifar-10-python.tar.gz" in message and "download=true" in message
    )


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no prepared CIFAR-10 in {SHARED}")
@pytest.mark.parametrize("form", ["binary", "python"])
def test_real_images_in_the_original_form(tmp_path, form):
    """Some of the real CIFAR-10 of TFDS, converted: the same images come out."""
    import tensorflow_datasets as tfds

    source = tfds.data_source("cifar10", split="test", data_dir=str(SHARED / "tfds"))
    examples = [source[i] for i in range(6 * PER_BATCH)]
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples])
    arrays = Arrays("cifar10", images, labels)
    arrays.check(load("cifar10", pack(arrays.write(tmp_path, form))))
