"""The three stages in order, then the model card: one directory in diffusers' layout comes out."""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from semanticfl_jax.config import ConfigError, to_dict
from semanticfl_jax.config.fields import flatten
from semanticfl_jax.diffusion import stable_diffusion
from semanticfl_jax.diffusion.fingerprint import BUNDLED_CHECKPOINTS
from semanticfl_jax.files import read_json_object
from semanticfl_jax.pretraining import (
    card,
    encoder,
    files,
    images,
    latents,
    objective,
    teacher,
    text,
    tokenizer,
    unet,
    vae,
    words,
)
from semanticfl_jax.pretraining.config import PretrainConfig

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def check_same_run(config: PretrainConfig, workdir: Path) -> None:
    """Keep `config` in `workdir`, or compare it with what is kept there.

    Raises:
      ConfigError: if an earlier run there had another configuration; it names the fields.
    """
    path, values = workdir / "config.json", to_dict(config)
    if not path.is_file():
        files.write_json(path, values)
        return
    before, now = dict(flatten(read_json_object(path))), dict(flatten(values))
    differing = [name for name in before | now if before.get(name) != now.get(name)]
    if differing:
        changes = ", ".join(f"{name}: {before.get(name)!r} then" for name in differing)
        raise ConfigError(f"{workdir} holds another run ({changes}); choose another workdir")


def pretrain(config: PretrainConfig, workdir: str | Path) -> Path:
    """Train text tower, autoencoder and noise predictor, or resume; write the model card.

    Args:
      config: the configuration.
      workdir: gets `config.json`, each stage's checkpoint and curve, and `checkpoint/`.

    Returns:
      The directory `checkpoint/`, in diffusers' layout.

    Raises:
      ConfigError: if an input file is missing, or the workdir holds another run.
    """
    from tqdm import tqdm

    workdir = Path(workdir)
    directory = workdir / "checkpoint"
    names = words.read(Path(config.words))
    if not Path(config.images).exists():
        raise ConfigError(f"images: no such file or folder: {config.images}")
    check_same_run(config, workdir)
    progress = partial(tqdm, mininterval=5)
    splits = images.load(Path(config.images), config.image_size, workdir / "images.npz", progress)
    train_split, val_split = splits
    missing = [wnid for wnid in train_split.wnids if wnid not in names]
    if missing:
        raise ConfigError(f"words: {config.words} lacks the classes {', '.join(missing[:5])}")
    class_names = [names[wnid][0] for wnid in train_split.wnids]

    text_params, correlations = _text_stage(config, directory, workdir, names, class_names)
    vae_params, scaling_factor = vae.train(
        config.vae,
        directory,
        workdir,
        train_split.pixels,
        val_split.pixels,
        config.seed,
        config.checkpoint_every,
        config.log_every,
    )
    texts = _texts(config, directory, text_params, class_names)
    autoencoder = latents.Autoencoder(
        vae.build(config.vae, config.image_size), vae_params, scaling_factor
    )
    views = None
    if config.unet.views:
        views = latents.views(
            autoencoder,
            train_split.pixels,
            config.unet.views,
            config.unet.shift,
            config.seed,
            workdir,
        )
    unet_params = unet.train(
        config.unet,
        directory,
        workdir,
        train_split,
        val_split,
        autoencoder,
        texts,
        views,
        _targets(config, workdir) if config.unet.alignment_encoder else None,
        config.seed,
        config.checkpoint_every,
        config.log_every,
    )
    files.write_json(directory / "model_index.json", MODEL_INDEX)

    sizes = {"text_encoder": text_params, "vae": vae_params, "unet": unet_params}
    sizes = {
        name: sum(np.size(leaf) for leaf in jax.tree.leaves(tree)) for name, tree in sizes.items()
    }
    sd = stable_diffusion.load(directory)
    shown = np.linspace(0, len(val_split.pixels) - 1, 16).astype(int)
    card.draw_curves(workdir, directory / "curves.png")
    card.draw_reconstructions(sd, val_split.pixels[shown], directory / "reconstructions.png")
    card.draw_samples(sd, config, directory / "samples.png")
    card.write(
        config, workdir, directory, sizes, correlations, len(train_split.labels), len(class_names)
    )
    return directory


def _texts(config, directory, text_params, class_names) -> objective.Texts:
    """Return the text tower's outputs for the classes' prompts and for the empty one."""
    clip_tokenizer, model = tokenizer.load(directory / "tokenizer"), text.load(directory)
    prompts = [config.prompt.format(name) for name in class_names]
    ids = tokenizer.encode(clip_tokenizer, [*prompts, ""])
    states, pooled = text.token_states(model, text_params, ids)
    return objective.Texts(states[:-1], pooled[:-1], states[-1])


def _targets(config, workdir) -> objective.Targets:
    """Return the alignment encoder's features of all images, kept in `workdir`."""
    from tqdm import tqdm

    settings = config.unet
    size, resolution = settings.alignment_encoder_image_size, settings.alignment_encoder_resolution
    path = Path(config.images)
    progress = partial(tqdm, desc="images for the encoder", mininterval=5)
    splits = images.load(path, size, workdir / "encoder_images.npz", progress)
    name = settings.alignment_encoder
    key = files.digest([name, images.fingerprint(path), str(size), str(resolution)])
    train, val = (
        encoder.cached_features(split.pixels, resolution, workdir / f"encoder_{part}.npz", key)
        for part, split in zip(("train", "val"), splits, strict=True)
    )
    return objective.Targets(*encoder.whitened(train, val, settings.alignment_encoder_dim))


def _text_stage(config, directory, workdir, names, class_names):
    """Run stage 1, or take a tower over; the teacher's embeddings are kept in `teacher.npz`."""
    from tqdm import tqdm

    lists = {
        "cifar10": words.split(words.CIFAR10),
        "cifar100": words.split(words.CIFAR100),
        "tiny_imagenet": [name.lower() for name in class_names],
    }
    held = sorted({name for members in lists.values() for name in members})
    training = [] if config.text_from else words.training_names(names, held)
    embeddings = teacher.embed_cached(
        config.teacher,
        [config.prompt.format(name) for name in held + training],
        config.text.teacher_batch_size,
        workdir / "teacher.npz",
        partial(tqdm, desc="teacher", mininterval=5),
    )
    rows = {name: row for row, name in enumerate(held)}
    held_out = {
        key: (members, embeddings[[rows[name] for name in members]])
        for key, members in lists.items()
    }
    if config.text_from:
        source = BUNDLED_CHECKPOINTS.get(config.text_from, Path(config.text_from))
        return text.take_over(source, directory, held_out, config.prompt)
    return text.train(
        config.text,
        directory,
        workdir,
        training,
        embeddings[len(held) :],
        held_out,
        config.prompt,
        config.seed,
        config.checkpoint_every,
        config.log_every,
    )
