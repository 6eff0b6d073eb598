"""SemanticFL: FedAvg whose clients are pulled to the server's semantic anchors.

Liu, Guo, Wang, Zhu, Du, Wang, Leung. "Diffusion-Guided Semantic Consistency for Multimodal
Heterogeneity". arXiv 2603.19337, IEEE ICME 2026.

    L = CE + lambda_kd L_kd(f, V_y) + lambda_con L_con(head(f), T, y)

The paper gives the two terms, their weights (1.0 and 0.01) and tau (0.05). Ours: lambda_con = 1 by
default, the bias-free linear heads from features to the text space and, if `visual_head` is linear,
to that of the visual anchors, the distillation's temperature, its `l2` and `cosine` forms, and that
the guidance composes with every other algorithm. Aggregation is FedAvg's.

Features after a ReLU have no negative entries, and visual anchors, made by centred PCA, have: the
paper's form, without a head, asks for what half of the entries cannot give.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import LossTerm, TermInputs
from semanticfl_jax.config import GuidanceConfig
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.losses import cross_modal_contrast, distillation


def guidance_term(
    anchors: Anchors,
    config: GuidanceConfig,
    feature_dim: int,
    holders: Mapping[str, np.ndarray] | None = None,
) -> LossTerm | None:
    """Return the local loss of semantic guidance, or None when both weights are zero.

    A part of weight zero is left out of the program, its anchors are not sent, and its parameters
    do not exist: with both weights zero a guided run is the unguided run, bit for bit.

    Args:
      anchors: visual float32 [K, d_visual] and text float32 [K, d_text], unit rows. Where they
        have features of single images, these are the targets of the distillation.
      config: weights, temperatures and the kind of distillation.
      feature_dim: width d of the clients' features.
      holders: as `draw_modalities` returns them; a client drops the term whose anchors it lacks.

    Raises:
      SemanticFLError: if the visual anchors' width is not `feature_dim`, where no head maps one to
        the other.
    """
    use_kd, use_con = config.lambda_kd > 0, config.lambda_con > 0
    if not (use_kd or use_con):
        return None
    use_head = use_kd and config.visual_head == "linear"
    if use_kd and not use_head:
        anchors.require_width(feature_dim)
    shared, per_sample = {}, {}
    if use_kd and anchors.samples is not None:
        per_sample["visual"] = jnp.asarray(anchors.samples)
    elif use_kd:
        shared["visual"] = jnp.asarray(anchors.visual, jnp.float32)
    if use_con:
        shared["text"] = jnp.asarray(anchors.text, jnp.float32)

    def init(key: jax.Array) -> dict[str, jax.Array]:
        heads = {}
        if use_con:
            heads["text_head"] = _draw_head(key, feature_dim, anchors.text.shape[1])
        if use_head:
            # Another key; that of the text head is as it was before there was a visual one.
            heads["visual_head"] = _draw_head(
                jax.random.fold_in(key, 1), feature_dim, anchors.visual.shape[1]
            )
        return heads

    def loss(inputs: TermInputs) -> jax.Array:
        features, labels, mask = inputs.outputs.features, inputs.labels, inputs.mask
        total = jnp.zeros((), jnp.float32)
        if use_kd:
            by_sample = "visual" in inputs.rows
            targets = inputs.rows["visual"] if by_sample else inputs.shared["visual"][labels]
            seen = features @ inputs.params["visual_head"] if use_head else features
            kd = distillation(seen, targets, mask, config.kd, config.temperature_kd)
            total += config.lambda_kd * inputs.holds.get("visual", 1.0) * kd
        if use_con:
            projected = features @ inputs.params["text_head"]
            text = inputs.shared["text"]
            con = cross_modal_contrast(projected, text, labels, mask, config.temperature_con)
            total += config.lambda_con * inputs.holds.get("text", 1.0) * con
        return total

    used = {name: who for name, who in (holders or {}).items() if name in {*shared, *per_sample}}
    return LossTerm("guidance", loss, shared, per_sample, used, init, needs=("features",))


def _draw_head(key: jax.Array, feature_dim: int, width: int) -> jax.Array:
    """Draw a linear map without bias, float32 [feature_dim, width]."""
    return jax.nn.initializers.lecun_normal()(key, (feature_dim, width), jnp.float32)
