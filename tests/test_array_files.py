"""Files of arrays that are cut, overwritten or something else: named, or made anew."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save_file

from semanticfl_jax.array_files import kept_npz, read_npy, read_npz
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources.array_cache import cached_arrays
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import read_json_object, write_json
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.export import load_model

ARRAYS = {"key": np.array("mine"), "a": np.arange(300)}


def damages(path):
    """Contents that a file may have instead of its own."""
    whole = path.read_bytes()
    yield b""
    yield b"hello"
    yield b"{}"
    yield b"PK\3\4 cut short"
    yield whole[: len(whole) // 2]
    yield whole[:-1]
    yield whole[:70] + b"\xff" * 40 + whole[110:]


@pytest.mark.parametrize("read", [read_npz, Partition.load, Anchors.load])
def test_a_damaged_npz_is_named(tmp_path, read):
    path = tmp_path / "file.npz"
    np.savez(path, **ARRAYS)
    for content in damages(path):
        path.write_bytes(content)
        with pytest.raises(SemanticFLError, match=r"file[.]npz"):
            read(path)
    with open(path, "wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(SemanticFLError, match=r"file[.]npz"):
        read(path)
    np.savez(path, a=np.array([1, "x", None], object))
    with pytest.raises(SemanticFLError, match=r"file[.]npz"):
        read(path)


def test_an_npz_that_can_be_made_anew_is_as_if_missing(tmp_path):
    path = tmp_path / "file.npz"
    assert kept_npz(path) is None
    np.savez(path, **ARRAYS)
    np.testing.assert_array_equal(kept_npz(path, "mine")["a"], ARRAYS["a"])
    assert kept_npz(path, "another's") is None
    for content in damages(path):
        path.write_bytes(content)
        assert kept_npz(path) is None


def test_a_damaged_npy_is_named(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(300))
    np.testing.assert_array_equal(read_npy(path), np.arange(300))
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:40], whole[:-1]):
        path.write_bytes(content)
        for mode in (None, "r"):
            with pytest.raises(SemanticFLError, match=r"a[.]npy is no whole [.]npy file"):
                read_npy(path, mode)
    with pytest.raises(FileNotFoundError):
        read_npy(tmp_path / "b.npy")


def test_a_damaged_cache_is_made_anew(tmp_path, capsys):
    place, built = tmp_path / "cache", []

    def build(_):
        built.append(1)
        return ARRAYS

    cached_arrays([place], build, {})
    for file in ("a.npy", "provenance.json"):
        for content in (b"", b"[]", (place / file).read_bytes()[:-9]):
            (place / file).write_bytes(content)
            found = cached_arrays([place], build, {})
            np.testing.assert_array_equal(found["a"], ARRAYS["a"])
            assert f"{file} " in capsys.readouterr().err
    (place / "a.npy").unlink()
    np.testing.assert_array_equal(cached_arrays([place], build, {})["a"], ARRAYS["a"])
    assert len(built) == 8
    cached_arrays([place], build, {})
    assert len(built) == 8


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "x.json"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: write_json(path, {"n": number}), range(200)))
    assert read_json_object(path).keys() == {"n"} and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: it is empty"),
        (b'{"a": ', "is damaged: "),
        (b"[" * 100_000, "is damaged: "),
        (b"\xff\xfe\xfd", "is damaged: "),
        (b"[]", "must hold a JSON object, has a list"),
    ],
)
def test_damaged_json_is_named(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(SemanticFLError, match=r"x[.]json " + message):
        read_json_object(path)


@pytest.mark.parametrize(
    ("arrays", "about", "message"),
    [
        (("params/a", "params/a/b"), "{}", "is damaged"),
        (("params/a",), "[]", "is damaged: what it is is no JSON object"),
        (("params/a",), "[" * 100_000, "is damaged"),
        (("params/a",), "{}", "it does not say its architecture, class_names, image_shape, mean"),
    ],
)
def test_damaged_weights_are_named(tmp_path, arrays, about, message):
    path = tmp_path / "x.safetensors"
    values = {name: np.zeros(3, np.float32) for name in arrays}
    save_file(values, path, metadata={"format": "semanticfl_jax", "about": about})
    with pytest.raises(SemanticFLError, match=rf"x\.safetensors .*{message}"):
        load_model(path)
