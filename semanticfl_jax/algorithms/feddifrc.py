"""FedDifRC: FedAvg whose clients contrast with, and regress to, features of a diffusion model.

Wang, Li, Chen, Yan, Shi, Shen. "FedDifRC: Unlocking the Potential of Text-to-Image Diffusion Models
in Heterogeneous Federated Learning". ICCV 2025.

    L = CE + lambda_tdcl L_TDCL + lambda_ndcr L_NDCR                         weights 1 in the paper
    L_TDCL = log( 1 + sum_{c != y} exp(cos(z, F_c) / tau) / exp(cos(z, F_y) / tau) )
    L_NDCR = | z / |z| - H / |H| |^2

F_c are U-Net features conditioned on the prompt of class c, H those of the image itself. The
anchors of `guidance` supply them: with `guidance.anchor_source=oracle` F_y and H are the features
of each training image under its own class's prompt, as in the authors' simulation (the clients'
images are then not private); otherwise both are the class's visual anchor. The wrong-class features
F_c of an image are approximated by the other classes' anchors (ours; the authors' are precomputed
by a script that is not released).

L_NDCR in the authors' code is a KL of two softmaxes over unit vectors, which is nearly flat; the
squared distance is the paper's form, on unit vectors (ours) so that its scale is fixed. Of their
code's TDCL the pooling over the batch and the pairing of negatives with wrong anchors are mistakes
that are not followed. z is the input of the classifier. State: none. Sent once: the features.
"""

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import Algorithm, LossTerm, TermInputs
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import FedDifRCConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.models.losses import masked_mean, unit
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.losses import distillation


def feddifrc(settings: FedDifRCConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedDifRC; without anchors, or with both weights zero, it is FedAvg."""
    algorithm = fedavg(None, context)
    if context.anchors is None:
        return algorithm
    holders = context.holders.get("visual") if context.holders else None
    term = feddifrc_term(context.anchors, settings, context.feature_dim, holders)
    return algorithm.with_term(term) if term else algorithm


def feddifrc_term(
    anchors: Anchors,
    config: FedDifRCConfig,
    feature_dim: int,
    holders: np.ndarray | None = None,
) -> LossTerm | None:
    """Return both losses, or None when both weights are zero.

    Args:
      anchors: visual float32 [K, feature_dim], unit rows; features of single images, where they
        have any, take the place of the own class's.
      config: weights and temperature.
      feature_dim: width d of the clients' features.
      holders: bool [num_clients], who receives visual anchors, as `draw_modalities` says; others
        drop the term. None: all do.

    Raises:
      SemanticFLError: if the anchors' width is not `feature_dim`.
    """
    if config.lambda_tdcl == 0 and config.lambda_ndcr == 0:
        return None
    anchors.require_width(feature_dim)
    shared = {"classes": jnp.asarray(anchors.visual, jnp.float32)}
    per_sample = {}
    if anchors.samples is not None:
        per_sample["images"] = jnp.asarray(anchors.samples)

    def loss(inputs: TermInputs) -> jax.Array:
        features, labels, mask = inputs.outputs.features, inputs.labels, inputs.mask
        classes = inputs.shared["classes"]
        own = classes[labels]
        if "images" in inputs.rows:
            own = inputs.rows["images"].astype(jnp.float32)
        total = jnp.zeros((), jnp.float32)
        if config.lambda_tdcl > 0:
            tdcl = text_driven_contrast(features, own, classes, labels, mask, config.temperature)
            total += config.lambda_tdcl * tdcl
        if config.lambda_ndcr > 0:
            total += config.lambda_ndcr * distillation(features, own, mask, "l2", 1.0)
        return inputs.holds.get("classes", 1.0) * total

    who = {} if holders is None else dict.fromkeys((*shared, *per_sample), holders)
    return LossTerm("feddifrc", loss, shared, per_sample, who, needs=("features",))


def text_driven_contrast(
    features: jax.Array,
    own: jax.Array,
    classes: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    temperature: float,
) -> jax.Array:
    """Return L_TDCL: each sample's own feature against all other classes'.

    Args:
      features: [B, d].
      own: [B, d], the positive of each sample, unit rows.
      classes: [K, d], unit rows; row y is not a negative of class y.
      labels: int32 [B].
      mask: bool [B].
      temperature: tau.
    """
    z = unit(features)
    # Full precision: accelerators round the factors of a float32 product by default.
    cosines = jnp.matmul(z, classes.T, precision="highest")
    wrong = jnp.arange(len(classes))[None, :] != labels[:, None]
    positive = jnp.sum(z * own, axis=-1) / temperature
    negatives = jnp.where(wrong, cosines / temperature, -jnp.inf)
    logits = jnp.concatenate([positive[:, None], negatives], axis=1)
    return masked_mean(jax.nn.logsumexp(logits, axis=1) - positive, mask)
