"""Parity with PyTorch, on the goldens that make_goldens.py wrote; and what `load` refuses."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import load_file, save_file

from semanticfl_jax.diffusion.networks import alphas_cumprod
from semanticfl_jax.diffusion.stable_diffusion import load

MAPS = ("down_0", "down_1", "down_2", "down_3", "mid", "up_0", "up_1", "up_2", "up_3")


def assert_close(found, expected, tolerance=1e-4):
    """Relative error, of the whole and of the worst entry against the largest one."""
    assert found.dtype == jnp.float32
    error = np.abs(np.asarray(found, np.float64) - expected)
    assert found.shape == expected.shape
    assert np.linalg.norm(error) < tolerance * np.linalg.norm(expected)
    assert error.max() < tolerance * np.abs(expected).max()


def test_text_parity(model):
    sd, golden = model
    prompts = golden["prompts"].tolist()
    np.testing.assert_array_equal(sd.networks.tokenize(prompts), golden["ids"])
    states, pooled = sd.text(prompts)
    assert_close(states, golden["token_states"])
    assert_close(pooled, golden["pooled"])
    assert sd.text_dim == states.shape[-1]


def test_vae_parity(model):
    sd, golden = model
    latents = sd.encode(golden["images"] / 127.5 - 1)
    assert_close(latents, golden["latents"])
    assert latents.shape[-1] == sd.latent_channels
    assert golden["images"].shape[1] == sd.image_size == latents.shape[1] * sd.vae_factor
    assert_close(sd.decode(golden["latents"][:1]), golden["decoded"])


def test_unet_parity(model):
    sd, golden = model
    assert sd.available_maps == MAPS

    @jax.jit
    def both(sd, latents, t, states):
        return sd.predict(latents, t, states), sd.feature_maps(latents, t, states, MAPS)

    output, maps = both(sd, golden["noised"], np.array([150, 150]), golden["token_states"])
    # About 1e-6 is reached. Flax's own GELU costs 2e-5 here, its epsilon in the norms 1e-5.
    assert_close(output, golden["output"], 1e-5)
    assert set(maps) == set(MAPS)
    for name in MAPS:
        assert_close(maps[name], golden[name], 1e-5)


def test_text_in_batches_is_text_alone(sd1, monkeypatch):
    sd, golden = sd1
    monkeypatch.setattr("semanticfl_jax.diffusion.stable_diffusion._PROMPTS_PER_BATCH", 2)
    prompts = [*golden["prompts"].tolist(), "a dog"]
    states, pooled = sd.text(prompts)
    assert states.shape[0] == pooled.shape[0] == 3
    assert_close(states[:2], golden["token_states"])
    assert_close(pooled[2:], np.asarray(sd.text(["a dog", "a cat"])[1][:1]))


def test_schedules_match_closed_forms(model):
    sd, golden = model
    betas = [(0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2 for i in range(1000)]
    product = 1.0
    for t, beta in enumerate(betas):
        product *= 1 - beta
        assert sd.alphas_cumprod[t] == pytest.approx(product, rel=1e-12)
    assert sd.alphas_cumprod.dtype == np.float64
    np.testing.assert_allclose(sd.alphas_cumprod, golden["alphas_cumprod"], rtol=2e-6)
    linear = alphas_cumprod({"beta_start": 0.1, "beta_end": 0.3, "num_train_timesteps": 3})
    np.testing.assert_allclose(linear, [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7], rtol=1e-12)


def test_prediction_types(sd1, sd2):
    assert sd1[0].prediction_type == "epsilon"
    assert sd2[0].prediction_type == "v_prediction"


def test_unknown_map_lists_what_there_is(sd1):
    sd, golden = sd1
    with pytest.raises(ValueError, match=r"maps: up_4 not in .* down_0, .*, mid, up_0"):
        sd.feature_maps(golden["noised"], 150, golden["token_states"], ("mid", "up_4"))


def test_flax_weights_load_as_pytorch_weights(sd1, goldens, tmp_path):
    sd, _ = sd1
    shutil.copytree(goldens / "sd1", tmp_path, dirs_exist_ok=True)
    for component, params in sd.params.items():
        (weights,) = (tmp_path / component).glob("*.safetensors")
        weights.unlink()
        name = "flax_model" if component == "text_encoder" else "diffusion_flax_model"
        half = jax.tree.map(lambda x: np.asarray(x, np.float16), params)
        (tmp_path / component / f"{name}.msgpack").write_bytes(serialization.to_bytes(half))
    loaded = load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, sd.params)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(loaded.params))
    assert loaded.fingerprint != sd.fingerprint


def test_bfloat16_is_near(sd1, goldens):
    golden = sd1[1]
    sd = load(goldens / "sd1", dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(sd.params)} == {jnp.dtype(jnp.bfloat16)}
    assert_close(sd.text(golden["prompts"].tolist())[1], golden["pooled"], 0.03)
    steps, states = np.array([150, 150]), golden["token_states"]
    output = jax.eval_shape(sd.predict, golden["noised"], steps, states)
    assert (output.shape, output.dtype) == (golden["output"].shape, jnp.float32)


def test_other_precisions_are_refused(goldens):
    with pytest.raises(ValueError, match="dtype: float16; allowed are float32, bfloat16"):
        load(goldens / "sd1", dtype=jnp.float16)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"cross_attention_dim": 8}, "cross_attention_dim 8 differs"),
        ("unet/config.json", {"up_block_types": ["AttnUpBlock2D"]}, "block type AttnUpBlock2D"),
        ("unet/config.json", {"sample_size": None}, "sample_size must be an integer"),
        ("unet/config.json", {"layers_per_block": 2}, "does not fit the configuration"),
        ("vae/config.json", {"shift_factor": 0.1}, "shift_factor is 0.1"),
        (
            "text_encoder/config.json",
            {"intermediate_size": 24},
            r"fc1/bias has shape \(32,\), .* asks for \(24,\)",
        ),
        ("unet/config.json", {"block_out_channels": None}, "unet is damaged, or of a kind"),
        ("unet/config.json", {"norm_num_groups": 7}, "unet is damaged, .*groups .7. does not"),
        ("text_encoder/config.json", {"hidden_size": "x"}, "text_encoder is damaged, or"),
        ("scheduler/scheduler_config.json", {"beta_start": "x"}, "scheduler is damaged, or of a k"),
        ("scheduler/scheduler_config.json", {"beta_start": -1}, "betas must be between 0 and 1"),
        ("scheduler/scheduler_config.json", {"beta_end": 5}, "betas must be between 0 and 1"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "betas must be between"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "cosine"}, "beta_schedule cosine"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "trained_betas"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type"),
    ],
)
def test_unsupported_configurations_are_refused(goldens, tmp_path, file, changes, message):
    shutil.copytree(goldens / "sd1", tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_damaged_configuration_is_named(goldens, tmp_path):
    shutil.copytree(goldens / "sd1", tmp_path, dirs_exist_ok=True)
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"vae/config.json is damaged"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"", b'{"\xe9": 1}'])
@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_named(goldens, tmp_path, name, content):
    shutil.copytree(goldens / "sd1", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer" / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer is damaged, or of a kind"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("merges.txt", b"#version: 0.2\n", "6 words of vocab.json are in no line"),
        ("vocab.json", b"{}", "6 lines make words that vocab.json has not"),
    ],
)
def test_a_tokenizer_that_was_cut_short_is_named(goldens, tmp_path, name, content, message):
    shutil.copytree(goldens / "sd1", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer" / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_heavy_libraries_are_imported_by_load_alone():
    code = (
        "import sys, semanticfl_jax.diffusion.features\n"
        "heavy = {'diffusers', 'transformers', 'torch', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_in_several_files_are_loaded_as_those_in_one(goldens, tmp_path):
    checkpoint = shutil.copytree(goldens / "sd1", tmp_path / "sd")
    whole = checkpoint / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    tensors, where = load_file(whole), {}
    for number, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        name = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, whole.with_name(name))
        where |= dict.fromkeys(part, name)
    index = whole.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": where}))
    whole.unlink()
    found, expected = load(checkpoint).params, load(goldens / "sd1").params
    jax.tree.map(np.testing.assert_array_equal, found, expected)
