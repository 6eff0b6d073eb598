import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from semanticfl_jax.data.sources.array_cache import (
    ABANDONED_AFTER,
    RowWriter,
    cached_arrays,
    put_columns,
    take_columns,
)
from semanticfl_jax.files import user_cache_dir

ARRAYS = {"images": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": np.arange(3)}


def never(_):
    raise AssertionError("the cache was there")


def test_built_once_then_mapped(tmp_path, capsys):
    place = tmp_path / "new" / "cache"
    for build in (lambda _: ARRAYS, never):
        arrays = cached_arrays([place], build, {"dataset": "toy"})
        assert sorted(arrays) == ["images", "labels"]
        for name, array in arrays.items():
            assert isinstance(array, np.memmap) and not array.flags.writeable
            np.testing.assert_array_equal(array, ARRAYS[name])
    assert json.loads((place / "provenance.json").read_text())["dataset"] == "toy"
    assert [entry.name for entry in place.parent.iterdir()] == ["cache"]
    assert capsys.readouterr().err.count(str(place)) == 1
    # Open to those who may read what is beside it.
    assert place.stat().st_mode == place.parent.stat().st_mode


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(tmp_path, interruption):
    def interrupted(_):
        raise interruption

    with pytest.raises(interruption):
        cached_arrays([tmp_path / "cache"], interrupted, {})
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(
        cached_arrays([tmp_path / "cache"], lambda _: ARRAYS, {})["labels"], ARRAYS["labels"]
    )


def test_a_killed_writer_leaves_no_half_cache(tmp_path):
    killed = """
        import os, sys, pathlib, numpy as np
        from semanticfl_jax.data.sources import array_cache
        save = np.save
        def save_one(path, array, allow_pickle):
            if path.name == "labels.npy":
                os.kill(os.getpid(), 9)
            save(path, array)
        np.save = save_one
        arrays = {"images": np.zeros(5), "labels": np.zeros(5)}
        array_cache.cached_arrays([pathlib.Path(sys.argv[1])], lambda _: arrays, {})
    """
    place = tmp_path / "cache"
    command = [sys.executable, "-c", textwrap.dedent(killed), str(place)]
    assert subprocess.run(command, capture_output=True).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial" and (left / "images.npy").is_file()

    arrays = cached_arrays([place], lambda _: ARRAYS, {})
    np.testing.assert_array_equal(arrays["images"], ARRAYS["images"])
    assert list(tmp_path.iterdir()) == [place]


def test_what_may_still_be_written_is_left_alone(tmp_path):
    """This process's directories are locked; of another machine's only the age is known."""
    recent, old = (tmp_path / f".cache-elsewhere-{i}.partial" for i in range(2))
    recent.mkdir()
    old.mkdir()
    long_ago = time.time() - ABANDONED_AFTER - 60
    os.utime(old, (long_ago, long_ago))
    alive = []

    def build(directory):
        alive.append(directory)
        if len(alive) == 1:
            cached_arrays([tmp_path / "cache"], build, {})
            assert directory.is_dir()
        return ARRAYS

    cached_arrays([tmp_path / "cache"], build, {})
    assert len(alive) == 2
    assert sorted(tmp_path.iterdir()) == [recent, tmp_path / "cache"]


@pytest.mark.parametrize("count", [0, 1, 1001])
def test_rows_written_one_by_one_are_the_array(tmp_path, count):
    rows = np.random.default_rng(0).integers(0, 256, (count, 2, 3), np.uint8)

    def build(directory):
        with RowWriter(directory / "images.npy") as writer:
            for row in rows:
                writer.append(row[:, ::-1])
            if count:
                for other in (rows[0, 0], rows[0].astype(np.int32)):
                    with pytest.raises(ValueError, match=r"rows are uint8\(2, 3\)"):
                        writer.append(other)
        return {"labels": np.arange(count)}

    arrays = cached_arrays([tmp_path / "cache"], build, {})
    assert len(arrays["images"]) == len(arrays["labels"]) == count
    if count:
        np.testing.assert_array_equal(arrays["images"], rows[:, :, ::-1])


def test_columns_lie_among_other_arrays():
    columns = {"age/sex (y)": np.arange(3), "": np.array(["a", "b", "a"]), "x" * 300: np.ones(3)}
    arrays = {"images": np.zeros(3), **put_columns(columns)}
    taken = take_columns(arrays)
    assert sorted(taken) == ["columns", "images"] and sorted(taken["columns"]) == sorted(columns)
    np.testing.assert_array_equal(taken["columns"][""], ["a", "b", "a"])
    assert all(len(name) < 30 and "/" not in name for name in arrays)  # names of files
    assert take_columns(put_columns({}))["columns"] == {}
    # As version 0.1 named them.
    old = take_columns({"column.coarse_label": np.arange(2)})
    np.testing.assert_array_equal(old["columns"]["coarse_label"], [0, 1])


def test_of_two_writers_the_first_is_kept(tmp_path):
    other = {"images": ARRAYS["images"] + 1}

    def slow(_):
        cached_arrays([tmp_path / "cache"], lambda _: ARRAYS, {})
        return other

    arrays = cached_arrays([tmp_path / "cache"], slow, {})
    np.testing.assert_array_equal(arrays["images"], ARRAYS["images"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]


def test_a_read_only_place_is_passed_over(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o555)
    places = [tmp_path / "shared" / "cache", tmp_path / "mine" / "cache"]
    cached_arrays(places, lambda _: ARRAYS, {})
    assert [place.exists() for place in places] == [False, True]
    cached_arrays(places, never, {})
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        cached_arrays(places[:1], lambda _: ARRAYS, {})


def test_user_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "semanticfl_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(user_cache_dir()) == "/home/someone/.cache/semanticfl_jax"
