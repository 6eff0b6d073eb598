"""What Git LFS leaves in place of files: every reader names it, in the same words."""

import re

import pytest

from semanticfl_jax import load_model
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.data.sources.file_tree import open_tree
from semanticfl_jax.data.sources.idx import read_idx
from semanticfl_jax.data.sources.image_formats import read_image
from semanticfl_jax.diffusion.other_models import refuse_other_models
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import git_lfs_pointer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WORDS = "a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository"


def read_opened(path):
    with open(path, "rb") as file:
        read_image(file)


def read_parquet(path):
    pytest.importorskip("pyarrow")
    sources.from_config(ExperimentConfig(dataset="cifar10", data_dir=path.parent))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("train-images-idx3-ubyte", read_idx),
        ("0.png", read_opened),
        ("images.zip", lambda path: open_tree(path).names),
        ("train-0.parquet", read_parquet),
        ("model.safetensors", load_model),
        ("model_index.json", lambda path: refuse_other_models(path.parent)),
    ],
)
def test_every_reader_says_what_it_is_and_what_to_do(tmp_path, name, read):
    for each in {name, name.replace("train", "test")}:
        (tmp_path / each).write_bytes(POINTER)
    named = "" if name == "0.png" else f"{tmp_path / name} is "  # decoding knows no path
    with pytest.raises(SemanticFLError, match=re.escape(named + WORDS) + "$"):
        read(tmp_path / name)


def test_other_files_are_none(tmp_path):
    path = tmp_path / "file"
    for content in (b"", POINTER[:20], b"a" + POINTER):
        path.write_bytes(content)
        assert git_lfs_pointer(content) is git_lfs_pointer(path) is None
