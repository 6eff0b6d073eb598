"""Finding a checkpoint, and telling it from others, without heavy imports."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from semanticfl_jax.diffusion.fingerprint import (
    BUNDLED_CHECKPOINTS,
    checkpoint_files,
    fingerprint,
    resolve_checkpoint,
    shards,
    weight_file,
    weight_variants,
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
    monkeypatch.setitem(BUNDLED_CHECKPOINTS, "tiny-sd", copy)
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


WEIGHT = "unet/diffusion_pytorch_model.fp16.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167540\n"


def rename(copy, name):
    path = copy / "unet" / name
    (copy / WEIGHT).rename(path)
    return path


@pytest.mark.parametrize(
    ("there", "used"),
    [
        ("non_ema fp16", "fp16"),
        ("non_ema", "non_ema"),
        ("bf16 non_ema fp16.non_ema", "bf16"),
        ("ema_only my-own", "my-own"),
        ("my-own fp16", "fp16"),
    ],
)
def test_variants(copy, there, used):
    content = (copy / WEIGHT).read_bytes()
    (copy / WEIGHT).unlink()
    for variant in there.split():
        (copy / f"unet/diffusion_pytorch_model.{variant}.safetensors").write_bytes(content)
    found = weight_file(copy, "unet")
    assert found.name == f"diffusion_pytorch_model.{used}.safetensors"
    assert weight_variants(copy)["unet"] == found.name
    full = copy / "unet/diffusion_pytorch_model.safetensors"
    full.write_bytes(content)
    assert weight_file(copy, "unet") == full and "unet" not in weight_variants(copy)


def shard(copy, index="diffusion_pytorch_model.safetensors.index.json", variant=""):
    """The U-Net's weights in two files and an index, as diffusers writes them."""
    tensors = load_file(copy / WEIGHT)
    (copy / WEIGHT).unlink()
    names, where = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model{variant}-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, copy / "unet" / file)
        where |= dict.fromkeys(part, file)
    (copy / "unet" / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.parametrize(
    ("index", "variant"),
    [
        ("diffusion_pytorch_model.safetensors.index.json", ""),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", ".fp16"),
        ("diffusion_pytorch_model.fp16.safetensors.index.json", ".fp16"),
    ],
)
def test_weights_in_several_files(goldens, copy, index, variant):
    shard(copy, index, variant)
    found = weight_file(copy, "unet")
    assert found.name == index
    files = checkpoint_files(copy)
    assert {found, *shards(found)} <= set(files) and len(shards(found)) == 2
    whole = {name: value for path in shards(found) for name, value in load_file(path).items()}
    expected = load_file(goldens / "sd1" / WEIGHT)
    assert whole.keys() == expected.keys()
    before = fingerprint(copy)
    shards(found)[1].write_bytes(shards(found)[1].read_bytes() + b"x")
    assert fingerprint(copy) != before
    shards(found)[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"names files that are missing: .*-00002-of-00002"):
        resolve_checkpoint(copy)
    found.write_text("{}")
    with pytest.raises(ValueError, match="is no index of weight files"):
        resolve_checkpoint(copy)


@pytest.mark.parametrize("file", [WEIGHT, "unet/config.json", "tokenizer/vocab.json"])
def test_pointers_of_git_lfs(copy, file):
    (copy / file).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{Path(file).name} is a pointer of Git LFS.*lfs pull`"):
        resolve_checkpoint(copy)


def test_a_pointer_beside_the_weights_is_passed_over(copy):
    (copy / "unet/diffusion_flax_model.msgpack").write_bytes(POINTER)
    assert weight_file(copy, "unet") == copy / WEIGHT


def test_weights_of_pytorchs_own_form(copy):
    rename(copy, "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError) as error:
        resolve_checkpoint(copy)
    message = str(error.value)
    assert "but diffusion_pytorch_model.bin, which is not read; convert it" in message
    assert f"P.from_pretrained('{copy}').save_pretrained('{copy}-safetensors')" in message


@pytest.mark.parametrize("name", ["v1-5-pruned.safetensors", "model.ckpt", "sd-v1.PT"])
def test_all_weights_in_a_single_file(tmp_path, name):
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / name
    path.write_bytes(b"")
    for checkpoint in (path, path.parent):
        with pytest.raises(FileNotFoundError) as error:
            resolve_checkpoint(checkpoint)
        assert f"P.from_single_file('{path}')" in str(error.value)


@pytest.mark.parametrize(
    ("pipeline", "part", "message"),
    [
        ("StableDiffusionXLPipeline", "text_encoder_2", "is Stable Diffusion XL .it has text_enco"),
        ("StableDiffusion3Pipeline", "transformer", "is Stable Diffusion 3 .it has transformer."),
        ("FluxPipeline", "transformer", "is Flux .it has transformer."),
        ("FlaxStableDiffusionXLPipeline", "", "is Stable Diffusion XL, which"),
        ("PixArtAlphaPipeline", "transformer", "is PixArtAlphaPipeline .it has transformer."),
        ("", "transformer", "is another model .it has transformer."),
    ],
)
def test_other_models_are_not_incomplete_but_not_supported(copy, pipeline, part, message):
    described = {"_class_name": pipeline, "text_encoder_3": [None, None], "unet": ["x", "y"]}
    if part and pipeline:
        described[part] = ["diffusers", "Z"]
    elif part:
        (copy / part).mkdir()
    (copy / "model_index.json").write_text(json.dumps(described))
    shutil.rmtree(copy / "unet")
    with pytest.raises(ValueError, match=f"{message}.*not supported; supported are Stable Diff"):
        resolve_checkpoint(copy)


def test_a_damaged_or_foreign_index_is_no_reason_to_refuse_whole_weights(copy):
    for text in ("{", "[]", '{"_class_name": "SomebodysPipeline", "prior": [null, null]}'):
        (copy / "model_index.json").write_text(text)
        assert resolve_checkpoint(copy) == copy


def test_the_home_directory(copy, monkeypatch):
    monkeypatch.setenv("HOME", str(copy.parent))
    assert resolve_checkpoint("~/sd") == copy
    assert fingerprint("~/sd") == fingerprint(copy)


def test_another_model_on_the_hub_is_not_downloaded(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repo_id, *, allow_patterns, **options):
        asked.append(allow_patterns)
        (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ValueError, match="is Flux, which is not supported"):
        resolve_checkpoint("owner/name")
    assert asked == [["model_index.json"]]


def test_a_variant_is_downloaded_where_the_hub_has_nothing_else(copy, monkeypatch):
    asked = []

    def snapshot_download(repo_id, *, allow_patterns, **options):
        asked.append(allow_patterns)
        if not any("fp16" in pattern for pattern in allow_patterns):
            return str(copy.parent)
        return str(copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve_checkpoint("owner/name") == copy
    assert asked[-1] == [
        "unet/diffusion_pytorch_model.fp16*.safetensors",
        "vae/diffusion_pytorch_model.fp16*.safetensors",
        "text_encoder/model.fp16*.safetensors",
    ]


@pytest.mark.parametrize("content", ["[1]", "[" * 100_000, "{", '{"_class_name": 5, "unet": 3}'])
def test_a_pipeline_that_says_nothing_is_no_reason_to_refuse(copy, content):
    (copy / "model_index.json").write_text(content)
    assert resolve_checkpoint(copy) == copy


def test_an_index_however_deep_is_named(copy):
    path = copy / "unet" / "x.index.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is no index of weight files"):
        shards(path)
