"""The noise predictor's stage: its networks, its views of the images and its losses."""

import json

import jax
import numpy as np
import pytest

from semanticfl_jax.pretraining import latents, objective, unet, vae
from semanticfl_jax.pretraining.config import UnetConfig, VaeConfig

pytestmark = pytest.mark.filterwarnings("ignore")


def test_networks_halve_as_their_levels_say(tmp_path):
    module = vae.build(VaeConfig(levels=3), 32)
    unet.write_configs(UnetConfig(levels=2), tmp_path, module, 128)
    settings = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert settings["sample_size"] == 8
    assert settings["block_out_channels"] == [64, 128]
    assert settings["down_block_types"] == ["CrossAttnDownBlock2D", "DownBlock2D"]
    assert settings["up_block_types"] == ["UpBlock2D", "CrossAttnUpBlock2D"]
    latents = jax.eval_shape(
        lambda key: (
            module.init_with_output(key, np.zeros((1, 3, 32, 32)), method=module.encode)[
                0
            ].latent_dist.mean
        ),
        jax.random.key(0),
    )
    assert latents.shape == (1, 8, 8, 4)


def test_attention_begins_at_its_level(tmp_path):
    module = vae.build(VaeConfig(levels=2), 32)
    config = UnetConfig(width=32, norm_groups=8, levels=3, attention_from=1)
    unet.write_configs(config, tmp_path, module, 128)
    settings = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert settings["norm_num_groups"] == 8
    assert settings["sample_size"] == 16
    assert settings["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    assert settings["up_block_types"] == ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]


def test_views_are_cut_as_with_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)
    for view in range(4):
        flip, offset = latents.draw_view(5, view, 2, seed=0)
        found = np.asarray(latents.cut(pixels, flip, offset, 2))
        for image, mirrored, (down, right), seen in zip(pixels, flip, offset, found, strict=True):
            image = image[:, ::-1] if mirrored else image
            padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
            np.testing.assert_array_equal(seen, padded[down : down + 8, right : right + 6])
        if view < 2:
            np.testing.assert_array_equal(found, pixels[:, :, ::-1] if view else pixels)
    assert len(np.unique(latents.draw_view(200, 3, 2, seed=0)[1])) == 5


def test_an_image_shows_all_its_views_in_turn():
    kept = latents.Views(np.arange(3 * 5).reshape(3, 5))
    rows = np.array([4, 0, 2])
    shown = np.stack([kept.rows(rows, epoch) for epoch in range(3)])
    np.testing.assert_array_equal(shown % 5, np.tile(rows, (3, 1)))
    np.testing.assert_array_equal(np.sort(shown // 5, axis=0), [[0] * 3, [1] * 3, [2] * 3])


def test_augment_only_moves_pixels():
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    same = latents.augment(pixels, jax.random.key(0), shift=0)
    for image, moved in zip(pixels, np.asarray(same), strict=True):
        assert np.array_equal(moved, image) or np.array_equal(moved, image[:, ::-1])
    shifted = np.asarray(latents.augment(pixels, jax.random.key(0), shift=2))
    assert all(
        set(moved.ravel()) <= set(image.ravel())
        for image, moved in zip(pixels, shifted, strict=True)
    )


def test_times_and_dropped_prompts_follow_the_shares():
    config = UnetConfig(small_share=0.25, small_time=100, small_null_share=1.0, null_share=0.0)
    times, null = objective.draw_times(config, 4000, jax.random.key(0))
    times, null = np.asarray(times), np.asarray(null)
    assert null.sum() == 1000
    assert times[null].max() < 100
    assert times[~null].mean() == pytest.approx(500, abs=20)


def test_alignment_ignores_rows_with_a_prompt():
    rng = np.random.default_rng(0)
    heads = {"mid_block": rng.normal(size=(5, 4)).astype(np.float32)}
    pooled = {"mid_block": rng.normal(size=(3, 5)).astype(np.float32)}
    embeddings = np.eye(4, dtype=np.float32)
    labels = np.array([0, 1, 2])
    loss = objective.alignment_loss(
        heads, pooled, embeddings, labels, np.array([True, False, True])
    )
    logits = pooled["mid_block"] @ heads["mid_block"]
    logits = logits / np.linalg.norm(logits, axis=1, keepdims=True) / 0.07
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), labels]
    assert float(loss) == pytest.approx(losses[[0, 2]].mean(), rel=1e-4)


def test_encoder_loss_is_the_mean_squared_error_of_the_rows_that_count():
    rng = np.random.default_rng(0)
    pooled = {name: rng.normal(size=(3, 5)).astype(np.float32) for name in ("mid", "up_0")}
    heads = {
        name: {"kernel": rng.normal(size=(5, 4)).astype(np.float32), "bias": np.ones(4, np.float32)}
        for name in pooled
    }
    targets = rng.normal(size=(3, 4)).astype(np.float32)
    rows = np.array([True, False, True])
    expected = [
        (pooled[name] @ heads[name]["kernel"] + 1 - targets)[rows].ravel() ** 2 for name in pooled
    ]
    found = objective.encoder_loss(heads, pooled, targets, rows)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
