"""Finding a checkpoint, and telling it from others, without heavy imports."""

import shutil
import subprocess
import sys

import pytest

from semanticfl_jax.diffusion.fingerprint import (
    BUNDLED,
    checkpoint_files,
    fingerprint,
    resolve_checkpoint,
    weight_file,
)


@pytest.fixture
def copy(goldens, tmp_path):
    return shutil.copytree(goldens / "sd1", tmp_path / "sd")


def test_fingerprint_depends_on_contents_and_names_alone(goldens, copy):
    original = fingerprint(goldens / "sd1")
    assert len(original) == 64
    assert fingerprint(copy) == original != fingerprint(goldens / "sd2")
    (copy / "README.md").write_text("not part of the model")
    assert fingerprint(copy) == original
    for file in ("unet/config.json", "tokenizer/merges.txt"):
        (copy / file).write_text((copy / file).read_text() + " ")
        assert fingerprint(copy) != original
        original = fingerprint(copy)


def test_full_precision_goes_before_half(copy):
    half = weight_file(copy, "unet")
    assert half.name == "diffusion_pytorch_model.fp16.safetensors"
    full = half.with_name("diffusion_pytorch_model.safetensors")
    shutil.copy(half, full)
    assert weight_file(copy, "unet") == full
    assert half not in checkpoint_files(copy)


def test_missing_files_are_all_named(copy):
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    shutil.rmtree(copy / "scheduler")
    with pytest.raises(FileNotFoundError) as error:
        resolve_checkpoint(copy)
    missing, layout = str(error.value).split("A checkpoint consists of")
    assert "unet/diffusion_flax_model.msgpack | diffusion_pytorch_model.safetensors" in missing
    assert "scheduler/scheduler_config.json" in missing
    assert "vae" not in missing
    assert "tokenizer/: vocab.json, merges.txt" in layout


def test_names_and_directories(copy, monkeypatch):
    assert resolve_checkpoint(str(copy)) == copy
    monkeypatch.setitem(BUNDLED, "tiny-sd", copy)
    assert resolve_checkpoint("tiny-sd") == copy
    with pytest.raises(
        FileNotFoundError, match=r"neither tiny-sd .* nor a directory, nor a hub id"
    ):
        resolve_checkpoint("tiny-sdd")


def test_a_hub_id_is_downloaded_without_half_precision_copies(copy, tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve_checkpoint("owner/name", revision="v2", cache_dir=tmp_path) == copy
    assert (asked["repo_id"], asked["revision"], asked["cache_dir"]) == (
        "owner/name",
        "v2",
        tmp_path,
    )
    assert asked["local_files_only"] is False
    assert "unet/diffusion_pytorch_model.safetensors" in asked["allow_patterns"]
    assert not any("fp16" in pattern for pattern in asked["allow_patterns"])


def test_an_unreachable_hub_id_says_which_files_to_place(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        resolve_checkpoint("owner/name", offline=True, cache_dir=tmp_path)
    assert "place these files in a directory" in str(error.value)
    assert "text_encoder/: config.json, and one of flax_model.msgpack" in str(error.value)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, semanticfl_jax.diffusion.fingerprint\n"
        "heavy = {'jax', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
