"""The two losses that pull a client's features to the semantic anchors (arXiv 2603.19337).

Every loss is a mean over the valid rows of a batch, in float32, whatever type the features have.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.losses import masked_mean, unit

KD_KINDS = ("kl", "l2", "cosine")


def distillation(
    features: jax.Array, targets: jax.Array, mask: jax.Array, kind: str, temperature: float
) -> jax.Array:
    """Return the knowledge distillation from visual anchors to features.

        kl       KL( softmax(v / T) || softmax(f / T) )      the paper's form; T is ours
        l2       |v - f|^2                                   ours
        cosine   1 - <v, f>                                  ours

    with f the features and v the anchors, both of unit length. For unit vectors l2 is twice cosine
    wherever features are not zero; both are offered because the literature tunes them apart.

    Args:
      features: [B, d].
      targets: [B, d], unit rows: the anchor of each sample's class.
      mask: bool [B].
      kind: one of `KD_KINDS`.
      temperature: T, used by kl alone.

    Returns:
      float32 scalar.

    Raises:
      SemanticFLError: for another kind.
    """
    features = unit(features.astype(jnp.float32))
    targets = targets.astype(jnp.float32)
    if kind == "kl":
        log_teacher = jax.nn.log_softmax(targets / temperature, axis=-1)
        log_student = jax.nn.log_softmax(features / temperature, axis=-1)
        loss = jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    elif kind == "l2":
        loss = jnp.sum(jnp.square(targets - features), axis=-1)
    elif kind == "cosine":
        loss = 1.0 - jnp.sum(targets * features, axis=-1)
    else:
        raise SemanticFLError(f"kd must be one of {', '.join(KD_KINDS)}, got {kind!r}")
    return masked_mean(loss, mask)


def cross_modal_contrast(
    projected: jax.Array, text: jax.Array, labels: jax.Array, mask: jax.Array, temperature: float
) -> jax.Array:
    """Return the InfoNCE between a sample and the text anchors: its own class against all others.

        -log( exp(<h, T_y> / tau) / sum_k exp(<h, T_k> / tau) )

    with h = `projected` of unit length. The paper's tau is 0.05: logits reach 20, hence float32.

    Args:
      projected: [B, d_text], features in the text space.
      text: [K, d_text], unit rows.
      labels: int32 [B].
      mask: bool [B].
      temperature: tau.

    Returns:
      float32 scalar.
    """
    projected = unit(projected.astype(jnp.float32))
    # Full precision: accelerators round the factors of a float32 product by default.
    cosines = jnp.matmul(projected, text.astype(jnp.float32).T, precision="highest")
    logits = cosines / temperature
    positive = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return masked_mean(jax.nn.logsumexp(logits, axis=-1) - positive, mask)
