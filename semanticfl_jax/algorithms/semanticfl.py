"""SemanticFL: FedAvg whose clients are pulled to the server's semantic anchors.

Liu, Guo, Wang, Zhu, Du, Wang, Leung. "Diffusion-Guided Semantic Consistency for Multimodal
Heterogeneity". arXiv 2603.19337, IEEE ICME 2026.

    L = CE + lambda_kd L_kd(f, V_y) + lambda_con L_con(head(f), T, y)

The paper gives the two terms, their weights (1.0 and 0.01) and tau (0.05). Ours: lambda_con = 1 by
default, the bias-free linear head from features to the text space, the distillation's temperature,
its `l2` and `cosine` forms, and that the guidance composes with every other algorithm. Aggregation
is FedAvg's.
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
    """The local loss of semantic guidance, or None when both weights are zero.

    A part of weight zero is left out of the program, its anchors are not sent, and its parameters
    do not exist: with both weights zero a guided run is the unguided run, bit for bit.

    Args:
      anchors: visual float32 [K, feature_dim] and text float32 [K, d_text], unit rows. Where they
        have features of single images, these are the targets of the distillation.
      config: weights, temperatures and the kind of distillation.
      feature_dim: width d of the clients' features.
      holders: as `draw_modalities` returns them; a client drops the term whose anchors it lacks.

    Raises:
      ValueError: if the visual anchors' width is not `feature_dim`.
    """
    use_kd, use_con = config.lambda_kd > 0, config.lambda_con > 0
    if not (use_kd or use_con):
        return None
    if use_kd:
        anchors.require_width(feature_dim)
    shared, per_sample = {}, {}
    if use_kd and anchors.samples is not None:
        per_sample["visual"] = jnp.asarray(anchors.samples)
    elif use_kd:
        shared["visual"] = jnp.asarray(anchors.visual, jnp.float32)
    if use_con:
        shared["text"] = jnp.asarray(anchors.text, jnp.float32)

    def init(key: jax.Array) -> dict[str, jax.Array]:
        if not use_con:
            return {}
        shape = (feature_dim, anchors.text.shape[1])
        return {"text_head": jax.nn.initializers.lecun_normal()(key, shape, jnp.float32)}

    def loss(inputs: TermInputs) -> jax.Array:
        features, labels, mask = inputs.outputs.features, inputs.labels, inputs.mask
        total = jnp.zeros((), jnp.float32)
        if use_kd:
            by_sample = "visual" in inputs.rows
            targets = inputs.rows["visual"] if by_sample else inputs.shared["visual"][labels]
            kd = distillation(features, targets, mask, config.kd, config.temperature_kd)
            total += config.lambda_kd * inputs.holds.get("visual", 1.0) * kd
        if use_con:
            projected = features @ inputs.params["text_head"]
            text = inputs.shared["text"]
            con = cross_modal_contrast(projected, text, labels, mask, config.temperature_con)
            total += config.lambda_con * inputs.holds.get("text", 1.0) * con
        return total

    used = {name: who for name, who in (holders or {}).items() if name in {*shared, *per_sample}}
    return LossTerm("guidance", loss, shared, per_sample, used, init, needs=("features",))
