"""AMDA: adaptive multimodal diffusion aggregation of feature maps into one vector an image.

Paper (arXiv 2603.19337): global average pooling of features of several depths, and PCA to 512
dimensions. Ours, where it is silent: each map is standardised, projected to its share of the
dimensions, scaled to unit root-mean-square length so that no map counts more for being wide, and
weighted by the softmax over maps of its class separability.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from semanticfl_jax.errors import SemanticFLError

WEIGHTINGS = ("adaptive", "uniform", "single")


@dataclasses.dataclass(frozen=True)
class MapProjection:
    """How one pooled feature map enters the aggregate.

    Attributes:
      mean, std: float32 [c], of the images it was fitted on.
      components: float32 [c, k], orthonormal columns, the leading principal axes; k may be 0.
      scale: brings the projected map to unit root-mean-square length.
      weight: the map's weight, after the softmax.
      separability: trace of between-class over within-class scatter of the standardised map.
    """

    mean: np.ndarray
    std: np.ndarray
    components: np.ndarray
    scale: float
    weight: float
    separability: float


@dataclasses.dataclass(frozen=True)
class Amda:
    """A fitted aggregation: `transform` maps pooled features to [n, dim], rows of unit length.

    `padding` of the `dim` columns are zero, at the end: PCA of n images has at most n - 1
    components, and a map no more than its channels.
    """

    projections: dict[str, MapProjection]
    dim: int

    @property
    def padding(self) -> int:
        """How many of the dimensions are zero for want of components."""
        return self.dim - sum(p.components.shape[1] for p in self.projections.values())

    def transform(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Aggregate pooled maps {name: float32 [n, c]} into float32 [n, dim]."""
        blocks = [
            ((features[name] - p.mean[None]) / p.std[None]) @ p.components * (p.scale * p.weight)
            for name, p in self.projections.items()
        ]
        joined = np.concatenate(blocks, axis=1)
        padded = np.pad(joined, ((0, 0), (0, self.dim - joined.shape[1])))
        return unit_rows(padded).astype(np.float32)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scale rows to length one; a zero row stays zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)


def separability(features: np.ndarray, labels: np.ndarray) -> float:
    """Trace of between-class over within-class scatter of features [n, c] with labels [n]."""
    center = features.mean(axis=0)
    between = within = 0.0
    for label in np.unique(labels):
        members = features[labels == label]
        mean = members.mean(axis=0)
        between += len(members) * float(np.sum((mean - center) ** 2))
        within += float(np.sum((members - mean[None]) ** 2))
    return between / within if within > 0 else float("inf") if between > 0 else 0.0


def share_dimensions(capacities: list[int], dim: int) -> list[int]:
    """Split `dim` over maps as evenly as their capacities allow (our choice).

    What a small map cannot use goes to the others; the sum is min(dim, sum of capacities).
    """
    shares = [0] * len(capacities)
    left = min(dim, sum(capacities))
    while left > 0:
        open_maps = [i for i, c in enumerate(capacities) if shares[i] < c]
        even = max(left // len(open_maps), 1)
        for i in open_maps:
            take = min(even, capacities[i] - shares[i], left)
            shares[i] += take
            left -= take
    return shares


def fit_amda(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    dim: int,
    weighting: str = "adaptive",
    budgets: Sequence[int] = (),
) -> Amda:
    """Fit the aggregation on anchor images.

    Args:
      features: pooled maps {name: float32 [n, c]}, in the order they are concatenated.
      labels: int [n].
      dim: width of the aggregate; 512 in the paper.
      weighting: "adaptive", "uniform", or "single" (one map, alone).
      budgets: dimensions of each map, summing to `dim`; by default `share_dimensions`. What a map
        cannot use of its budget is left as zero padding.

    Raises:
      SemanticFLError: for no maps, fewer than two images, another weighting, "single" with several,
        or budgets that are not one a map or sum to something else.
    """
    if budgets and (len(budgets) != len(features) or sum(budgets) != dim):
        raise SemanticFLError(
            f"budgets must be {len(features)} numbers, one a map, that sum to dim = {dim}, got "
            f"{', '.join(map(str, budgets))}"
        )
    if weighting not in WEIGHTINGS:
        raise SemanticFLError(
            f"aggregation must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}"
        )
    if not features or (weighting == "single" and len(features) != 1):
        raise SemanticFLError(f"aggregation {weighting!r} cannot use {len(features)} feature maps")
    count = len(labels)
    if count < 2:
        raise SemanticFLError(f"AMDA needs at least 2 anchor images, got {count}")
    standardised, statistics = {}, {}
    for name, x in features.items():
        x = np.asarray(x, np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0)
        std = np.where(std > 1e-8, std, 1.0)
        standardised[name] = (x - mean[None]) / std[None]
        statistics[name] = (mean.astype(np.float32), std.astype(np.float32))
    scores = np.array([separability(x, labels) for x in standardised.values()])
    weights = _softmax(scores) if weighting == "adaptive" else np.full(len(scores), 1 / len(scores))
    capacities = [min(count - 1, x.shape[1]) for x in standardised.values()]
    if budgets:
        shares = [min(pair) for pair in zip(budgets, capacities, strict=True)]
    else:
        shares = share_dimensions(capacities, dim)
    projections = {}
    for (name, x), share, weight, score in zip(
        standardised.items(), shares, weights, scores, strict=True
    ):
        axes = np.linalg.svd(x, full_matrices=False)[2][:share].T
        # The sign of a principal axis is arbitrary; fix it so that anchors are reproducible.
        axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(share)])[None]
        length = np.sqrt(np.mean(np.sum((x @ axes) ** 2, axis=1)))
        projections[name] = MapProjection(
            *statistics[name],
            components=axes.astype(np.float32),
            scale=float(1.0 / length) if length > 0 else 1.0,
            weight=float(weight),
            separability=float(score),
        )
    return Amda(projections, dim)


def _softmax(x: np.ndarray) -> np.ndarray:
    # A map that separates the classes perfectly has an infinite score: it takes all the weight.
    x = np.minimum(x, np.finfo(np.float32).max)
    e = np.exp(x - x.max())
    return e / e.sum()
