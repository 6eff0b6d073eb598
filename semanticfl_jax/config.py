"""Experiment configuration: frozen dataclasses, validated once, before anything slow is imported.

`from_dict` turns a mapping (a JSON file, a config file with command-line overrides) into one of
these classes; a wrong name or value raises `ConfigError`, which names the field and lists what is
allowed. Allowed names are the `Literal` types below; the registries are tested to agree.
This module imports the standard library alone, so that a mistyped flag fails at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration field has a wrong name or value; the message names it and what is allowed."""


def require(condition: bool, field: str, allowed: str, value: Any) -> None:
    """Raises `ConfigError` unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{field} must be {allowed}, got {value!r}")


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
class AlgorithmConfig:
    """The federated algorithm. `semanticfl` is `fedavg` with `guidance.enabled`."""

    name: Literal["fedavg", "semanticfl"] = "fedavg"
    #: Step along the average client update; 1 replaces the model by the clients' average.
    server_learning_rate: float = 1.0

    def __post_init__(self):
        require(
            self.server_learning_rate > 0,
            "server_learning_rate",
            "greater than 0",
            self.server_learning_rate,
        )


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
    """Semantic guidance: the anchors, and the terms they add to the clients' loss."""

    enabled: bool = False
    #: "tiny-sd" (bundled), a diffusers-layout directory, or a hub id.
    checkpoint: str = "tiny-sd"
    #: Of a hub id: branch, tag or commit; where downloads are kept; whether to look there only.
    revision: str | None = None
    cache_dir: str | None = None
    offline: bool = False
    #: Precision of the diffusion model; "auto": bfloat16 on accelerators, float32 on CPU.
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    #: Side in pixels that images are resized to; 0: the checkpoint's own.
    resolution: int = 0
    #: Images at once through the diffusion model, over all devices; 0 chooses by the resolution.
    diffusion_batch_size: int = 0
    #: Which images the visual anchors are made of: the server's public split, images drawn by the
    #: checkpoint itself, a directory with a folder a class, or the clients' own (not private).
    anchor_source: Literal["public", "generated", "directory", "oracle"] = "public"
    #: Folder of class-named folders of images (anchor_source = "directory").
    anchor_dir: str | None = None
    #: Images a class, steps and guidance scale of DDIM (anchor_source = "generated").
    generated_per_class: int = 20
    generation_steps: int = 20
    generation_scale: float = 7.5
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
    #: Dimensions of each of `maps`, summing to `dim`; empty: as even as their channels allow.
    budgets: tuple[int, ...] = ()
    #: Visual anchor dimensions; 0: the model's feature width (512 for ResNet-10 of width 64).
    dim: int = 0
    kd: Literal["kl", "l2", "cosine"] = "kl"
    lambda_kd: float = 1.0
    #: Chosen by measurement (README.md); the paper's weight is 0.01 (launch/configs/paper.py).
    lambda_con: float = 1.0
    #: Temperature of the distillation's two softmaxes (kd = "kl").
    temperature_kd: float = 1.0
    #: Temperature tau of the cross-modal InfoNCE.
    temperature_con: float = 0.05

    def __post_init__(self):
        require(self.prompt.count("{}") == 1, "prompt", "a text with one {}", self.prompt)
        require(0 <= self.timestep < 1000, "timestep", "from 0 to 999", self.timestep)
        require(self.dim >= 0, "dim", "at least 0", self.dim)
        for name in ("resolution", "diffusion_batch_size"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("generated_per_class", "generation_steps"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(
            self.anchor_source == "directory" or self.anchor_dir is None,
            "anchor_dir",
            'none unless anchor_source is "directory"',
            self.anchor_dir,
        )
        require(
            self.anchor_source != "directory" or bool(self.anchor_dir or self.anchors_file),
            "anchor_dir",
            'a folder of class-named folders when anchor_source is "directory"',
            self.anchor_dir,
        )
        require(
            self.anchor_source != "oracle" or self.anchors == "semantic",
            "anchors",
            '"semantic" with anchor_source "oracle": the controls permute or replace classes, and '
            "its features belong to single images",
            self.anchors,
        )
        require(
            not self.budgets or len(self.budgets) == len(self.maps),
            "budgets",
            f"one number for each of maps ({len(self.maps)} given), or none",
            self.budgets,
        )
        require(all(b >= 1 for b in self.budgets), "budgets", "at least 1 each", self.budgets)
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
    algorithm: AlgorithmConfig = AlgorithmConfig()
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
        uses_public = self.guidance.enabled and self.guidance.anchor_source == "public"
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
        return not (self.guidance.enabled and self.guidance.anchor_source == "oracle")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a configuration, ready for JSON (tuples become lists)."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Builds and validates the dataclass `cls` from a nested mapping; missing fields keep defaults.

    Raises:
      ConfigError: for an unknown field, a value of the wrong type, or one that is not allowed.
    """
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ConfigError(unknown_field(prefix + name, [prefix + known for known in hints]))
    converted = {
        name: _convert(hints[name], value, prefix + name) for name, value in values.items()
    }
    try:
        return cls(**converted)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def unknown_field(name: str, known: typing.Iterable[str]) -> str:
    """Message for a field that does not exist, with the nearest name and all that do."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"unknown config field {name}.{hint} Fields: {', '.join(known)}"


def check_override(cls: type, path: str) -> None:
    """Raises `ConfigError` unless the dotted `path` (`model.width`) names a field of `cls`."""
    prefix = ""
    for name in path.split("."):
        hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        if name not in hints:
            raise ConfigError(unknown_field(prefix + name, [prefix + known for known in hints]))
        cls, prefix = hints[name], f"{prefix}{name}."


def describe(hint: Any) -> str:
    """What a field of type `hint` accepts, in words."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(hint))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    names[type(None)] = "none"
    if origin is tuple:
        return "a list of " + ("whole numbers" if typing.get_args(hint)[0] is int else "texts")
    return names.get(hint, str(hint))


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type, or `ConfigError`."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is a group of fields, got {value!r}")
        return from_dict(hint, value, prefix=f"{path}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        for part in sorted(args, key=lambda part: part is not type(None)):
            try:
                return _convert(part, value, path)
            except ConfigError:
                continue
    elif origin is Literal and value in args:
        return value
    elif origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        items = [items] if isinstance(items, int) and not isinstance(items, bool) else items
        if isinstance(items, list | tuple):
            items = [item for item in items if item != ""]
            if args[0] is int and all(str(item).strip().lstrip("-").isdecimal() for item in items):
                return tuple(int(item) for item in items)
            if args[0] is str and all(isinstance(item, str) for item in items):
                return tuple(item.strip() for item in items if item.strip())
    elif hint is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    elif hint is int and number and isinstance(value, int):
        return value
    elif hint is float and number and math.isfinite(value):
        return float(value)
    elif hint is str and (isinstance(value, str) or number):
        return str(value)  # a number typed for a text field, as in data_dir=2024
    elif hint is type(None) and str(value).lower() in ("none", ""):
        return None
    raise ConfigError(f"{path} must be {describe(hint)}, got {value!r}")
