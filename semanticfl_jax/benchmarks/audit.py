"""What an attacker learns of who took part: an audit of a run's privacy by canary clients.

Steinke, Nasr, Jagielski. "Privacy Auditing with One (1) Training Run". NeurIPS 2023.

    m canaries are added, each of which takes part with probability 1/2; whoever has the final model
    scores them, and says of the r of highest score that they did. Had the run been (epsilon, delta)
    -differentially private, that many right answers would be less likely than 5 % for every epsilon
    below the bound.

The unit is a client, as in the guarantee. A canary's one image is dark but for a pixel that no
other client has lit (its Dirac canaries, in the clients' data): with a network of one layer its
updates go where nobody else's go, so that little but the noise of privacy hides them. The score is
by how much the model prefers its label on that image, compared with a dark one. All clients take
part in every round: nothing is left to sampling, and the accountant's bound is tight for one that
sees all rounds; the final model alone tells somewhat less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.config import AggregationConfig, ExperimentConfig, PrivacyConfig, require
from semanticfl_jax.data.federation import deal
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.randomness import HostStream, host_generator
from semanticfl_jax.reporting import markdown
from semanticfl_jax.reporting.spread import mean_and_spread
from semanticfl_jax.simulation.experiment import run

#: Probability that a bound is too high.
SIGNIFICANCE = 0.05
#: Standard deviation that images are divided by: of the digits, about, with dark pixels at zero.
_STD = 0.2


@dataclasses.dataclass(frozen=True)
class Canaries:
    """A federation with canaries, and who they are.

    Attributes:
      dataset: images with rows of dark pixels below, in which the canaries have theirs.
      partition: honest clients first; a canary that does not take part has no image.
      images: uint8 [m, H, W, 3], the canaries'.
      labels: int [m].
      included: bool [m], who takes part.
    """

    dataset: ImageDataset
    partition: Partition
    images: np.ndarray
    labels: np.ndarray
    included: np.ndarray


def plant(dataset: ImageDataset, config: ExperimentConfig, count: int) -> Canaries:
    """Add canaries to a data set.

    Args:
      dataset: the honest clients' images.
      config: of the honest clients: partition and seed.
      count: m.

    Raises:
      ConfigError: for a setting that would move pixels, or that needs a public split, or for inputs
        that are no images.
    """
    require(dataset.has_images, "dataset", "one of images in an audit", dataset.name)
    require(not config.augmentation, "augmentation", "none in an audit", config.augmentation)
    require(config.public_per_class == 0, "public_per_class", "0 here", config.public_per_class)
    rng = host_generator(config.seed, HostStream.CANARIES)
    included = rng.random(count) < 0.5
    labels = rng.integers(dataset.num_classes, size=count)
    height, width = dataset.train_images.shape[1:3]
    rows = -(-count // width)
    images = np.zeros((count, height + rows, width, 3), np.uint8)
    numbers = np.arange(count)
    images[numbers, height + numbers // width, numbers % width] = 255

    def taller(images: np.ndarray) -> np.ndarray:
        return np.pad(images, ((0, 0), (0, rows), (0, 0), (0, 0)))

    planted = ImageDataset.from_arrays(
        np.concatenate([taller(dataset.train_images), images]),
        np.concatenate([dataset.train_labels, labels]),
        taller(dataset.test_images),
        dataset.test_labels,
        dataset.class_names,
        name=f"{dataset.name} with canaries",
        mean=(0.0, 0.0, 0.0),  # dark pixels are zero, and teach nothing
        std=(_STD,) * 3,
    )
    _, honest = deal(dataset, config)
    indices = np.concatenate([honest.indices, len(dataset.train_labels) + np.flatnonzero(included)])
    offsets = np.concatenate([honest.offsets, honest.offsets[-1] + np.cumsum(included)])
    return Canaries(planted, Partition(indices, offsets), images, labels, included)


def audit(
    dataset: ImageDataset,
    config: ExperimentConfig,
    count: int,
    noise: float,
    workdir: str | Path | None = None,
) -> dict[str, Any]:
    """Train a run with canaries, and say how well they are told apart.

    Args:
      dataset: the honest clients' images.
      config: of the honest clients; with central privacy, whose noise is replaced.
      count: m.
      noise: the noise multiplier; 0 for the same run without privacy, whose updates are clipped
        all the same.
      workdir: of the run; None writes nothing.

    Returns:
      `noise_multiplier`; `epsilon_upper`, the accountant's, None without noise; `epsilon_lower`,
      with 95 % confidence; `auc` and `correct`, the share of right ones among the guesses;
      `canaries`, `included`, `guesses`, `delta` and `accuracy`.

    Raises:
      ConfigError: for another mechanism, or what `plant` refuses.
      MissingDependencyError: without jax-privacy.
    """
    with optional_imports("privacy", "an audit"):
        from jax_privacy import auditing
    name = config.privacy.name
    require(name == "central", "privacy.name", "central in an audit", name)
    stands_for = config.privacy.population
    require(stands_for == 0, "privacy.population", "0 in an audit: it attacks this run", stands_for)
    planted = plant(dataset, config, count)
    everyone = config.num_clients + count
    changes: dict[str, Any] = {"num_clients": everyone, "clients_per_round": everyone}
    if noise > 0:
        changes["privacy"] = dataclasses.replace(config.privacy, noise_multiplier=noise)
    else:
        norm = {"max_norm": config.privacy.settings.clip}
        changes["privacy"] = PrivacyConfig()
        changes["aggregation"] = AggregationConfig(transforms=("clip",), settings={"clip": norm})
        changes["algorithm"] = dataclasses.replace(config.algorithm, weights="uniform")
    result = run(
        dataclasses.replace(config, **changes),
        workdir,
        dataset=planted.dataset,
        partition=planted.partition,
        progress=False,
        say=None,
    )
    scores = score(result.logits, planted)
    guesses = count // 4
    least = np.sort(scores)[-guesses]
    guessed = scores >= least
    auditor = auditing.CanaryScoreAuditor(scores[planted.included], scores[~planted.included])
    lower = auditor.epsilon_one_run(
        SIGNIFICANCE, config.privacy.delta, threshold_strategy=auditing.Explicit(float(least))
    )
    return {
        "noise_multiplier": noise,
        "epsilon_upper": result.summary["privacy"].get("epsilon"),
        "epsilon_lower": float(lower),
        "auc": float(auditor.attack_auroc()),
        "correct": float(np.mean(planted.included[guessed])),
        "canaries": count,
        "included": int(planted.included.sum()),
        "guesses": int(guessed.sum()),
        "delta": config.privacy.delta,
        "accuracy": result.summary["final_accuracy"],
    }


def score(logits: Callable[[np.ndarray], np.ndarray], canaries: Canaries) -> np.ndarray:
    """Return how much a model prefers each canary's label, float64 [m].

    Args:
      logits: images uint8 [n, H, W, 3] -> float32 [n, K].
      canaries: their images and labels.
    """
    dark = np.asarray(logits(np.zeros_like(canaries.images[:1])), np.float64)
    found = np.asarray(logits(canaries.images), np.float64) - dark
    own = found[np.arange(len(found)), canaries.labels]
    return own - found.mean(axis=1)


def table(rows: dict[float, list[dict[str, Any]]]) -> str:
    """Return audits as Markdown.

    Args:
      rows: by noise multiplier, an audit a seed.
    """
    head = ["noise multiplier", "epsilon at most", "epsilon at least", "right guesses %", "AUC"]
    lines = [[*head, "accuracy %"], ["---:"] * (len(head) + 1)]
    for noise, found in rows.items():
        upper = found[0]["epsilon_upper"]
        lines.append(
            [
                f"{noise:g}",
                "no bound" if upper is None else f"{upper:.3g}",
                mean_and_spread([each["epsilon_lower"] for each in found], ".2f"),
                mean_and_spread([each["correct"] for each in found], ".1f", 100),
                mean_and_spread([each["auc"] for each in found], ".3f"),
                mean_and_spread([each["accuracy"] for each in found], ".1f", 100),
            ]
        )
    return "\n".join(map(markdown.row, lines))
