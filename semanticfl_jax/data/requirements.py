"""What a run needs of its data set, checked before the samples are divided among clients."""

import numpy as np

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.data.sources.labels import FORMS, positions
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.registry import PARTITIONS, TASKS

# Steps of augmentation after which a pixel may be elsewhere.
_MOVING = ("crop_flip", "autoaugment")


def check_labels(dataset: ImageDataset, config: ExperimentConfig) -> None:
    """Raise `SemanticFLError` for labels that the task does not take."""
    wanted = TASKS[config.task].traits.labels
    if dataset.labels != wanted:
        fit = [name for name, entry in TASKS.items() if entry.traits.labels == dataset.labels]
        labels, hint = dataset.train_labels, ""
        if wanted == "tokens":
            hint = f': make it with ImageDataset.from_arrays(..., task="{config.task}")'
        raise SemanticFLError(
            f"task={config.task} needs labels that are {FORMS[wanted][0]}; those of {dataset.name} "
            f"are {labels.dtype} {list(labels.shape)}, which fits task={' or '.join(fit)}{hint}"
        )


def check_inputs(dataset: ImageDataset, config: ExperimentConfig) -> None:
    """Raise `SemanticFLError` for inputs that are no images where these are needed.

    And for augmentation that moves pixels away from their labels.
    """
    inputs = f"{dataset.train_images.dtype} [n, {', '.join(map(str, dataset.image_shape))}]"
    if dataset.has_images:
        if dataset.train_images.dtype != np.uint8:
            raise SemanticFLError(
                f"{dataset.name} has mean and std, by which uint8 images are normalised, and its "
                f"images are {inputs}: make it with ImageDataset.from_arrays"
            )
        moving = [step for step in config.augmentation if step in _MOVING]
        # One axis is a text, as of a caption, which an image keeps when its pixels move.
        if moving and len(positions(dataset.train_labels)) > 1:
            raise ConfigError(
                f"augmentation must be without {' and '.join(moving)} where pixels have labels, "
                f"{list(dataset.train_labels.shape)}: pixels move, and their labels do not; "
                "augmentation=() changes nothing"
            )
        return
    algorithm, traits, attack = config.algorithm, config.algorithm.entry.traits, config.attack
    anchors = traits.guided or (traits.anchors is not None and traits.anchors(algorithm.settings))
    sees = "a diffusion model sees images alone"
    for needed, must, why in (
        (config.augmentation, "augmentation must be empty, augmentation=()", "it changes pictures"),
        (anchors, f"algorithm.name must be another than {algorithm.name}", sees),
        (config.guidance.enabled, "guidance.enabled must be false", sees),
        (
            config.feature_skew.corruptions,
            "feature_skew.corruptions must be empty",
            "they change pictures",
        ),
        (
            attack.entry.traits.images,
            f"attack.name must be another than {attack.name}",
            attack.entry.traits.images,
        ),
    ):
        if needed:
            raise ConfigError(
                f"{must}, with inputs that are no images: {why}, and {dataset.name} has {inputs}, "
                "where images are uint8 [n, H, W, 3]"
            )


def check_public(dataset: ImageDataset, per_class: int) -> None:
    """Raise `ConfigError` if a class has too few images for the public split."""
    if not per_class:
        return
    counts = np.bincount(dataset.train_labels, minlength=dataset.num_classes)
    fewest = min(np.flatnonzero(counts), key=lambda label: counts[label])
    if counts[fewest] < per_class:
        raise ConfigError(
            f"public_per_class must be at most {counts[fewest]}, the training images of "
            f"{dataset.class_names[fewest]}, got {per_class}; 0 where nothing needs public images"
        )


def check_goes_without_classes(config: ExperimentConfig) -> None:
    """Raise `ConfigError` for a partition by classes."""
    partition, need = config.partition, f"one class an image, and task is {config.task}"
    if partition.entry.traits.classes:
        fit = [name for name, entry in PARTITIONS.items() if not entry.traits.classes]
        raise ConfigError(
            f"partition.scheme={partition.scheme} needs {need}; use {', '.join(fit)}, or give a "
            "partition (a scheme of your own that needs none is registered with classes=False)"
        )
    if partition.imbalance_factor != 1:
        raise ConfigError(f"partition.imbalance_factor, a long tail of classes, needs {need}")


def check_goes_with_sharing(config: ExperimentConfig) -> None:
    """Raise `ConfigError` for what clients that share images cannot have each of its own."""
    for field, given in (
        ("feature_skew.corruptions", config.feature_skew.corruptions),
        ("client_test.share", config.client_test.share),
    ):
        if given:
            raise ConfigError(
                f"{field} must be left out with a partition whose clients share images: one "
                "client's corrupted or test image is another's training image"
            )
