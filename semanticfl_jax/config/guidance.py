"""Configuration of semantic guidance: the anchors, and the terms they add to the loss."""

from __future__ import annotations

import dataclasses
from typing import Literal

from semanticfl_jax.config.fields import (
    Config,
    changed_fields,
    free,
    require,
    require_at_least,
    require_positive,
)

#: Fields of the terms that guidance adds to the loss; the others are of the anchors.
_TERMS = ("kd", "lambda_kd", "lambda_con", "temperature_kd", "temperature_con")


@dataclasses.dataclass(frozen=True)
class GuidanceConfig(Config):
    """Semantic guidance: the anchors, and the terms they add to the clients' loss."""

    enabled: bool = False
    #: "tiny-sd" (bundled), a diffusers-layout directory, or a hub id.
    checkpoint: str = "tiny-sd"
    #: Of a hub id: branch, tag or commit; where downloads are kept; whether to look there only.
    revision: str | None = None
    cache_dir: str | None = free(None)
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
    anchor_dir: str | None = None
    #: Images a class, steps and guidance scale of DDIM (anchor_source = "generated").
    generated_per_class: int = 20
    generation_steps: int = 20
    generation_scale: float = 7.5
    #: "semantic", or a control: random orthogonal anchors, or the class names permuted.
    anchors: Literal["semantic", "random_orthogonal", "shuffled"] = "semantic"
    #: Anchors made earlier; by default they are built into the run's directory.
    anchors_file: str | None = free(None)
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
    #: Chosen by measurement (docs/results); the paper's weight is 0.01 (launch/configs/paper.py).
    lambda_con: float = 1.0
    #: Temperature of the distillation's two softmaxes (kd = "kl").
    temperature_kd: float = 1.0
    #: Temperature tau of the cross-modal InfoNCE.
    temperature_con: float = 0.05

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, or that contradict one another."""
        require(self.prompt.count("{}") == 1, "prompt", "a text with one {}", self.prompt)
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

    def unused(self, uses_anchors: bool) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason.

        Args:
          uses_anchors: whether the run has anchors, for guidance or as an algorithm's features.
        """
        changed = [name for name in changed_fields(self) if name != "enabled"]
        if not uses_anchors:
            return dict.fromkeys(changed, "guidance.enabled is false")
        found: dict[str, str] = {}
        if not self.enabled:
            reason = "guidance.enabled is false"
            found = {name: reason for name in changed if name in _TERMS}
        if self.anchor_source != "generated":
            reason = f"guidance.anchor_source is {self.anchor_source}"
            found |= {name: reason for name in changed if name.startswith("generat")}
        return found
