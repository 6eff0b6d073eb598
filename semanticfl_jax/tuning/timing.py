"""How fast a chunk of clients trains: one way to compute it, timed where a run will compute it."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.config import AvailabilityConfig, ExperimentConfig
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.memory import free_device_memory, free_host_memory
from semanticfl_jax.devices.mesh import CLIENTS, device_mesh, on_each_device, replicated, split
from semanticfl_jax.federated.chunks import make_train_chunk
from semanticfl_jax.federated.first_contact import with_own_rows
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import make_local_training
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.randomness import run_key
from semanticfl_jax.tasks import CLASSIFICATION, Task
from semanticfl_jax.types import PyTree

# Share of what is free that a chunk may take: the rest of the round needs some, too.
_ROOM = 0.8
# Seconds that a timed call should last, and the most steps of a client that it takes for it.
_CALL_SECONDS, _STEPS = 0.25, 16
# A call that lasts this long, in seconds, is not repeated for a median.
_LONG = 2.0


class Workload(NamedTuple):
    """What the clients of a run compute, whatever computes it.

    Attributes:
      config: of the run.
      algorithm: with its terms.
      received: the initial model.
      image_shape: H, W, 3, or the shape of an input that is no image.
      num_classes: K, the number of logits.
      sizes: int [N], samples of each client.
      mean: of each channel; () for inputs as they are.
      std: likewise.
      module: the Flax module that takes the place of `config.model`; None: none does.
      task: whose loss it is.
      label: labels of one image, [1, ...], for tasks without classes; None: a class.
      image: one input, [1, ...], where noise might not be a valid one; None: an image.
    """

    config: ExperimentConfig
    algorithm: Algorithm
    received: Model
    image_shape: tuple[int, ...]
    num_classes: int
    sizes: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    module: nn.Module | None = None
    task: Task = CLASSIFICATION
    label: np.ndarray | None = None
    image: np.ndarray | None = None

    def network(self, config: ExperimentConfig) -> Network:
        """Return the network that clients train, with the lowering that `config` has."""
        if self.module is not None:
            return Network(self.module)
        return make_model(config, self.num_classes, self.image_shape)

    @property
    def largest(self) -> int:
        """Return the samples of the largest client."""
        return int(self.sizes.max())

    @property
    def rows(self) -> int:
        """Return the images of a step."""
        return min(self.config.batch_size, self.largest)

    @property
    def steps(self) -> int:
        """Return the steps to time, at most: no more than the largest client has."""
        steps = self.config.local_epochs * -(-self.largest // self.config.batch_size)
        return min(_STEPS, steps)


@dataclasses.dataclass(frozen=True)
class Figure:
    """What was found of one lowering and chunk.

    Attributes:
      conv: lowering of the convolutions.
      clients_per_chunk: clients side by side on each device.
      outcome: "measured"; "too large": not run; "failed"; "no time": not tried.
      seconds: of one step of one client, if measured: a call's time over all steps in it.
      compile_seconds: until the program was ready, if it was compiled.
      memory_bytes: on each device, arguments and results included, if it was compiled and XLA
        tells; of what was too large although it seemed to fit, a byte more than there was room for.
      note: why it was not measured.
    """

    conv: str
    clients_per_chunk: int
    outcome: str
    seconds: float | None = None
    compile_seconds: float | None = None
    memory_bytes: int | None = None
    note: str = ""

    def __str__(self) -> str:
        clients = f"{self.clients_per_chunk} client{'s' * (self.clients_per_chunk > 1)}"
        found = self.note or self.outcome
        if self.seconds is not None:
            memory = f"{self.memory_bytes / 1e6:.0f} MB, " if self.memory_bytes is not None else ""
            found = (
                f"{1e3 * self.seconds:.3g} ms a client's step, {memory}"
                f"compiled in {self.compile_seconds:.1f} s"
            )
        return f"{self.conv}, {clients} at a time: {found}"


def time_chunk(
    work: Workload, conv: str, clients_per_chunk: int, mesh: Mesh, repeats: int = 3
) -> Figure:
    """Compile the local training of a chunk of clients, and time it if it fits.

    It is the training of a round's chunk (`federated.chunks`), of clients that have equally many
    steps: one copy of the step to compile. Images are noise. All devices of this process do the
    same at once, because those of a CPU share its memory and its caches.

    Args:
      work: what the clients compute.
      conv: lowering of the convolutions.
      clients_per_chunk: clients side by side on each device.
      mesh: the devices of the run; nothing is asked of other processes'.
      repeats: calls that are timed, of which the median counts.
    """
    found = Figure(conv, clients_per_chunk, "failed")
    mesh = device_mesh(mesh.local_devices, CLIENTS)
    room = room_for_chunk(mesh)
    try:
        began = time.perf_counter()
        arguments = _arguments(work, clients_per_chunk, mesh)
        lowered = _training(work, conv, mesh).lower(*arguments, _sizes(1, work, arguments))
        program = lowered.compile()
        memory = program.memory_analysis()
        found = dataclasses.replace(found, compile_seconds=time.perf_counter() - began)
        if memory is not None:
            parts = ("temp_size", "output_size", "argument_size")
            total = sum(getattr(memory, f"{part}_in_bytes") for part in parts)
            found = dataclasses.replace(found, memory_bytes=total)
        if not fits(found, room):
            return too_large(found, room)

        def call(steps: int) -> float:
            sizes = jax.block_until_ready(_sizes(steps, work, arguments))
            began = time.perf_counter()
            jax.block_until_ready(program(*arguments, sizes))
            return time.perf_counter() - began

        platform = mesh.devices.flat[0].platform
        seconds = seconds_per_step(call, work.steps, repeats, platform) / clients_per_chunk
        return dataclasses.replace(found, outcome="measured", seconds=seconds)
    except jax.errors.JaxRuntimeError as error:  # not to be had here, or too large after all
        found = dataclasses.replace(found, note=str(error).splitlines()[0][:200])
        if "RESOURCE_EXHAUSTED" not in str(error):
            return found
        more = None if room is None else max(room + 1, found.memory_bytes or 0)
        return dataclasses.replace(found, outcome="too large", memory_bytes=more)


def room_for_chunk(mesh: Mesh) -> int | None:
    """Return the bytes that a chunk may take on each device of this process; None if unknown."""
    here = mesh.local_devices
    free = free_device_memory(here[0])
    if here[0].platform == "cpu" and free is None:  # CPU devices share the host's
        free = free_host_memory() // len(here)
    return None if free is None else int(_ROOM * free)


def fits(figure: Figure, room: int | None) -> bool:
    """Return whether that much memory is to be had, as far as one can tell."""
    return room is None or figure.memory_bytes is None or figure.memory_bytes <= room


def too_large(figure: Figure, room: int) -> Figure:
    """Return the figure of what does not fit into `room` bytes."""
    note = f"needs {(figure.memory_bytes or 0) / 1e6:.0f} MB, and {room / 1e6:.0f} MB are to be had"
    return dataclasses.replace(figure, outcome="too large", seconds=None, note=note)


def seconds_per_step(
    call: Callable[[int], float], most: int, repeats: int, platform: str = "cpu"
) -> float:
    """Return seconds of a step; `call(steps)` does so many and returns the seconds it took.

    The first call is not counted, unless it is long, nor on an accelerator then: there it may have
    waited for clocks to rise, or for a library to load. Its second call is the figure.
    """
    first = call(1)
    if first >= _LONG:
        return first if platform == "cpu" else call(1)
    steps = max(1, min(most, int(_CALL_SECONDS / max(call(1), 1e-9))))
    return statistics.median(call(steps) for _ in range(repeats)) / steps


def _arguments(work: Workload, clients: int, mesh: Mesh) -> tuple[PyTree, ...]:
    """Return model, broadcast, sent_once, data, client ids and states, on the devices.

    The clients share their images: what they see decides nothing.
    """
    rng, count = np.random.default_rng(0), work.steps * work.rows
    if work.image is None:
        images = rng.integers(0, 256, (count, *work.image_shape), dtype=np.uint8)
    else:
        images = np.repeat(work.image, count, axis=0)
    if work.label is None:
        labels = rng.integers(0, work.num_classes, count, dtype=np.int32)
    else:
        labels = np.repeat(work.label, count, axis=0)
    data = FederatedDataset(
        images=images.reshape(count, -1),
        labels=labels,
        indices=np.arange(count, dtype=np.int32),
        offsets=np.zeros(clients, np.int32),
        sizes=np.full(clients, count, np.int32),
        label_counts=np.zeros((clients, work.num_classes), np.int32),
        max_size=count,
        image_shape=work.image_shape,
        image_dtype=images.dtype,
    )
    server, rule = work.algorithm.server, work.algorithm.client
    sent = server.broadcast(server.init(work.received))
    broadcast = Broadcast(sent, np.float32(work.config.learning_rate))
    everywhere = (work.received, broadcast, work.algorithm.sent_once, data)
    received, broadcast, once, data = jax.device_put(everywhere, replicated(mesh))
    everywhere = (received, broadcast, with_own_rows(work.algorithm, once, data, mesh), data)
    devices = mesh.devices.size
    ids = np.tile(np.arange(clients, dtype=np.int32), devices)
    states = rule.init(work.received) if rule is not None else ()
    states = jax.tree.map(
        lambda x: np.repeat(np.asarray(x)[None], devices * clients, axis=0), states
    )
    return *everywhere, *jax.device_put((ids, states), split(mesh))


def _sizes(steps: int, work: Workload, arguments: tuple[PyTree, ...]) -> jax.Array:
    """Return every client's samples, with which it does `steps`: int32 [clients]."""
    sizes = arguments[3].sizes
    return jax.device_put(np.full(sizes.shape, steps * work.rows, np.int32), sizes.sharding)


def _training(work: Workload, conv: str, mesh: Mesh) -> jax.stages.Wrapped:
    """Return (*arguments, sizes) -> float32 [devices], which needs all that the clients trained."""
    config = dataclasses.replace(
        work.config.with_runtime(conv=conv),
        local_epochs=1,
        batch_size=work.rows,
        availability=AvailabilityConfig(),
    )
    model = work.network(config)
    local_training = make_local_training(
        model, work.algorithm, config, work.mean, work.std, work.task
    )

    def train_device(received, broadcast, shared, data, ids, states, sizes):
        data = data.replace(sizes=sizes)
        train_chunk = make_train_chunk(local_training, len(ids))
        results, _ = train_chunk(received, broadcast, shared, data, ids, states, run_key(0))
        leaves = jax.tree.leaves((results.model, results.loss_sum))
        return sum(jnp.sum(leaf) for leaf in leaves)[None]

    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)
    return jax.jit(
        on_each_device(
            train_device,
            mesh,
            in_specs=(*[everywhere] * 4, spread, spread, everywhere),
            out_specs=spread,
        )
    )
