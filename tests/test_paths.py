"""Paths that users give: expanded in one way, and refused in one line where they mean nothing."""

import dataclasses
import os
from pathlib import Path

import pytest

import semanticfl_jax as sfl
from semanticfl_jax.config import from_dict
from semanticfl_jax.config.fields import PathOrName, PathText, field_types, group_class
from semanticfl_jax.config.overrides import parse
from semanticfl_jax.files import user_cache_dir
from semanticfl_jax.paths import local_path, path_or_name
from semanticfl_jax.pretraining.config import PretrainConfig


def fields(cls, prefix=""):
    """The dotted names and types of all fields."""
    for name, hint in field_types(cls).items():
        if group_class(hint) is None:
            yield prefix + name, hint
        else:
            yield from fields(group_class(hint), f"{prefix}{name}.")


def is_path(hint, kind):
    return hint == kind or kind in getattr(hint, "__args__", ())


CLASSES = (sfl.ExperimentConfig, PretrainConfig)
PATHS = [(cls, name) for cls in CLASSES for name, hint in fields(cls) if is_path(hint, PathText)]
NAMES = [(cls, name) for cls in CLASSES for name, hint in fields(cls) if is_path(hint, PathOrName)]


def test_every_field_that_is_a_path_is_known_as_one():
    found = {name for _, name in PATHS + NAMES}
    assert {"data_dir", "partition.file", "guidance.anchors_file", "words", "images"} <= found
    # A field that is called like a path and is none was forgotten.
    for cls in CLASSES:
        for name, hint in fields(cls):
            called = name.endswith(("_dir", "_file", ".file", "_path", "checkpoint"))
            assert not called or name in found, name
            assert hint is not Path


@pytest.mark.parametrize(("cls", "name"), PATHS + NAMES)
def test_a_path_is_expanded_wherever_it_is_typed(cls, name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/scratch")
    assert parse(cls, name, "~/x y") == "/home/me/x y"
    assert parse(cls, name, "$PLACE/x") == parse(cls, name, "${PLACE}/x") == "/scratch/x"
    assert parse(cls, name, "./a/../b") == str(Path("./a/../b"))
    monkeypatch.delenv("PLACE")
    for text, message in [
        ("$PLACE/x", "the variable PLACE is not set"),
        ("", "must be a path, got ''"),
        ("  ", "must be a path"),
        ("gs://bucket/x", "must be a path on this machine, got 'gs://bucket/x'; mount the bucket"),
        ("s3://bucket", "must be a path on this machine"),
        ("hdfs://a/b", "must be a path on this machine"),
        ("~nobody_of_that_name/x", "there is no home directory for ~nobody_of_that_name"),
    ]:
        with pytest.raises(sfl.ConfigError, match="^" + name.replace(".", "[.]")) as error:
            parse(cls, name, text)
        assert message in str(error.value)


def test_from_python_paths_may_be_path_objects_and_are_checked_alike(tmp_path):
    config = sfl.ExperimentConfig(data_dir=tmp_path)
    assert config.data_dir == str(tmp_path)
    with pytest.raises(sfl.ConfigError, match="data_dir must be a path on this machine"):
        sfl.ExperimentConfig(data_dir="gs://bucket")
    with pytest.raises(sfl.ConfigError, match=r"partition[.]file must be a path, got ''"):
        from_dict(sfl.ExperimentConfig, {"partition": {"file": ""}})
    with pytest.raises(sfl.ConfigError, match="workdir must be a path on this machine"):
        sfl.Simulation(config, workdir="s3://bucket/run")


def test_names_stay_names_and_a_literal_dollar_a_folder(tmp_path, monkeypatch):
    assert path_or_name("stable-diffusion-v1-5/stable-diffusion-v1-5", "x") == (
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cost$").mkdir()
    (tmp_path / "$cost").mkdir()
    assert local_path("cost$", "x") == Path("cost$")
    assert local_path("$cost", "x") == Path("$cost")
    assert local_path("data/-x:y", "x") == Path("data/-x:y")


def test_a_user_without_a_home_directory_has_a_cache_all_the_same(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert user_cache_dir().name == f"semanticfl_jax-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert user_cache_dir() == Path("/elsewhere/semanticfl_jax")


TEXTS = ("39593e5", "7e345678", "007", "1_000", "True", "0x10", "[1]", "'a'", "a=b,c", " x ", "1.0")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_text_field_takes_what_was_typed(cls):
    texts = [name for name, hint in fields(cls) if hint in (str, str | None)]
    assert texts
    for name in texts:
        for text in TEXTS:
            found = parse(cls, name, text)
            assert found == text and type(found) is str, name


def test_settings_of_plug_ins_take_texts_as_typed_too():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        tag: str = "x"
        other: str | None = None

    for text in TEXTS:
        assert parse(Settings, "tag", text) == parse(Settings, "other", text) == text


def test_a_number_that_nobody_knows_the_text_of_is_no_text():
    assert from_dict(sfl.ExperimentConfig, {"guidance": {"revision": 5, "enabled": True}})
    with pytest.raises(sfl.ConfigError, match=r"guidance.revision must be a text or none, got inf"):
        from_dict(sfl.ExperimentConfig, {"guidance": {"revision": float("7e345678")}})
