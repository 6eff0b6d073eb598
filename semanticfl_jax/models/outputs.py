"""What every client network returns."""

from typing import NamedTuple

import jax


class Outputs(NamedTuple):
    """Result of one forward pass over a batch of B images.

        features = x.mean(axis=(1, 2))  # [B, d]
        return sfl.Outputs(nn.Dense(self.num_classes)(features), features)

    Attributes:
      logits: float32 [B, num_classes]; of a task with a class at each position [B, ...,
        num_classes]. What a network returns is called so whatever the task.
      features: float32 [B, feature_dim], the input of the linear classifier; None where a network
        does not give them, which some algorithms need.
      levels: what each depth gives before its ReLU, averaged over pixels: float32 [B, channels],
        from the first layer on. Costs nothing where it is not used.
    """

    logits: jax.Array
    features: jax.Array | None = None
    levels: tuple[jax.Array, ...] = ()
