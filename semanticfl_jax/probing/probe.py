"""Do the features mean something? Simple classifiers on every feature of a frozen checkpoint.

Beside raw pixels and the same network with random weights, over seeds that draw images, noise and
random weights anew. AMDA's aggregate is fitted on the training part alone, and assessed as anchors
use it; "AMDA, whitened" has its columns standardised as those of the other features are. [ours]
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from semanticfl_jax.config import ExperimentConfig, require
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.diffusion.features import available_maps, default_maps
from semanticfl_jax.diffusion.fingerprint import fingerprint
from semanticfl_jax.diffusion.stable_diffusion import load
from semanticfl_jax.probing.classifiers import NEIGHBOURS, Split, assess, check_counts
from semanticfl_jax.probing.features import NETWORKS, cached_features
from semanticfl_jax.semantics.aggregation import fit_amda
from semanticfl_jax.semantics.building import checkpoint_directory, compute_dtype
from semanticfl_jax.types import Say

PIXELS = "raw pixels"
#: Rows for the aggregate: (weighting, whether its columns are standardised).
AMDA = {
    "AMDA, adaptive": ("adaptive", False),
    "AMDA, uniform": ("uniform", False),
    "AMDA, whitened": ("adaptive", True),
}


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """How much a probe looks at; with fewer images in a data set it takes all."""

    train_images: int = 5000
    test_images: int = 2000
    #: Each draws images, noise and random weights of its own.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        for name in ("train_images", "test_images"):
            require(getattr(self, name) >= 50, name, "at least 50", getattr(self, name))
        distinct = len(set(self.seeds)) == len(self.seeds) > 0 and min(self.seeds) >= 0
        require(distinct, "seeds", "distinct numbers from 0, at least one", self.seeds)


def assess_network(
    features: Mapping[str, np.ndarray],
    shown: Sequence[str],
    aggregated: Sequence[str],
    dim: int,
    budgets: Sequence[int],
    split: Split,
    progress: str = "",
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return the figures of each of a network's features and of their aggregates.

    Args:
      features: {name: float32 [n + m, d]}, the training part first.
      shown: which of them are assessed alone.
      aggregated: which of them AMDA joins; it is fitted on the training part alone.
      dim: of the aggregate.
      budgets: of each map in it; empty for even ones.
      split: labels of both parts.
      progress: what the progress bar is called; empty for none.

    Returns:
      {feature: figures as of `assess`}, and the adaptive weights {map: weight}.
    """
    bar = tqdm(total=len(shown) + len(AMDA), desc=progress, unit="feature", disable=not progress)
    found = {}
    for name in shown:
        found[name] = assess(features[name], split)
        bar.update()
    joined = {name: features[name] for name in aggregated}
    count = len(split.train_labels)
    weights = {}
    for name, (weighting, by_column) in AMDA.items():
        train = {key: x[:count] for key, x in joined.items()}
        amda = fit_amda(train, split.train_labels, dim, weighting, budgets)
        found[name] = assess(amda.transform(joined), split, by_column=by_column)
        bar.update()
        if weighting == "adaptive":
            weights = {key: p.weight for key, p in amda.projections.items()}
    bar.close()
    return found, weights


def draw(dataset: ImageDataset, config: ProbeConfig, seed: int) -> tuple[np.ndarray, Split]:
    """Draw images uint8 [n + m, H, W, 3], n of train and m of test, and their labels."""
    rng = np.random.default_rng([seed, 0x9120BE])
    images, labels = [], {}
    for split, pixels, truth, count in (
        ("train", dataset.train_images, dataset.train_labels, config.train_images),
        ("test", dataset.test_images, dataset.test_labels, config.test_images),
    ):
        rows = np.sort(rng.permutation(len(truth))[:count])
        images.append(np.asarray(pixels[rows]))
        labels[split] = np.asarray(truth[rows])
    return np.concatenate(images), Split(labels["train"], labels["test"], seed)


def probe(
    dataset: ImageDataset,
    config: ExperimentConfig,
    settings: ProbeConfig,
    directory: Path,
    say: Say = print,
) -> dict[str, Any]:
    """Probe a checkpoint on a data set (what, and how: see the module's docstring).

    Args:
      dataset: what to draw images of.
      config: its `guidance` names checkpoint, precision, resolution, time step, what AMDA joins.
      settings: how many images, which seeds.
      directory: features are kept in its `features/`.
      say: takes lines for the user.

    Returns:
      Settings, and under "figures" {network: {feature: {figure: [one a seed]}}}; JSON values.
    """
    began = time.perf_counter()
    guidance = config.guidance
    checkpoint = checkpoint_directory(guidance)
    sha256, dtype = fingerprint(checkpoint), compute_dtype(guidance)
    sd = load(checkpoint, dtype=dtype)
    maps, of_unet = available_maps(sd), sd.available_maps
    aggregated = tuple(guidance.maps or default_maps(sd))
    unknown = [name for name in aggregated if name not in maps]
    require(not unknown, "guidance.maps", f"among {', '.join(maps)}", unknown)
    dim = guidance.dim or 512
    figures: dict[str, dict[str, list]] = {network: {} for network in NETWORKS}
    weights: dict[str, list] = {network: [] for network in NETWORKS}
    for seed in settings.seeds:  # all, before hours of work on the first
        check_counts(draw(dataset, settings, seed)[1], "train_images")
    for seed in settings.seeds:
        images, split = draw(dataset, settings, seed)
        for network in NETWORKS:
            features = cached_features(
                sd,
                network,
                images,
                directory / "features",
                checkpoint_sha256=sha256,
                config=guidance,
                maps=maps,
                seed=seed,
                say=say,
            )
            # What lies before a random U-Net is as in the trained network.
            shown = [name for name in features if network != "random U-Net" or name in of_unet]
            if network == "trained":
                features = {PIXELS: images.reshape(len(images), -1), **features}
                shown.insert(0, PIXELS)
            found, weight = assess_network(
                features,
                shown,
                aggregated,
                dim,
                guidance.budgets,
                split,
                f"{network}, seed {seed}",
            )
            weights[network].append(weight)
            for name, each in found.items():
                figures[network].setdefault(name, []).append(each)
    return {
        "dataset": dataset.name,
        "checkpoint": guidance.checkpoint,
        "checkpoint_sha256": sha256,
        "dtype": dtype,
        "resolution": guidance.resolution or sd.image_size,
        "timestep": guidance.timestep,
        "prompt": "",
        "train_images": len(split.train_labels),
        "test_images": len(split.test_labels),
        "seeds": list(settings.seeds),
        "neighbours": NEIGHBOURS,
        "amda": {"maps": list(aggregated), "dim": dim, "adaptive_weights": weights},
        "random_components": {name: list(parts) for name, parts in NETWORKS.items()},
        "figures": {
            network: {
                name: {key: [each[key] for each in seeds] for key in seeds[0]}
                for name, seeds in rows.items()
            }
            for network, rows in figures.items()
        },
        "seconds": time.perf_counter() - began,
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "versions": versions(),
    }
