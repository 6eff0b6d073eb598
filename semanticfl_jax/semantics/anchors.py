"""Semantic anchors: one visual and one text vector a class, made once by the server.

Paper (arXiv 2603.19337): VAE latents, noise to t = 150, hierarchical U-Net features, pooled and
reduced to 512 dimensions; the text embedding of "a photo of a {class}". Ours: the class mean of
the aggregated features as visual anchor, and a public split held by the server as anchor images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.config import GuidanceConfig, to_dict
from semanticfl_jax.diffusion.fingerprint import fingerprint, resolve_checkpoint
from semanticfl_jax.semantics.aggregation import fit_amda, unit_rows

# Fields of GuidanceConfig that decide what the anchors are.
_DECISIVE = ("checkpoint", "prompt", "timestep", "maps", "aggregation")


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchors of K classes, and where they come from.

    Attributes:
      visual: float32 [K, d], unit rows.
      text: float32 [K, d_text], unit rows.
      class_names: K names, in label order.
      provenance: everything that decided the two arrays, as JSON values.
      maps: for each feature map, its dimensions, weight and separability, as JSON values.
      padding: zero columns at the end of `visual`, where the maps had too few components.
    """

    visual: np.ndarray
    text: np.ndarray
    class_names: tuple[str, ...]
    provenance: dict[str, Any]
    maps: dict[str, dict[str, float]]
    padding: int

    def save(self, path: str | Path) -> None:
        """Writes one .npz without pickle; whole or not at all."""
        described = {
            "class_names": self.class_names,
            "provenance": self.provenance,
            "maps": self.maps,
            "padding": self.padding,
        }
        arrays = {"visual": self.visual, "text": self.text, "described": json.dumps(described)}
        files.write(path, lambda file: np.savez(file, **arrays))

    @staticmethod
    def load(path: str | Path) -> Anchors:
        """Reads what `save` wrote.

        Raises:
          ValueError: if the file is not an anchors file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                visual, text = file["visual"], file["text"]
                described = json.loads(file["described"].item())
            names = tuple(described["class_names"])
            provenance, maps = described["provenance"], described["maps"]
            return Anchors(visual, text, names, provenance, maps, described["padding"])
        except FileNotFoundError:
            raise FileNotFoundError(f"guidance.anchors_file: {path} does not exist") from None
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not an anchors file: {error}") from error


def expected_provenance(
    config: GuidanceConfig,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    dim: int,
    seed: int,
) -> dict[str, Any]:
    """What decides the anchors of these inputs; needs no diffusion model.

    The checkpoint and the anchor images enter by the hash of their contents.
    """
    settings = {name: value for name, value in to_dict(config).items() if name in _DECISIVE}
    content = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    content.update(np.asarray(labels, np.int32).tobytes())
    return {
        **settings,
        "checkpoint_sha256": fingerprint(resolve_checkpoint(config.checkpoint)),
        "anchor_source": "public",
        "anchor_images": len(images),
        "anchor_images_sha256": content.hexdigest(),
        "class_names": list(class_names),
        "dim": dim,
        "seed": seed,
    }


def check_provenance(found: dict[str, Any], expected: dict[str, Any], path: str | Path) -> None:
    """Raises ValueError, naming the fields, unless the anchors in `path` are those expected."""
    names = sorted(found.keys() | expected.keys())
    different = [name for name in names if found.get(name) != expected.get(name)]
    if different:
        listed = "; ".join(f"{n}: {found.get(n)!r} != {expected.get(n)!r}" for n in different)
        raise ValueError(
            f"anchors in {path} were made differently from what is asked (file != asked): {listed}"
        )


def build_anchors(
    config: GuidanceConfig,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    dim: int,
    seed: int,
) -> Anchors:
    """Runs the diffusion model over the anchor images (method: see the module's docstring).

    Args:
      config: checkpoint, prompt, time step, maps and their aggregation.
      images: uint8 [n, H, W, 3], at least one of every class.
      labels: int [n].
      class_names: K names, in label order.
      dim: width of the visual anchors.
      seed: of the diffusion noise.
    """
    # Here alone: training from saved anchors must not import the diffusion libraries.
    from semanticfl_jax.diffusion.features import default_maps, extract_features
    from semanticfl_jax.diffusion.stable_diffusion import load

    provenance = expected_provenance(config, images, labels, class_names, dim=dim, seed=seed)
    model = load(resolve_checkpoint(config.checkpoint))
    token_states, pooled = model.text([config.prompt.format(name) for name in class_names])
    features = extract_features(
        model,
        images,
        token_states,
        labels,
        maps=config.maps or default_maps(model),
        timestep=config.timestep,
        seed=seed,
    )
    amda = fit_amda(features, labels, dim, config.aggregation)
    aggregated = amda.transform(features)
    means = [aggregated[labels == label].mean(axis=0) for label in range(len(class_names))]
    maps = {
        name: {
            "dimensions": projection.components.shape[1],
            "weight": projection.weight,
            "separability": projection.separability,
        }
        for name, projection in amda.projections.items()
    }
    return Anchors(
        visual=unit_rows(np.stack(means)).astype(np.float32),
        text=unit_rows(np.asarray(pooled)).astype(np.float32),
        class_names=tuple(class_names),
        provenance=provenance,
        maps=maps,
        padding=amda.padding,
    )


def obtain_anchors(
    config: GuidanceConfig,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    dim: int,
    seed: int,
    path: Path,
    say: Callable[[str], None] = print,
) -> Anchors:
    """The anchors in `path` if they are there and right, else built, and saved there.

    With `config.anchors_file` that file is read instead, and never written.

    Raises:
      ValueError: if the file holds anchors made of other inputs.
      FileNotFoundError: if `config.anchors_file` does not exist.
    """
    given = config.anchors_file is not None
    path = Path(config.anchors_file) if given else path
    if given or path.exists():
        anchors = Anchors.load(path)
        expected = expected_provenance(config, images, labels, class_names, dim=dim, seed=seed)
        check_provenance(anchors.provenance, expected, path)
        say(f"anchors from {path}")
        return anchors
    say(f"building semantic anchors from {len(images)} public images with {config.checkpoint}")
    anchors = build_anchors(config, images, labels, class_names, dim=dim, seed=seed)
    anchors.save(path)
    used = ", ".join(f"{name} {m['weight']:.2f}" for name, m in anchors.maps.items())
    padded = f"; {anchors.padding} of {dim} dimensions are zero padding" if anchors.padding else ""
    say(f"wrote {path}; map weights: {used}{padded}")
    return anchors


def control_anchors(anchors: Anchors, kind: str, seed: int) -> Anchors:
    """The anchors themselves ("semantic"), or a control of the same shapes.

    "random_orthogonal" knows nothing of the classes but keeps them apart: orthonormal rows (in
    blocks, where there are more classes than dimensions). "shuffled" keeps the geometry but gives
    every class another one's anchors, along one random cycle, so that no class keeps its own.
    """
    rng = np.random.default_rng([seed, 0x5EED])
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
    raise ValueError(f"anchors must be semantic, random_orthogonal or shuffled, got {kind!r}")


def _orthogonal_rows(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    rows, dim = shape
    blocks = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(-(-rows // dim))]
    return np.concatenate(blocks)[:rows].astype(np.float32)
