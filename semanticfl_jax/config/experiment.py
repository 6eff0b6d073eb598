"""Configuration of one federated run."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from semanticfl_jax.config.aggregation import AggregationConfig
from semanticfl_jax.config.algorithm import AlgorithmConfig
from semanticfl_jax.config.asynchronous import AsynchronousConfig
from semanticfl_jax.config.attack import AttackConfig
from semanticfl_jax.config.client_test import ClientTestConfig
from semanticfl_jax.config.fields import (
    FREE,
    Config,
    SettingsOf,
    changed_fields,
    free,
    require,
    require_at_least,
)
from semanticfl_jax.config.guidance import GuidanceConfig
from semanticfl_jax.config.heterogeneity import (
    AvailabilityConfig,
    FeatureSkewConfig,
    ModalityConfig,
    PartitionConfig,
)
from semanticfl_jax.config.model import ModelConfig
from semanticfl_jax.config.optimizer import OptimizerConfig
from semanticfl_jax.config.overrides import unused_is_an_error
from semanticfl_jax.config.privacy import PrivacyConfig
from semanticfl_jax.config.runtime import RuntimeConfig
from semanticfl_jax.config.values import PathText
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import AGGREGATORS, DATASETS, MODELS, OPTIMIZERS, TASKS

#: Fields of a partition that only some schemes heed.
_SCHEME_FIELDS = (
    "alpha",
    "shards_per_client",
    "biased_clients",
    "classes_per_biased",
    "biased_share",
)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(Config):
    """One federated run. Defaults: the protocol of the FedDifRC family (ICCV 2025) on CIFAR-10.

    Fields are checked and converted when an instance is made, groups included:

    >>> import semanticfl_jax as sfl
    >>> config = sfl.ExperimentConfig(dataset="digits", rounds=5)
    >>> config.num_clients, config.partition.scheme
    (10, 'nid1')
    >>> sfl.ExperimentConfig(rounds=2.5)
    Traceback (most recent call last):
    semanticfl_jax.errors.ConfigError: rounds must be a whole number, got 2.5

    Raises:
      ConfigError: for a value that is not allowed, a combination that makes no sense, or a setting
        without an effect.
    """

    #: Images to train on and to test with.
    dataset: Annotated[str, DATASETS] = "cifar10"
    #: Settings of a data set that has some of its own.
    dataset_settings: Annotated[Any, SettingsOf("dataset")] = None
    #: What is learned of the images, and what their labels therefore are.
    task: Annotated[str, TASKS] = "classification"
    #: Settings of a task that has some of its own.
    task_settings: Annotated[Any, SettingsOf("task")] = None
    #: Where the data set is: its files or archive as published, or a directory of TFDS, by default
    #: TFDS's own; of image_folder the images. A directory one or two levels off does.
    data_dir: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: Whether CIFAR-10 and CIFAR-100 are downloaded into data_dir where they are not there.
    download: bool = free(False)
    #: Side in pixels of image_folder's images; 0: as they are, all of one size.
    image_size: int = 0
    #: What to do about image files that are missing or damaged: name them and stop, or go on.
    unreadable: Literal["refuse", "skip"] = free("refuse")
    #: Steps on every training image, in this order; none: images as they are.
    augmentation: tuple[Literal["crop_flip", "autoaugment", "cutout"], ...] = ("crop_flip",)
    #: Images a class that the server keeps; carved out of train before clients are formed, for
    #: every algorithm alike, so that guided and unguided runs train on the same client data. None
    #: where images have no class.
    public_per_class: int = 20
    #: Training images that clients share, drawn after the public split, of every class as many; 0:
    #: all. The public split does not depend on it.
    train_limit: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    partition: PartitionConfig = dataclasses.field(default_factory=PartitionConfig)
    feature_skew: FeatureSkewConfig = dataclasses.field(default_factory=FeatureSkewConfig)
    modality: ModalityConfig = dataclasses.field(default_factory=ModalityConfig)
    availability: AvailabilityConfig = dataclasses.field(default_factory=AvailabilityConfig)
    asynchronous: AsynchronousConfig = dataclasses.field(default_factory=AsynchronousConfig)
    client_test: ClientTestConfig = dataclasses.field(default_factory=ClientTestConfig)
    algorithm: AlgorithmConfig = dataclasses.field(default_factory=AlgorithmConfig)
    aggregation: AggregationConfig = dataclasses.field(default_factory=AggregationConfig)
    privacy: PrivacyConfig = dataclasses.field(default_factory=PrivacyConfig)
    attack: AttackConfig = dataclasses.field(default_factory=AttackConfig)
    guidance: GuidanceConfig = dataclasses.field(default_factory=GuidanceConfig)
    #: Clients among whom the training images are divided.
    num_clients: int = 10
    #: Of them, those that are asked in a round: the cohort.
    clients_per_round: int = 5
    #: Rounds of the whole run; it may grow when a run is resumed.
    rounds: int = free(50)
    #: Passes over its own images that a client makes in a round.
    local_epochs: int = 10
    #: Images of a local step; a client's last batch may be smaller.
    batch_size: int = 64
    #: Of the clients' optimiser, before the schedule.
    learning_rate: float = 0.01
    #: Names of the network's layers, or arrays, that are trained and sent, at any depth; all others
    #: stay as they begin. The classifier is found by its width.
    trainable: Literal["all", "classifier"] | tuple[str, ...] = "all"
    #: Of SGD; its buffer starts from zero in every round.
    momentum: float = 0.9
    #: Of the clients' optimiser; `optimizer.name` decides how it enters.
    weight_decay: float = 1e-5
    #: Norm that every gradient is cut to, before weight decay and momentum; 0 cuts nothing.
    clip_norm: float = 0.0
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    #: Of every random stream of the run: public split, partition, weights, cohorts, batches.
    seed: int = 0
    #: Rounds between evaluations; the last round is always evaluated.
    eval_every: int = 1
    #: Rounds between checkpoints; the last round is always saved.
    checkpoint_every: int = free(1)
    #: What to do when a loss, an update or a metric is not finite: warn once and go on, stop the
    #: run, or leave the client's update out of the average as if it had dropped out.
    on_divergence: Literal["warn", "stop", "skip_client"] = dataclasses.field(
        default="warn", metadata={"same_results": ("warn", "stop")}
    )
    #: Of the clients' network, in training and in evaluation alike. With bfloat16 its activations
    #: and products are; parameters, statistics, losses and the optimiser stay in float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    #: How the run is computed; it does not decide the results.
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig, metadata=FREE)

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, or that contradict one another."""
        require_at_least(
            self,
            1,
            "num_clients",
            "clients_per_round",
            "rounds",
            "local_epochs",
            "batch_size",
            "eval_every",
            "checkpoint_every",
        )
        require_at_least(
            self,
            0,
            "image_size",
            "public_per_class",
            "train_limit",
            "weight_decay",
            "clip_norm",
            "seed",
        )
        require(self.seed < 2**31, "seed", "below 2^31", self.seed)
        require(self.learning_rate > 0, "learning_rate", "greater than 0", self.learning_rate)
        require(len(self.trainable) > 0, "trainable", "one layer at least", self.trainable)
        require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1", self.momentum)
        require(
            self.clients_per_round <= self.num_clients,
            "clients_per_round",
            f"at most num_clients ({self.num_clients})",
            self.clients_per_round,
        )
        self._check_groups()
        self._check_optimizer()
        self._check_task()
        self.aggregation.check_experiment(self)
        self.attack.check_experiment(self)
        self.privacy.check_experiment(self)
        self.asynchronous.check_experiment(self)
        if self.algorithm.entry.traits.guided and not self.guidance.enabled:
            # SemanticFL is guidance on FedAvg's aggregation; the flag follows the name so that
            # config.json records what was trained.
            guidance = dataclasses.replace(self.guidance, enabled=True)
            object.__setattr__(self, "guidance", guidance)
        require(
            self.modality == ModalityConfig() or self.guidance.enabled,
            "modality",
            "without shares unless guidance.enabled: it says who lacks what of it",
            self.modality,
        )
        self._check_public()
        if unused_is_an_error():
            for path, reason in self.unused().items():
                raise ConfigError(f"{path} is set, but {reason}; leave it out")

    def _check_public(self) -> None:
        """Raise `ConfigError` if the server's images are needed and there are none."""
        guidance, student = self.guidance, self.guidance.student
        for needed, file, source in (
            (
                self.uses_anchors and guidance.anchor_source == "public",
                guidance.anchors_file,
                "guidance builds its anchors of them (or give guidance.anchors_file, or another "
                "guidance.anchor_source)",
            ),
            (
                guidance.uses_student and student.images == "public",
                student.file,
                "the student is distilled on them (or give guidance.student.file, or other "
                "guidance.student.images)",
            ),
        ):
            require(
                self.public_per_class >= 1 or not needed or file is not None,
                "public_per_class",
                f"at least 1 when {source}",
                self.public_per_class,
            )

    def with_runtime(self, **changes: Any) -> ExperimentConfig:
        """Return the configuration with other fields of `runtime`, none of which decide results."""
        return dataclasses.replace(self, runtime=dataclasses.replace(self.runtime, **changes))

    @property
    def uses_public(self) -> bool:
        """Whether the server uses its public split: for anchors, a student, or an aggregator."""
        anchors = self.uses_anchors and self.guidance.anchor_source == "public"
        student = self.guidance.uses_student and self.guidance.student.images == "public"
        return anchors or student or AGGREGATORS[self.aggregation.aggregator].traits.public

    def _check_groups(self) -> None:
        """Raise `ConfigError` for settings of groups that do not fit the experiment."""
        groups = {
            f"algorithm.{self.algorithm.name}": self.algorithm.settings,
            f"model.{self.model.name}": self.model.settings,
            f"partition.{self.partition.scheme}": self.partition.settings,
        }
        for name, settings in groups.items():
            check = getattr(settings, "check_experiment", None)
            if check is not None:
                try:
                    check(self)
                except ConfigError as error:
                    raise ConfigError(f"{name}.{error}") from None
        partition = self.partition
        require(
            "biased_clients" not in partition.entry.uses
            or partition.biased_clients <= self.num_clients,
            "partition.biased_clients",
            f"at most num_clients ({self.num_clients})",
            partition.biased_clients,
        )

    def _check_optimizer(self) -> None:
        """Raise `ConfigError` for an optimiser that the algorithm's mathematics rules out."""
        reason, optimizer = self.algorithm.entry.traits.sgd, self.optimizer
        nesterov = getattr(optimizer.settings.get(optimizer.name), "nesterov", False)
        if reason and (nesterov or not OPTIMIZERS[optimizer.name].traits.sgd):
            got = f"{optimizer.name} with nesterov" if nesterov else optimizer.name
            raise ConfigError(
                f"optimizer.name must be sgd, without nesterov, with algorithm.name="
                f"{self.algorithm.name} ({reason}), got {got!r}"
            )
        require(
            not reason or optimizer.epoch_decay == 1,
            "optimizer.epoch_decay",
            f"1 with algorithm.name={self.algorithm.name} ({reason}; a round has one rate)",
            optimizer.epoch_decay,
        )

    def _check_task(self) -> None:
        """Raise `ConfigError` for what needs one class an image, where the task has none."""
        if self.has_classes:
            return
        name, reason = self.algorithm.name, self.algorithm.entry.traits.classes
        need = f"one class an image, as task=classification has, and task is {self.task}"
        if reason:
            raise ConfigError(f"algorithm.name={name} needs {need}: {reason}")
        if self.algorithm.weights == "disco":
            raise ConfigError(
                f"algorithm.weights=disco needs {need}: it weighs clients by how many images of "
                "each class they have"
            )
        if self.uses_anchors:
            raise ConfigError(
                f"guidance.enabled needs {need}: an anchor stands for a class, and pulls the "
                "features of its images"
            )

    def unused(self) -> dict[str, str]:
        """Return the fields that are set and have no effect, by dotted path, with the reason."""
        found = {f"algorithm.{name}": why for name, why in self.algorithm.unused().items()}
        found |= {f"attack.{name}": why for name, why in self.attack.unused().items()}
        found |= {f"privacy.{name}": why for name, why in self.privacy.unused().items()}
        told = self.asynchronous.unused(self.aggregation.aggregator)
        found |= {f"asynchronous.{name}": why for name, why in told.items()}
        fixed = self.algorithm.entry.traits.server_rate
        if fixed and self.optimizer.server_schedule != "constant":
            why = f"algorithm.name is {self.algorithm.name}: {fixed}"
            found["optimizer.server_schedule"] = why
        if self.availability.straggler_share == 0:
            for name in set(changed_fields(self.availability)) & {"straggler_min_work"}:
                found[f"availability.{name}"] = "availability.straggler_share is 0"
        if not self.feature_skew.corruptions:
            for name in changed_fields(self.feature_skew):
                found[f"feature_skew.{name}"] = "feature_skew.corruptions is empty"
        guidance = self.guidance.unused(self.uses_anchors)
        found |= {f"guidance.{name}": why for name, why in guidance.items()}
        found |= {f"modality.{name}": why for name, why in self._unused_modality().items()}
        uses = MODELS[self.model.name].uses
        for name in changed_fields(self.model):
            if name in ("width", "norm") and name not in uses:
                found[f"model.{name}"] = f"model.name is {self.model.name}"
        if self.partition.file is None:  # else it takes the place of the scheme and all its fields
            for name in changed_fields(self.partition):
                if name in _SCHEME_FIELDS and name not in self.partition.entry.uses:
                    found[f"partition.{name}"] = f"partition.scheme is {self.partition.scheme}"
        name = self.optimizer.name
        if self.momentum != type(self).momentum and "momentum" not in OPTIMIZERS[name].uses:
            found["momentum"] = f"optimizer.name is {name}"
        if "image_size" not in DATASETS[self.dataset].uses and self.image_size:
            found["image_size"] = f"dataset is {self.dataset}, whose images have one size"
        if "download" not in DATASETS[self.dataset].uses and self.download:
            found["download"] = f"dataset is {self.dataset}, which is not downloaded"
        if not self.has_classes and self.public_per_class not in (0, type(self).public_per_class):
            found["public_per_class"] = f"task is {self.task}, whose images have no class"
        return found

    def _unused_modality(self) -> dict[str, str]:
        """Return the shares of clients without what no client has a term of."""
        modality, guidance = self.modality, self.guidance
        student, found = guidance.student, {}
        if not student.enabled:
            found["without_student"] = "guidance.student.enabled is false"
        elif not student.sets_targets:
            found["without_student"] = (
                "the student sets no targets: every client starts from it, and has no term to lack"
            )
        own = self.algorithm.entry.traits.anchors is not None
        if guidance.enabled and not own:
            if guidance.lambda_con == 0:
                found["without_text"] = "guidance.lambda_con is 0"
            if guidance.lambda_kd == 0:
                found["without_visual"] = "guidance.lambda_kd is 0"
        return {name: why for name, why in found.items() if getattr(modality, name) > 0}

    def rounds_matter(self) -> str | None:
        """Return why `rounds` decides what every single round does; None: it does not.

        Where it does, a run cannot be made longer afterwards.
        """
        matter = getattr(self.algorithm.settings, "rounds_matter", None)
        reason = matter() if matter is not None else None
        return reason or self.optimizer.rounds_matter() or self.privacy.rounds_matter()

    @property
    def has_classes(self) -> bool:
        """Whether every image has one class, by which partitions, weights and anchors can go."""
        return TASKS[self.task].traits.labels == "class"

    @property
    def private(self) -> bool:
        """Whether clients' images stay with them: not when anchors are made of them (oracle)."""
        return not (self.uses_anchors and self.guidance.anchor_source == "oracle")

    @property
    def uses_anchors(self) -> bool:
        """Whether clients receive semantic anchors: for guidance, or as FedDifRC's features."""
        traits, settings = self.algorithm.entry.traits, self.algorithm.settings
        own = traits.anchors is not None and traits.anchors(settings)
        guided = self.guidance.enabled or traits.guided
        return own or (guided and self.guidance.has_class_terms)
