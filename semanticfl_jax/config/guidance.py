"""Configuration of semantic guidance: the anchors, the student, and their terms of the loss."""

from __future__ import annotations

import dataclasses
import re
import string
from typing import Literal

from semanticfl_jax.config.fields import (
    FREE,
    Config,
    changed_fields,
    free,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.config.student import StudentConfig
from semanticfl_jax.config.values import PathOrName, PathText

#: Fields of the terms that anchors add to the loss.
_TERMS = ("kd", "visual_head", "lambda_kd", "lambda_con", "temperature_kd", "temperature_con")
#: Fields that decide which terms there are, and what each term takes besides.
_OF_WEIGHTS = {
    "lambda_kd": ("kd", "visual_head", "temperature_kd"),
    "lambda_con": ("temperature_con",),
}
_WEIGHTS = tuple(_OF_WEIGHTS)
#: Fields of the diffusion model, which the student is distilled from, too.
_TEACHER = (
    "checkpoint",
    "revision",
    "cache_dir",
    "offline",
    "dtype",
    "resolution",
    "diffusion_batch_size",
    "timestep",
)
_GENERATION = ("generated_per_class", "generation_steps", "generation_scale")


def is_prompt(text: str) -> bool:
    """Return whether a text has one {}, for the name of a class, and no other field."""
    return _fields(text) == [""]


def is_hub_id(checkpoint: str) -> bool:
    """Return whether a checkpoint's name may be a hub id, owner/name, whatever lies on disk."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", checkpoint) is not None


@dataclasses.dataclass(frozen=True)
class GuidanceConfig(Config):
    """Semantic guidance: anchors of classes, and a student that speaks of single images."""

    #: Whether clients are guided, whatever the algorithm; semanticfl is.
    enabled: bool = False
    #: "tiny-sd" (bundled), a diffusers-layout directory, or a hub id.
    checkpoint: PathOrName = "tiny-sd"
    #: Branch, tag or commit of a hub id.
    revision: str | None = None
    #: Where downloads of the hub are kept; none: the hub's own cache.
    cache_dir: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: Whether to look there only, and download nothing.
    offline: bool = free(False)
    #: Precision of the diffusion model; "auto": bfloat16 on accelerators, float32 on CPU.
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    #: Side in pixels that images are resized to; 0: the checkpoint's own.
    resolution: int = 0
    #: Images at once through the diffusion model, over all devices; 0 chooses by the resolution.
    diffusion_batch_size: int = free(0)
    #: Which images the visual anchors are made of: the server's public split, images drawn by the
    #: checkpoint itself, a directory with a folder a class, or the clients' own (not private).
    anchor_source: Literal["public", "generated", "directory", "oracle"] = "public"
    #: Folder of class-named folders of images (anchor_source = "directory").
    anchor_dir: PathText | None = None
    #: Images drawn for each class (anchor_source = "generated").
    generated_per_class: int = 20
    #: Steps of DDIM for each of them.
    generation_steps: int = 20
    #: Scale of classifier-free guidance with which they are drawn.
    generation_scale: float = 7.5
    #: "semantic", or a control: random orthogonal anchors, or the class names permuted.
    anchors: Literal["semantic", "random_orthogonal", "shuffled"] = "semantic"
    #: Anchors made earlier; by default they are built into the run's directory.
    anchors_file: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: What the text tower reads; {} is the name of the class.
    prompt: str = "a photo of a {}"
    #: Diffusion step, of 1000, at which features are taken.
    timestep: int = 150
    #: Feature maps; empty: those of vae, mid, up_1, up_2, up_3 that the checkpoint has.
    maps: tuple[str, ...] = ()
    #: Weights of the maps: "adaptive" by how well each separates the classes, "uniform"; or a
    #: "single" map.
    aggregation: Literal["adaptive", "uniform", "single"] = "adaptive"
    #: Dimensions of each of `maps`, summing to `dim`; empty: as even as their channels allow.
    budgets: tuple[int, ...] = ()
    #: Visual anchor dimensions; 0: the model's feature width (512 for ResNet-10 of width 64).
    dim: int = 0
    #: Form of the distillation: the paper's KL divergence, or a distance of ours.
    kd: Literal["kl", "l2", "cosine"] = "kl"
    #: Whether the distillation compares the features themselves, as the paper does, or a linear map
    #: of them: visual anchors have negative entries, which features after a ReLU cannot reach.
    visual_head: Literal["linear", "none"] = "linear"
    #: Weight of the distillation from the visual anchors.
    lambda_kd: float = 1.0
    #: Weight of the contrast with the text anchors, chosen by measurement (docs/results); the
    #: paper's is 0.01 (launch/configs/paper.py).
    lambda_con: float = 1.0
    #: Temperature of the distillation's two softmaxes (kd = "kl").
    temperature_kd: float = 1.0
    #: Temperature tau of the cross-modal InfoNCE.
    temperature_con: float = 0.05
    student: StudentConfig = dataclasses.field(default_factory=StudentConfig)

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, or that contradict one another."""
        require(
            is_prompt(self.prompt),
            "prompt",
            "a text with one {}, for the class, and no other braces (write {{ for a brace)",
            self.prompt,
        )
        require(0 <= self.timestep < 1000, "timestep", "from 0 to 999", self.timestep)
        require_at_least(self, 0, "dim", "resolution", "diffusion_batch_size")
        require_at_least(self, 1, "generated_per_class", "generation_steps")
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
        require_at_least(self, 0, "lambda_kd", "lambda_con")
        require_positive(self, "temperature_kd", "temperature_con")
        if self.uses_student and self.student.is_bundled:
            for name in changed_fields(self):
                require(
                    name not in ("checkpoint", "timestep", "resolution"),
                    "student.images",
                    f"public, directory, generated or dataset:NAME when {name} is given: the "
                    "bundled student is tiny-sd's, and made already",
                    self.student.images,
                )

    @property
    def uses_student(self) -> bool:
        """Whether the run has a student."""
        return self.enabled and self.student.enabled

    @property
    def has_class_terms(self) -> bool:
        """Whether guidance needs anchors of classes; a student makes do without them."""
        return not self.student.enabled or any(getattr(self, name) > 0 for name in _WEIGHTS)

    def _unused_without_diffusion(self) -> tuple[str, ...]:
        """Return the diffusion model's fields that a teacher of another kind does not look at."""
        found: tuple[str, ...] = ("timestep",)
        if self.student.images != "generated":
            found += ("checkpoint", "revision", "dtype", "diffusion_batch_size")
        if self.student.images != "directory":  # whose images are brought to that side
            found += ("resolution",)
        return found

    def unused(self, uses_anchors: bool) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason.

        Args:
          uses_anchors: whether the run has anchors, for guidance or as an algorithm's features.
        """
        changed = [name for name in changed_fields(self) if name not in ("enabled", "student")]
        found: dict[str, str] = {}
        if not self.enabled:
            reason = "guidance.enabled is false"
            changed_terms = changed if not uses_anchors else [n for n in changed if n in _TERMS]
            found |= dict.fromkeys(changed_terms, reason)
            students = changed_fields(self.student)
            found |= {f"student.{name}": reason for name in students}
        else:
            found |= {f"student.{name}": why for name, why in self.student.unused().items()}
        if self.enabled and uses_anchors:
            for weight, fields in _OF_WEIGHTS.items():
                if getattr(self, weight) == 0:
                    reason = f"guidance.{weight} is 0"
                    found |= {name: reason for name in changed if name in fields}
            if self.kd != "kl" and "temperature_kd" in changed:
                found["temperature_kd"] = f"guidance.kd is {self.kd}"
        if self.enabled and not uses_anchors:
            used = {*_TEACHER, *_GENERATION, *_WEIGHTS}
            used |= {"prompt"} if self.student.images == "generated" else set()
            reason = "guidance.lambda_kd and guidance.lambda_con are 0"
            found |= {name: reason for name in changed if name not in used}
            if self.uses_student and self.student.is_bundled:
                reason = "the bundled student is made already"
                found |= {name: reason for name in changed if name in ("revision", "dtype")}
            elif self.uses_student and self.student.teacher in ("encoder", "labels"):
                reason = f"guidance.student.control is {self.student.control}"
                unseen = self._unused_without_diffusion()
                found |= {name: reason for name in changed if name in unseen}
        if "revision" in changed and not is_hub_id(self.checkpoint):
            found.setdefault("revision", f"guidance.checkpoint is {self.checkpoint}, no hub id")
        sources: list[str] = [self.anchor_source] if uses_anchors else []
        sources += [self.student.images] if self.uses_student else []
        if sources and "generated" not in sources:
            reason = "guidance.anchor_source" if uses_anchors else "guidance.student.images"
            reason += f" is {sources[0]}"
            found |= {name: reason for name in changed if name in _GENERATION}
        return found


def _fields(prompt: str) -> list[str] | None:
    """Return the fields that a text has for `str.format`, "" for {}; None if it is no such text."""
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError:
        return None
    return [
        f"{name}{'!' + how if how else ''}{':' + form if form else ''}"
        for _, name, form, how in parts
        if name is not None
    ]
