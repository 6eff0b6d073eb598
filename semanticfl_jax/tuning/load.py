"""What the busiest device computes with so many clients side by side, on a partition.

Clients of unequal size wait for one another in a chunk, which narrows as they end (`side_by_side`),
and devices wait for the busiest one (`cohort.place_cohort`). Both grow with the chunk, so that the
fastest step is not always that of the fastest round.
"""

import jax
import numpy as np

from semanticfl_jax.federated.cohort import place_cohort

# Cohorts over which the load is averaged, drawn as the sampler `uniform` does; nobody drops out or
# does part of the steps.
_COHORTS = 20


def chunk_load(
    sizes: np.ndarray, clients_per_round: int, batch_size: int, devices: int, chunk: int
) -> dict[int, float]:
    """Return how often the busiest device takes a step with each number of clients side by side.

    Args:
      sizes: int [N], samples of each client.
      clients_per_round: clients of a cohort.
      batch_size: samples of a step.
      devices: that share the cohort.
      chunk: clients side by side on each, at first.

    Returns:
      {clients side by side: steps with so many}, for each step that a device would have if the
      clients' steps were shared out evenly. Widths times steps add up to 1 at least.
    """
    rng = np.random.default_rng(0)
    sizes = np.asarray(sizes, np.int32)
    cohorts = np.stack(
        [rng.choice(len(sizes), clients_per_round, replace=False) for _ in range(_COHORTS)]
    ).astype(np.int32)

    def place(cohort, cohort_sizes):
        return place_cohort(cohort, cohort_sizes, batch_size, devices, chunk)

    places = np.asarray(jax.jit(jax.vmap(place))(cohorts, sizes[cohorts]))
    steps = np.where(places < 0, 0, -(-sizes[places] // batch_size))
    # The most steps first, on each device, and then in chunks.
    steps = -np.sort(-steps.reshape(_COHORTS, devices, -1), axis=-1)
    by_width = {
        width: taken.sum(-1)
        for width, taken in _steps_by_width(steps.reshape(_COHORTS, devices, -1, chunk)).items()
    }
    computed = sum(width * taken for width, taken in by_width.items())
    busiest = np.arange(_COHORTS), computed.argmax(-1)
    share = devices / steps.sum()
    return {width: float(share * taken[busiest].sum()) for width, taken in by_width.items()}


def _steps_by_width(steps: np.ndarray) -> dict[int, np.ndarray]:
    """Return {width: steps int [...]} of `train_side_by_side`; `steps` int [..., C], falling."""
    width, before, taken = steps.shape[-1], 0, {}
    while width:
        half = width // 2
        until = steps[..., half]
        taken[width] = until - before
        width, before = half, until
    return taken
