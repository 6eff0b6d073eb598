"""What a round cannot be faster than: arithmetic over peak, bytes over bandwidth.

Worked out from the algorithm, not from the compiled program, whose analysis counts the body of a
loop once. Real devices take longer than the larger one, but for what stands in `find_floors`.
"""

from typing import NamedTuple

from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.models.flops import training_flops
from semanticfl_jax.planning.chips import Chip
from semanticfl_jax.planning.student import target_flops
from semanticfl_jax.simulation.parts import Parts


class Floors(NamedTuple):
    """What the busiest device does in a round, and how long that takes at least.

    Attributes:
      flops: floating-point operations of all devices together.
      bytes: that the busiest device moves between HBM and chip at least.
      matrix_seconds: on matrix units at their peak; None without a chip.
      bandwidth_seconds: at the full bandwidth; None without a chip.
      contact_flops: of all devices together, once in a run: what clients compute of their images
        at their first contact.
      contact_seconds: of the busiest device for it, at least; None without a chip.
    """

    flops: float
    bytes: float
    matrix_seconds: float | None
    bandwidth_seconds: float | None
    contact_flops: float = 0.0
    contact_seconds: float | None = None

    @property
    def rounds_per_second(self) -> float | None:
        """Return how many rounds a second there are at best; None without a chip."""
        if self.matrix_seconds is None or self.bandwidth_seconds is None:
            return None
        return 1 / max(self.matrix_seconds, self.bandwidth_seconds)


def find_floors(parts: Parts, each: int, chip: Chip | None, devices: int) -> Floors:
    """Return the floors of a round of equal clients.

    Arithmetic is the training of the cohort's images (`models.flops`), and the student's
    targets if they are computed in each step: other terms of the algorithm, augmentation and
    padding are left out. Bytes are the parameters and what the optimiser keeps of them, read and
    written once in each client's step, in float32, and the step's images and targets read once: all
    activations are taken to stay on the chip, which large batches do not. (Our choice. A network so
    small that its parameters stay on the chip, too, may beat it.) Targets that are computed once
    count for the first contact.

    Args:
      parts: of the run.
      each: images of every client.
      chip: of what kind the devices are.
      devices: how many train.
    """
    config, dataset = parts.config, parts.federation.dataset
    rows = min(config.batch_size, each)
    shape, fixed = dataset.image_shape, parts.algorithm.fixed
    flops_per_image = training_flops(config, dataset.num_classes, shape, rows, fixed)
    steps = config.local_epochs * -(-each // config.batch_size)
    seen = config.clients_per_round * config.local_epochs * each
    busiest = -(-config.clients_per_round // devices)
    model = parts.model_shapes
    copies = 2 if config.momentum == 0 else 4
    image = size_in_bytes(dataset.train_images[:1])
    target, once = 0, 0.0  # bytes, and operations at the first contact, of an image
    settings = config.guidance.student
    if parts.student is not None and settings.sets_targets:
        if settings.targets == "each_step":
            flops_per_image += target_flops(parts.student, rows)
        else:
            target, once = 2 * parts.student.dim, target_flops(parts.student, 1)
    moved = busiest * steps * (copies * size_in_bytes(model.params) + rows * (image + target))
    flops = flops_per_image * seen
    own = min(len(dataset.train_images), config.num_clients * each)
    if chip is None:
        return Floors(flops, moved, None, None, once * own)
    on_busiest = flops_per_image * busiest * config.local_epochs * each
    mine = -(-own // devices)  # a device sees its share of the images, and keeps all targets
    seconds = max(once * mine / chip.peak, (mine * image + own * target) / chip.bandwidth)
    contact = seconds if once else 0.0
    on_units, moving = on_busiest / chip.peak, moved / chip.bandwidth
    return Floors(flops, moved, on_units, moving, once * own, contact)
