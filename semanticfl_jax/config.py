"""Experiment configuration: frozen dataclasses, validated once, before anything slow is imported.

Allowed names are the `Literal` types below; the registries are tested to agree. The algorithms'
part is in `config_algorithm`, what turns plain values into these classes in `config_fields`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from semanticfl_jax.config_algorithm import AlgorithmConfig
from semanticfl_jax.config_fields import (
    ConfigError,
    check_override,
    describe,
    from_dict,
    require,
    to_dict,
    unknown_field,
)

__all__ = [
    "AlgorithmConfig",
    "ConfigError",
    "ExperimentConfig",
    "GuidanceConfig",
    "ModelConfig",
    "PartitionConfig",
    "check_override",
    "describe",
    "from_dict",
    "require",
    "to_dict",
    "unknown_field",
]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The clients' network."""

    name: Literal["resnet10", "cnn"] = "resnet10"
    #: Channels of ResNet-10's first stage; its feature has 8 x width dimensions (64 in the paper).
    width: int = 64
    norm: Literal["batch", "group"] = "batch"
    #: How a convolution is lowered; "auto" chooses for the backend (models/client_conv.py).
    conv: Literal["auto", "native", "canonical", "patches", "shifted"] = "auto"

    def __post_init__(self):
        require(self.width >= 1, "width", "at least 1", self.width)


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """How training samples are dealt to clients."""

    scheme: Literal["iid", "dirichlet", "nid1"] = "nid1"
    #: Dirichlet concentration over labels; smaller is more skewed.
    alpha: float = 0.2

    def __post_init__(self):
        require(self.alpha > 0, "alpha", "greater than 0", self.alpha)


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
    """Semantic guidance: the anchors, and the terms they add to the clients' loss."""

    enabled: bool = False
    #: "tiny-sd" (bundled), a diffusers-layout directory, or a hub id.
    checkpoint: str = "tiny-sd"
    #: "semantic", or a control: random orthogonal anchors, or the class names permuted.
    anchors: Literal["semantic", "random_orthogonal", "shuffled"] = "semantic"
    #: Anchors made earlier; by default they are built into the run's directory.
    anchors_file: str | None = None
    prompt: str = "a photo of a {}"
    #: Diffusion step, of 1000, at which features are taken.
    timestep: int = 150
    #: Feature maps; empty: those of vae, mid, up_1, up_2, up_3 that the checkpoint has.
    maps: tuple[str, ...] = ()
    aggregation: Literal["adaptive", "uniform", "single"] = "adaptive"
    #: Visual anchor dimensions; 0: the model's feature width (512 for ResNet-10 of width 64).
    dim: int = 0
    kd: Literal["kl", "l2", "cosine"] = "kl"
    lambda_kd: float = 1.0
    lambda_con: float = 0.01
    #: Temperature of the distillation's two softmaxes (kd = "kl").
    temperature_kd: float = 1.0
    #: Temperature tau of the cross-modal InfoNCE.
    temperature_con: float = 0.05

    def __post_init__(self):
        require(self.prompt.count("{}") == 1, "prompt", "a text with one {}", self.prompt)
        require(0 <= self.timestep < 1000, "timestep", "from 0 to 999", self.timestep)
        require(self.dim >= 0, "dim", "at least 0", self.dim)
        single = self.aggregation != "single" or len(self.maps) == 1
        require(single, "maps", "exactly one name when aggregation is single", self.maps)
        for name in ("lambda_kd", "lambda_con"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("temperature_kd", "temperature_con"):
            require(getattr(self, name) > 0, name, "greater than 0", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One federated run. Defaults: the protocol of the FedDifRC family (ICCV 2025) on CIFAR-10."""

    dataset: Literal["digits", "cifar10", "cifar100"] = "cifar10"
    #: Directory of prepared TFDS data sets; by default TFDS's own.
    data_dir: str | None = None
    augmentation: Literal["none", "crop_flip"] = "crop_flip"
    #: Images a class that the server keeps; carved out of train before clients are formed, for
    #: every algorithm alike, so that guided and unguided runs train on the same client data.
    public_per_class: int = 20
    model: ModelConfig = ModelConfig()
    partition: PartitionConfig = PartitionConfig()
    algorithm: AlgorithmConfig = dataclasses.field(default_factory=AlgorithmConfig)
    guidance: GuidanceConfig = GuidanceConfig()
    num_clients: int = 10
    clients_per_round: int = 5
    rounds: int = 50
    local_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-5
    seed: int = 0
    #: Rounds between evaluations; the last round is always evaluated.
    eval_every: int = 1
    eval_batch_size: int = 250
    #: Rounds between checkpoints; the last round is always saved.
    checkpoint_every: int = 1
    #: Clients trained at once on one device by vmap; "auto" chooses for the backend.
    clients_per_chunk: int | Literal["auto"] = "auto"
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
        for name in ("public_per_class", "weight_decay", "num_devices", "seed"):
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
        chunk = self.clients_per_chunk
        require(chunk == "auto" or chunk >= 1, "clients_per_chunk", '"auto" or at least 1', chunk)
        if self.algorithm.name == "semanticfl" and not self.guidance.enabled:
            # SemanticFL is guidance on FedAvg's aggregation; the flag follows the name so that
            # config.json records what was trained.
            guidance = dataclasses.replace(self.guidance, enabled=True)
            object.__setattr__(self, "guidance", guidance)
        builds_anchors = self.guidance.enabled and self.guidance.anchors_file is None
        require(
            self.public_per_class >= 1 or not builds_anchors,
            "public_per_class",
            "at least 1 when guidance builds its anchors (or give guidance.anchors_file)",
            self.public_per_class,
        )
