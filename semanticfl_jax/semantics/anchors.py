"""Semantic anchors: one visual and one text vector a class, and the controls that stand for them.

Paper (arXiv 2603.19337): the server sends clients compact anchors of both modalities. `building.py`
makes them; this file says what they are, and needs no diffusion library.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.array_files import DAMAGE, read_npz
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.randomness import HostStream, host_generator


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchors of K classes, and where they come from.

    Attributes:
      visual: float32 [K, d], unit rows.
      text: float32 [K, d_text], unit rows.
      class_names: K names, in label order.
      provenance: everything that decided the arrays, as JSON values.
      maps: for each feature map, its dimensions, weight and separability, as JSON values.
      padding: zero columns at the end of `visual`, where the maps had too few components.
      samples: float16 [n, d], unit rows: features of single training images, which take the place
        of their class's visual anchor (`anchor_source` "oracle"; zero for images of no client).
        None for anchors of classes.
    """

    visual: np.ndarray
    text: np.ndarray
    class_names: tuple[str, ...]
    provenance: dict[str, Any]
    maps: dict[str, dict[str, float]]
    padding: int
    samples: np.ndarray | None = None

    @property
    def private(self) -> bool:
        """False for anchors made of the clients' own images."""
        return self.samples is None

    def require_width(self, feature_dim: int) -> None:
        """Raise SemanticFLError unless the visual anchors are as wide as the clients' features."""
        width = self.visual.shape[1]
        if width != feature_dim:
            raise SemanticFLError(
                f"guidance.dim: the visual anchors have {width} dimensions and the model's "
                f"features {feature_dim}; rebuild the anchors with guidance.dim={feature_dim}"
            )

    def require_finite(self) -> None:
        """Raise `SemanticFLError` naming the classes whose anchors are not finite numbers."""
        wrong = ~(np.isfinite(self.visual).all(1) & np.isfinite(self.text).all(1))
        names = [str(self.class_names[index]) for index in np.flatnonzero(wrong)]
        if self.samples is not None and not np.isfinite(self.samples).all():
            names.append("single images")
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise SemanticFLError(
                f"the semantic anchors of {', '.join(names[:5])}{more} are not finite numbers; "
                "make them anew, with guidance.dtype=float32, or use another guidance.checkpoint"
            )

    def save(self, path: str | Path) -> None:
        """Write one .npz without pickle; whole or not at all."""
        described = {
            "class_names": self.class_names,
            "provenance": self.provenance,
            "maps": self.maps,
            "padding": self.padding,
            "private": self.private,
        }
        arrays = {"visual": self.visual, "text": self.text, "described": json.dumps(described)}
        if self.samples is not None:
            arrays["samples"] = self.samples
        files.write(path, lambda file: np.savez(file, **arrays))

    @staticmethod
    def load(path: str | Path) -> Anchors:
        """Read what `save` wrote.

        Raises:
          SemanticFLError: if the file is not an anchors file.
        """
        try:
            file = read_npz(path)
            visual, text = file["visual"], file["text"]
            described = json.loads(file["described"].item())
            names, samples = described["class_names"], file.get("samples")
            provenance, maps = described["provenance"], described["maps"]
            padding = described["padding"]
            if not isinstance(names, list) or not isinstance(provenance, dict):
                raise SemanticFLError("class_names must be a list, and provenance an object")
            for name, array in (("visual", visual), ("text", text), ("samples", samples)):
                if array is not None and array.dtype.kind != "f":
                    raise SemanticFLError(f"{name} must be floating-point numbers")
            if samples is not None and samples.shape[1:] != visual.shape[1:]:
                raise SemanticFLError(f"samples are {samples.shape}, visual {visual.shape}")
            if not visual.ndim == text.ndim == 2 or not len(visual) == len(text) == len(names):
                raise SemanticFLError(f"{visual.shape} and {text.shape} for {len(names)} classes")
            return Anchors(visual, text, tuple(map(str, names)), provenance, maps, padding, samples)
        except FileNotFoundError:
            raise MissingFileError(f"guidance.anchors_file: {path} does not exist") from None
        except (*DAMAGE, OSError) as error:
            raise SemanticFLError(f"{path} is not an anchors file: {error}") from error


def control_anchors(anchors: Anchors, kind: str, seed: int) -> Anchors:
    """Return the anchors themselves ("semantic"), or a control of the same shapes.

    "random_orthogonal" knows nothing of the classes but keeps them apart: orthonormal rows (in
    blocks, where there are more classes than dimensions). "shuffled" keeps the geometry but gives
    every class another one's anchors, along one random cycle, so that no class keeps its own.

    Raises:
      SemanticFLError: for another kind.
    """
    rng = host_generator(seed, HostStream.ANCHORS)
    if kind == "semantic":
        return anchors
    if kind == "random_orthogonal":
        return dataclasses.replace(
            anchors,
            visual=_orthogonal_rows(rng, anchors.visual.shape),
            text=_orthogonal_rows(rng, anchors.text.shape),
        )
    if kind == "shuffled":
        cycle = rng.permutation(len(anchors.class_names))
        source = np.empty_like(cycle)
        source[cycle] = np.roll(cycle, 1)
        return dataclasses.replace(
            anchors, visual=anchors.visual[source], text=anchors.text[source]
        )
    raise SemanticFLError(f"anchors must be semantic, random_orthogonal or shuffled, got {kind!r}")


def _orthogonal_rows(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    rows, dim = shape
    blocks = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(-(-rows // dim))]
    return np.concatenate(blocks)[:rows].astype(np.float32)
