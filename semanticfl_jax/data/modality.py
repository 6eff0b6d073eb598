"""Modality skew: which clients can use which parts of semantic guidance."""

import numpy as np

from semanticfl_jax.config import ModalityConfig
from semanticfl_jax.randomness import HostStream, host_generator


def draw_modalities(config: ModalityConfig, num_clients: int, seed: int) -> dict[str, np.ndarray]:
    """Return who holds text anchors, who visual ones, and who the student.

    The shares are met exactly, up to rounding; who it is, is drawn at random and depends on the
    seed and the number of clients alone. Who lacks the student is drawn apart from the anchors.

    Returns:
      {"text": ..., "visual": ...}, bool [num_clients] each, if anybody lacks any anchors, and
      "student" likewise, if anybody lacks it.
    """
    holders = {}
    if config.without_student:
        places = host_generator(seed, HostStream.STUDENTS).permutation(num_clients)
        holders["student"] = places >= np.rint(config.without_student * num_clients)
    if config.total == 0:
        return holders
    shares = (config.without_text, config.without_visual, config.without_both)
    first, second, third = np.rint(np.cumsum(shares) * num_clients).astype(int)
    places = host_generator(seed, HostStream.MODALITIES).permutation(num_clients)
    return {
        **holders,
        "text": (places >= first) & ~((second <= places) & (places < third)),
        "visual": ~((first <= places) & (places < third)),
    }
