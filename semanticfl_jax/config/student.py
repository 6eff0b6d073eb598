"""Configuration of the semantic student: what it is distilled from, and how clients use it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from semanticfl_jax.config.fields import (
    FREE,
    Config,
    changed_fields,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.config.values import PathText
from semanticfl_jax.registry import DATASETS, MODELS

#: What `images` begins with where they are those of a data set.
DATASET_PREFIX = "dataset:"
#: `images` of a student that is not distilled: it comes with the package, or in a file.
BUNDLED = "bundled"
_SOURCES = (BUNDLED, "public", "directory", "generated")
#: What has been decided for the bundled students.
_OF_MAKING = ("max_images", "dim", "maps", "model", "steps", "batch_size", "learning_rate", "seed")

#: Controls without targets, and the one without the start.
WITHOUT_TARGETS = ("start_only", "labels")
_WITHOUT_START = ("target_only",)
_OF_TARGETS = ("weight", "targets")


@dataclasses.dataclass(frozen=True)
class StudentConfig(Config):
    """The semantic student: a small network that knows what the diffusion model sees in an image.

    The server distils it and sends it once; clients compute a target for each of their own images.
    """

    #: Whether clients get a student.
    enabled: bool = False
    #: Weight of the clients' mean squared distance to the targets.
    weight: float = 5.0
    #: Whether targets are computed once, of a client's images as they are, or in each step, of the
    #: augmented ones.
    targets: Literal["once", "each_step"] = "once"
    #: Whether the clients' network starts from the student: true, which needs the same network;
    #: false; none: where both are the same network.
    init: bool | None = None
    #: "none", or a control: the student of a U-Net with random weights; the targets permuted among
    #: the images; the start or the targets alone; the start from a network that was trained on the
    #: labels of the same images; the student of an image encoder trained on ImageNet.
    control: Literal[
        "none", "random_unet", "permuted", "start_only", "target_only", "labels", "encoder"
    ] = "none"
    #: Images that it is distilled on: "public" (the server's split), "directory", "generated" (by
    #: the diffusion model), or "dataset:NAME", the training images of another data set. "bundled":
    #: none, it was distilled before: tiny-sd's, which comes with the package, or `file`.
    images: str = "bundled"
    #: The directory's or the data set's place.
    data_dir: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: So many images at most, drawn at random; 0: all.
    max_images: int = 0
    #: Width of a target.
    dim: int = 128
    #: Feature maps that targets are made of; empty: all that the checkpoint has.
    maps: tuple[str, ...] = ()
    #: Its network; none: the clients' (`model`).
    model: Annotated[str, MODELS] | None = None
    #: Its width; 0: that of the clients' network; of the bundled ones, 8 and 16, the nearest.
    width: int = 0
    #: Steps of its training, with AdamW.
    steps: int = 4000
    #: Images of such a step.
    batch_size: int = 64
    #: Rate of such a step.
    learning_rate: float = 2e-3
    #: Of its training, of the diffusion noise and of random weights; not the run's.
    seed: int = 0
    #: A student made earlier.
    file: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: Where students are kept, to be shared by runs; by default each run's own directory.
    directory: PathText | None = dataclasses.field(default=None, metadata=FREE)

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, or that contradict one another."""
        require_at_least(self, 0, "weight", "max_images", "width", "seed")
        require_at_least(self, 1, "dim", "steps", "batch_size")
        require_positive(self, "learning_rate")
        if self.images not in _SOURCES and self.dataset not in DATASETS:
            choices = [*_SOURCES, *(f"{DATASET_PREFIX}{name}" for name in DATASETS)]
            require(False, "images", f"one of {', '.join(choices)}", self.images)
        require(
            self.images != "directory" or bool(self.data_dir or self.file),
            "data_dir",
            "a folder of images when images is directory",
            self.data_dir,
        )
        require(
            self.control != "permuted" or self.targets == "once",
            "targets",
            '"once" with control "permuted": a target that is computed in a step is its image\'s',
            self.targets,
        )

        require(
            self.init is not False or self.control not in WITHOUT_TARGETS,
            "init",
            f'true or none with control "{self.control}", which is a start and nothing else',
            self.init,
        )
        require(
            self.weight > 0 or self.control not in ("permuted", *_WITHOUT_START),
            "weight",
            f'above 0 with control "{self.control}", which is about the targets',
            self.weight,
        )
        if self.enabled and self.is_bundled:
            self._check_bundled()

    def _check_bundled(self) -> None:
        """Raise `ConfigError` for what cannot be had of a student that is made already."""
        choices = "public, directory, generated or dataset:NAME"
        require(
            self.teacher == "diffusion",
            "images",
            f'{choices} with control "{self.control}", whose student is distilled',
            self.images,
        )
        for name in changed_fields(self):
            require(
                name not in _OF_MAKING,
                "images",
                f"{choices} when {name} is given: the bundled student is made already",
                self.images,
            )

    @property
    def is_bundled(self) -> bool:
        """Whether it is one of those that come with the package."""
        return self.images == BUNDLED and self.file is None

    @property
    def dataset(self) -> str | None:
        """Name of the data set that it is distilled on; None: on other images."""
        if self.images.startswith(DATASET_PREFIX):
            return self.images.removeprefix(DATASET_PREFIX)
        return None

    @property
    def teacher(self) -> str:
        """What it learns from: "diffusion", "random_unet", "encoder" or "labels"."""
        own = ("random_unet", "encoder", "labels")
        return self.control if self.control in own else "diffusion"

    @property
    def sets_targets(self) -> bool:
        """Whether clients have targets."""
        return self.weight > 0 and self.control not in WITHOUT_TARGETS

    @property
    def may_start(self) -> bool:
        """Whether the clients' network starts from the student if both are the same network."""
        return self.init is not False and self.control not in _WITHOUT_START

    @property
    def must_start(self) -> bool:
        """Whether a network that cannot start from the student is an error."""
        return self.may_start and (bool(self.init) or not self.sets_targets)

    def _unused_once_made(self) -> dict[str, str]:
        """Return the fields that no longer matter for a student that is made, with the reason."""
        if self.file is None:
            found = ("directory",) if self.is_bundled else ()
            return dict.fromkeys(found, "the bundled student is made already")
        # Its other fields are compared with what the file says of itself.
        found = ("directory", "steps", "batch_size", "learning_rate")
        if self.images == BUNDLED:  # of images that nobody is asked about
            found = (*found, "max_images")
        if self.images == BUNDLED or self.max_images == 0:  # else it draws those that are compared
            found = (*found, "seed")
        return dict.fromkeys(found, "the student of guidance.student.file is made already")

    def unused(self) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason."""
        changed = changed_fields(self)
        found = {}
        if not self.enabled:
            return dict.fromkeys(changed, "guidance.student.enabled is false")
        reason = f"guidance.student.control is {self.control}"
        if self.control in WITHOUT_TARGETS:
            found |= {name: reason for name in changed if name in _OF_TARGETS}
        if self.control in _WITHOUT_START:
            found |= {name: reason for name in changed if name == "init"}
        if self.teacher in ("encoder", "labels"):
            found |= {name: reason for name in changed if name == "maps"}
        if self.teacher == "labels":  # as many outputs as there are classes
            found |= {name: reason for name in changed if name == "dim"}
        if self.model is not None and "width" not in MODELS[self.model].uses:
            reason = f"guidance.student.model is {self.model}"
            found |= {name: reason for name in changed if name == "width"}
        found |= {name: why for name, why in self._unused_once_made().items() if name in changed}
        if self.images in (BUNDLED, "public", "generated") and "data_dir" in changed:
            found["data_dir"] = f"guidance.student.images is {self.images}"
        return found
