"""What `runtime.conv=auto` and `runtime.clients_per_chunk=auto` stand for.

On accelerators a short measurement at the first run decides (`search`), together with how long
clients of this partition wait for one another (`load`); its figures are kept in the user's cache
for later runs. On a CPU, where measurements gave the same answer in every case, that
answer is taken at once. A run that goes on keeps the choice that it began with: results of other
chunks agree to rounding, not bit for bit.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.devices import processes
from semanticfl_jax.files import write_json
from semanticfl_jax.models.client_conv import LOWERINGS, choose_lowering
from semanticfl_jax.tuning.cache import Measured
from semanticfl_jax.tuning.load import chunk_load
from semanticfl_jax.tuning.search import best, chunks_up_to, search
from semanticfl_jax.tuning.timing import Workload
from semanticfl_jax.types import Say

# Without a measurement: one client at a time on CPU, where a loop over clients beat vmap at every
# size that was measured. On a TPU four: by its compiler's estimates, one at a time is up to 1.5
# times as fast as 16 with batches of 64, and slower with batches of 20: four has the least worst
# case (docs/guides/planning.md). Elsewhere as many as fit comfortably.
_CLIENTS_PER_CHUNK = {"cpu": 1, "tpu": 4}
_CLIENTS_PER_CHUNK_ELSEWHERE = 16
_BEFORE = ", when the run began"


class Choice(NamedTuple):
    """How a run computes its clients' training.

    Attributes:
      conv: lowering of the convolutions.
      clients_per_chunk: clients side by side on each device, no more than it has in a round.
      how: where the choice comes from, in words.
    """

    conv: str
    clients_per_chunk: int
    how: str

    def __str__(self) -> str:
        chunk = self.clients_per_chunk
        clients = f"{chunk} client{'s' * (chunk > 1)} at a time on each device"
        return f"convolution: {self.conv}; {clients} ({self.how})"

    def applied(self, config: ExperimentConfig) -> ExperimentConfig:
        """Return the configuration with nothing left to choose."""
        return config.with_runtime(conv=self.conv, clients_per_chunk=self.clients_per_chunk)


def default_chunk(platform: str) -> int:
    """Return the clients side by side that a platform takes without a measurement."""
    return _CLIENTS_PER_CHUNK.get(platform, _CLIENTS_PER_CHUNK_ELSEWHERE)


def choose(work: Workload, mesh: Mesh, kept: Path | None = None, say: Say = print) -> Choice:
    """Fill in what the configuration leaves open, the same in all processes.

    Args:
      work: what the clients compute.
      mesh: the devices of the run, with the data set on them: what is free decides what fits.
      kept: file of the run with its choice, which is taken if it was made for this kind of device;
        else the choice is written to it. None: no run.
      say: takes lines for the user.
    """
    config = work.config
    largest = -(-config.clients_per_round // mesh.devices.size)
    conv, chunk = config.runtime.conv, config.runtime.clients_per_chunk
    if chunk != "auto":
        chunk = min(chunk, largest)
    if "auto" not in (conv, chunk):
        return Choice(conv, chunk, "as configured")
    choice = Choice("auto", 0, "as process 0 chose")
    with processes.main_first():  # it may take longer than a collective operation waits
        if processes.is_main():
            choice = _kept(kept, mesh)
            if choice is None:
                choice = _choose(work, mesh, conv, chunk, largest, say)
                if kept is not None:
                    _keep(kept, mesh, choice)
    # What is given counts, also where a run began with another choice.
    found, clients = processes.of_main(LOWERINGS.index(choice.conv)), choice.clients_per_chunk
    clients = min(largest, processes.of_main(clients))
    conv = LOWERINGS[found] if conv == "auto" else conv
    return Choice(conv, clients if chunk == "auto" else chunk, choice.how)


def _choose(
    work: Workload, mesh: Mesh, conv: str, chunk: int | str, largest: int, say: Say
) -> Choice:
    platform, tuning = mesh.devices.flat[0].platform, work.config.runtime.tuning
    default = min(default_chunk(platform), largest) if isinstance(chunk, str) else chunk
    likely = choose_lowering(platform, vmapped=default > 1) if conv == "auto" else conv
    assumed = Choice(likely, default, f"the default for {platform}")
    if tuning == "never" or (tuning == "auto" and platform == "cpu"):
        return assumed
    # XLA's own gradients in a loop are so slow on CPU (client_conv.py) that one call takes minutes.
    out = ("auto", "native") if platform == "cpu" else ("auto",)
    lowerings = [name for name in LOWERINGS if name not in out] if conv == "auto" else [conv]
    lowerings.sort(key=lambda name: name != likely)
    chunks = chunks_up_to(largest) if chunk == "auto" else [chunk]
    measured = Measured(work, mesh, say)

    @functools.cache
    def load(chunk: int) -> dict[int, float]:
        cohort, batch = work.config.clients_per_round, work.config.batch_size
        return chunk_load(work.sizes, cohort, batch, mesh.devices.size, chunk)

    fastest = best(search(measured.look, lowerings, chunks, load), load)
    where = measured.where
    if fastest is None:
        return assumed._replace(how=f"{assumed.how}: nothing could be measured; {where}")
    how = f"measured now in {measured.seconds:.0f} s" if measured.new else "measured before"
    return Choice(fastest.conv, fastest.clients_per_chunk, f"{how}; {where}")


def _kept(path: Path | None, mesh: Mesh) -> Choice | None:
    """Return the choice in a run's directory; None if there is none for this kind of device."""
    if path is None:
        return None
    try:
        values = json.loads(path.read_text())
        if values["device"] != mesh.devices.flat[0].device_kind:
            return None
        return Choice(values["conv"], values["clients_per_chunk"], values["how"] + _BEFORE)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, mesh: Mesh, choice: Choice) -> None:
    device = mesh.devices.flat[0].device_kind
    write_json(path, {"device": device, **choice._asdict()})
