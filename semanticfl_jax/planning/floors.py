"""What a round cannot be faster than: arithmetic over peak, bytes over bandwidth.

Worked out from the algorithm, not from the compiled program, whose analysis counts the body of a
loop once. Both are floors: a real device stays above the larger one.
"""

from typing import NamedTuple

import jax

from semanticfl_jax.benchmarks.flops import training_flops
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.planning.chips import Chip
from semanticfl_jax.randomness import run_key
from semanticfl_jax.simulation.parts import Parts


class Floors(NamedTuple):
    """What the busiest device does in a round, and how long that takes at least.

    Attributes:
      flops: floating-point operations of all devices together.
      bytes: that the busiest device moves between HBM and chip at least.
      matrix_seconds: on matrix units at their peak; None without a chip.
      bandwidth_seconds: at the full bandwidth; None without a chip.
    """

    flops: float
    bytes: float
    matrix_seconds: float | None
    bandwidth_seconds: float | None

    @property
    def rounds_per_second(self) -> float | None:
        """Return how many rounds a second there are at best; None without a chip."""
        if self.matrix_seconds is None or self.bandwidth_seconds is None:
            return None
        return 1 / max(self.matrix_seconds, self.bandwidth_seconds)


def find_floors(parts: Parts, each: int, chip: Chip | None, chips: int, devices: int) -> Floors:
    """Return the floors of a round of equal clients.

    Arithmetic is the training of the cohort's images (`benchmarks.flops`): the algorithm's own
    terms, augmentation and padding are left out. Bytes are the parameters and what the optimiser
    keeps of them, read and written once in each client's step, in float32, and the step's images
    read once: all activations are taken to stay on the chip, which large batches do not. (Our
    choice: a bound that no lowering can break.)

    Args:
      parts: of the run.
      each: images of every client.
      chip: of what kind the devices are.
      chips: how many there are.
      devices: how many JAX counts.
    """
    config, dataset = parts.config, parts.federation.dataset
    rows = min(config.batch_size, each)
    flops_per_image = training_flops(config, dataset, rows)
    steps = config.local_epochs * -(-each // config.batch_size)
    seen = config.clients_per_round * config.local_epochs * each
    busiest = -(-config.clients_per_round // devices)
    model = jax.eval_shape(parts.init_model, run_key(0))
    copies = 2 if config.momentum == 0 else 4
    picture = rows * size_in_bytes(dataset.train_images[:1])
    moved = busiest * steps * (copies * size_in_bytes(model.params) + picture)
    flops = flops_per_image * seen
    if chip is None:
        return Floors(flops, moved, None, None)
    share = chips / devices  # of a chip, that a device has
    on_busiest = flops_per_image * busiest * config.local_epochs * each
    return Floors(flops, moved, on_busiest / (share * chip.peak), moved / (share * chip.bandwidth))
