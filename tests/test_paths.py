"""Paths that users give: expanded in one way, and refused in one line where they mean nothing."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

import semanticfl_jax as sfl
from semanticfl_jax.config import from_dict
from semanticfl_jax.config.overrides import parse
from semanticfl_jax.config.values import PathOrName, PathText
from semanticfl_jax.files import user_cache_dir
from semanticfl_jax.paths import local_path, path_or_name
from semanticfl_jax.pretraining.config import PretrainConfig
from tests.all_fields import all_fields

ROOT = Path(__file__).parents[1]


def is_path(hint, kind):
    return hint == kind or kind in getattr(hint, "__args__", ())


CLASSES = (sfl.ExperimentConfig, PretrainConfig)
PATHS = [
    (cls, name) for cls in CLASSES for name, hint, _ in all_fields(cls) if is_path(hint, PathText)
]
NAMES = [
    (cls, name) for cls in CLASSES for name, hint, _ in all_fields(cls) if is_path(hint, PathOrName)
]
CALLED_SO = re.compile(
    r"(^|[._])(dir|directory|file|folder|path|json|html|out|root|checkpoint|workdir)$"
)


def test_every_field_that_is_a_path_is_known_as_one():
    found = {name for _, name in PATHS + NAMES}
    assert {"data_dir", "partition.file", "guidance.anchors_file", "words", "images"} <= found
    assert {"dataset_settings.directory", "runtime.tensorboard.directory"} <= found
    # A field that is called like a path and is none was forgotten.
    for cls in CLASSES:
        for name, hint, _ in all_fields(cls):
            assert not CALLED_SO.search(name) or name in found, name
            assert hint is not Path


def test_every_flag_that_is_a_path_is_defined_as_one():
    defined = {"path": set(), "string": set()}
    for file in (ROOT / "launch").glob("*.py"):
        for kind, name in re.findall(
            r"(?i)define_(path|string)\(\s*\"(\w+)\"", file.read_text("utf-8")
        ):
            defined[kind.lower()].add(name)
    assert {"workdir", "json", "out", "html", "data_dir"} <= defined["path"]
    forgotten = {name for name in defined["string"] if CALLED_SO.search(name)}
    # These two may be names; the configuration's file is looked for among the installed ones.
    assert forgotten <= {"checkpoint", "config"}


def test_nothing_else_makes_paths_of_what_is_typed():
    for file in (*(ROOT / "semanticfl_jax").rglob("*.py"), *(ROOT / "launch").glob("*.py")):
        if file.name != "paths.py":
            text = file.read_text("utf-8")
            assert "expanduser" not in text and "expandvars" not in text, file


@pytest.mark.parametrize(("cls", "name"), PATHS + NAMES)
def test_a_path_is_expanded_wherever_it_is_typed(cls, name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/scratch")
    assert parse(cls, name, "~/x y") == "/home/me/x y"
    assert parse(cls, name, "$PLACE/x") == parse(cls, name, "${PLACE}/x") == "/scratch/x"
    assert parse(cls, name, "./a/../b") == str(Path("./a/../b"))
    monkeypatch.setenv("PLACE", "~/y")
    assert parse(cls, name, "$PLACE/x") == "/home/me/y/x"
    monkeypatch.delenv("PLACE")
    monkeypatch.setenv("BUCKET", "gs://b")
    monkeypatch.setenv("BLANK", "")
    for text, message in [
        ("$PLACE/x", "the variable PLACE is not set"),
        ("", "must be a path, got ''"),
        ("  ", "must be a path"),
        ("gs://bucket/x", "must be a path on this machine, got 'gs://bucket/x'; mount the bucket"),
        ("s3://bucket", "must be a path on this machine"),
        ("hdfs://a/b", "must be a path on this machine"),
        ("gs:/bucket/x", "must be a path on this machine"),
        ("file:///data/x", "leave out file://"),
        ("$BUCKET/x", f"{name}=$BUCKET/x, which must be a path on this machine, got 'gs://b/x'"),
        ("$BLANK", f"{name}=$BLANK, which must be a path, got ''"),
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
    for workdir in ("s3://bucket/run", Path("s3://bucket/run")):
        with pytest.raises(sfl.ConfigError, match="workdir must be a path on this machine"):
            sfl.Simulation(config, workdir=workdir)
    for workdir in (5, b"run", ["run"]):
        with pytest.raises(sfl.ConfigError, match="workdir must be a path, got"):
            sfl.Simulation(config, workdir=workdir)


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
    (tmp_path / "home" / "$cost").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert local_path("~/$cost", "x") == tmp_path / "home" / "$cost"


def test_a_path_means_the_same_the_second_time(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$cost").mkdir()
    for text in ("~/a", "./~/a", "./~nobody", "$cost", "a/~", "a b ", "./$cost/.."):
        once = local_path(text, "x")
        assert local_path(str(once), "x") == once
    assert local_path("./~/a", "x") == tmp_path / "~" / "a"
    assert sfl.ExperimentConfig(data_dir="./~nobody").data_dir == str(tmp_path / "~nobody")


def test_a_user_without_a_home_directory_has_a_cache_all_the_same(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert user_cache_dir().name == f"semanticfl_jax-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert user_cache_dir() == Path("/elsewhere/semanticfl_jax")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert user_cache_dir() == Path("/home/me/cache/semanticfl_jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "gs://bucket")
    with pytest.raises(sfl.ConfigError, match=r"^\$XDG_CACHE_HOME must be a path on this machine"):
        user_cache_dir()


TEXTS = ("39593e5", "7e345678", "007", "1_000", "True", "0x10", "[1]", "'a'", "a=b,c", " x ", "1.0")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_text_field_takes_what_was_typed(cls):
    texts = [name for name, hint, _ in all_fields(cls) if hint in (str, str | None)]
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
    hub = {"enabled": True, "checkpoint": "stabilityai/sd-turbo"}
    assert from_dict(sfl.ExperimentConfig, {"guidance": hub | {"revision": 5}})
    with pytest.raises(sfl.ConfigError, match=r"guidance.revision must be a text or none, got inf"):
        from_dict(sfl.ExperimentConfig, {"guidance": {"revision": float("7e345678")}})
