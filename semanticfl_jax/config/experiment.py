"""Configuration of one federated run."""

from __future__ import annotations

import dataclasses
from typing import Literal

from semanticfl_jax.config.algorithm import AlgorithmConfig
from semanticfl_jax.config.fields import ConfigError, require
from semanticfl_jax.config.guidance import GuidanceConfig
from semanticfl_jax.config.heterogeneity import (
    AvailabilityConfig,
    FeatureSkewConfig,
    ModalityConfig,
    PartitionConfig,
)

#: Depths whose outputs each network gives.
LEVELS = {"resnet10": 5, "cnn": 3}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The clients' network."""

    name: Literal["resnet10", "cnn"] = "resnet10"
    #: Channels of ResNet-10's first stage; its feature has 8 x width dimensions (64 in the paper).
    width: int = 64
    norm: Literal["batch", "group"] = "batch"
    #: How a convolution is lowered (models/client_conv.py); "auto" chooses, see `tuning`.
    conv: Literal["auto", "native", "canonical", "patches", "shifted"] = "auto"

    def __post_init__(self):
        require(self.width >= 1, "width", "at least 1", self.width)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One federated run. Defaults: the protocol of the FedDifRC family (ICCV 2025) on CIFAR-10."""

    dataset: Literal["digits", "cifar10", "cifar100", "tiny_imagenet", "image_folder"] = "cifar10"
    #: Directory of prepared TFDS data sets, by default TFDS's own; or the images themselves
    #: (tiny_imagenet, image_folder).
    data_dir: str | None = None
    #: Side in pixels of image_folder's images; 0: as they are, all of one size.
    image_size: int = 0
    #: What to do about image files that are missing or damaged: name them and stop, or go on.
    unreadable: Literal["refuse", "skip"] = "refuse"
    #: Steps on every training image, in this order; none: images as they are.
    augmentation: tuple[Literal["crop_flip", "autoaugment", "cutout"], ...] = ("crop_flip",)
    #: Images a class that the server keeps; carved out of train before clients are formed, for
    #: every algorithm alike, so that guided and unguided runs train on the same client data.
    public_per_class: int = 20
    model: ModelConfig = ModelConfig()
    partition: PartitionConfig = dataclasses.field(default_factory=PartitionConfig)
    feature_skew: FeatureSkewConfig = dataclasses.field(default_factory=FeatureSkewConfig)
    modality: ModalityConfig = dataclasses.field(default_factory=ModalityConfig)
    availability: AvailabilityConfig = dataclasses.field(default_factory=AvailabilityConfig)
    algorithm: AlgorithmConfig = dataclasses.field(default_factory=AlgorithmConfig)
    guidance: GuidanceConfig = dataclasses.field(default_factory=GuidanceConfig)
    num_clients: int = 10
    clients_per_round: int = 5
    rounds: int = 50
    local_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-5
    #: Norm that every gradient is cut to, before weight decay and momentum; 0 cuts nothing.
    clip_norm: float = 0.0
    seed: int = 0
    #: Rounds between evaluations; the last round is always evaluated.
    eval_every: int = 1
    eval_batch_size: int = 250
    #: Rounds between checkpoints; the last round is always saved.
    checkpoint_every: int = 1
    #: Rounds in one dispatch where nothing is due in between; "auto": up to a second of them. They
    #: end at the next evaluation or checkpoint, so that both must be rarer for it to matter.
    rounds_per_dispatch: int | Literal["auto"] = "auto"
    #: Clients trained at once on one device by vmap; "auto" chooses, see `tuning`.
    clients_per_chunk: int | Literal["auto"] = "auto"
    #: Whether a short measurement, made once and kept in the user's cache, makes these choices and
    #: that of model.conv: "auto": on accelerators; "never" takes defaults everywhere.
    tuning: Literal["auto", "always", "never"] = "auto"
    #: Of the clients' network, in training and in evaluation alike. With bfloat16 its activations
    #: and products are; parameters, statistics, losses and the optimiser stay in float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    #: Where clients keep their state (SCAFFOLD, MOON, FedDyn, FedCDA): spread over the devices, or
    #: in host memory, from which only the cohort's share travels. The numbers are the same.
    client_state_memory: Literal["device", "host"] = "device"
    #: Devices to spread clients over; 0: all that a round's clients can use.
    num_devices: int = 0

    def __post_init__(self):
        at_least_one = (
            "num_clients",
            "clients_per_round",
            "rounds",
            "local_epochs",
            "batch_size",
            "eval_every",
            "eval_batch_size",
            "checkpoint_every",
        )
        for name in at_least_one:
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        not_negative = (
            "image_size",
            "public_per_class",
            "weight_decay",
            "clip_norm",
            "num_devices",
            "seed",
        )
        for name in not_negative:
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(self.seed < 2**31, "seed", "below 2^31", self.seed)
        require(self.learning_rate > 0, "learning_rate", "greater than 0", self.learning_rate)
        require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1", self.momentum)
        require(
            self.clients_per_round <= self.num_clients,
            "clients_per_round",
            f"at most num_clients ({self.num_clients})",
            self.clients_per_round,
        )
        for name in ("clients_per_chunk", "rounds_per_dispatch"):
            value = getattr(self, name)
            require(value == "auto" or value >= 1, name, '"auto" or at least 1', value)
        try:
            self.algorithm.check(self.clients_per_round, LEVELS[self.model.name])
        except ConfigError as error:
            raise ConfigError(f"algorithm.{error}") from None
        require(
            self.partition.scheme != "nid2" or self.partition.biased_clients <= self.num_clients,
            "partition.biased_clients",
            f"at most num_clients ({self.num_clients})",
            self.partition.biased_clients,
        )
        if self.algorithm.name == "semanticfl" and not self.guidance.enabled:
            # SemanticFL is guidance on FedAvg's aggregation; the flag follows the name so that
            # config.json records what was trained.
            guidance = dataclasses.replace(self.guidance, enabled=True)
            object.__setattr__(self, "guidance", guidance)
        require(
            self.modality.total == 0 or self.guidance.enabled,
            "modality",
            "without shares unless guidance.enabled: it says who lacks which anchors",
            self.modality,
        )
        uses_public = self.uses_anchors and self.guidance.anchor_source == "public"
        require(
            self.public_per_class >= 1 or not uses_public or self.guidance.anchors_file is not None,
            "public_per_class",
            "at least 1 when guidance builds its anchors of them (or give guidance.anchors_file, "
            "or another guidance.anchor_source)",
            self.public_per_class,
        )

    @property
    def private(self) -> bool:
        """Whether clients' images stay with them: not when anchors are made of them (oracle)."""
        return not (self.uses_anchors and self.guidance.anchor_source == "oracle")

    @property
    def uses_anchors(self) -> bool:
        """Whether clients receive semantic anchors: for guidance, or as FedDifRC's features."""
        difrc = self.algorithm.feddifrc
        weights = difrc.lambda_tdcl + difrc.lambda_ndcr
        return self.guidance.enabled or (self.algorithm.name == "feddifrc" and weights > 0)
