"""Modality skew: which clients can use which semantic anchors."""

import numpy as np

from semanticfl_jax.config import ModalityConfig
from semanticfl_jax.randomness import HostStream, host_generator


def draw_modalities(config: ModalityConfig, num_clients: int, seed: int) -> dict[str, np.ndarray]:
    """Who holds text anchors, and who visual ones.

    The shares are met exactly, up to rounding; who it is, is drawn at random and depends on the
    seed and the number of clients alone.

    Returns:
      {"text": bool [num_clients], "visual": bool [num_clients]}; empty if nobody lacks anything.
    """
    if config.total == 0:
        return {}
    shares = (config.without_text, config.without_visual, config.without_both)
    first, second, third = np.rint(np.cumsum(shares) * num_clients).astype(int)
    places = host_generator(seed, HostStream.MODALITIES).permutation(num_clients)
    return {
        "text": (places >= first) & ~((second <= places) & (places < third)),
        "visual": ~((first <= places) & (places < third)),
    }
