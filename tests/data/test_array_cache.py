import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from semanticfl_jax.data.array_cache import ABANDONED_AFTER, cached_arrays, user_cache_dir

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
        from semanticfl_jax.data import array_cache
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

    old = time.time() - ABANDONED_AFTER - 60
    os.utime(left, (old, old))
    arrays = cached_arrays([place], lambda _: ARRAYS, {})
    np.testing.assert_array_equal(arrays["images"], ARRAYS["images"])
    assert list(tmp_path.iterdir()) == [place]


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
