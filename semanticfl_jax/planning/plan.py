"""The plan of a run: its programs compiled for devices that are not there, and what they say."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Sequence

import jax
import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.devices.mesh import CLIENTS, device_mesh, devices_of_run
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.traffic import Traffic, make_traffic
from semanticfl_jax.models.client_conv import choose_lowering
from semanticfl_jax.planning import hlo
from semanticfl_jax.planning.floors import Floors, find_floors
from semanticfl_jax.planning.images import Images
from semanticfl_jax.planning.programs import (
    OF_CLIENTS,
    OF_STUDENT,
    Target,
    check_programs,
    default_programs,
    lower,
)
from semanticfl_jax.planning.shapes import make_arguments, make_shapes
from semanticfl_jax.planning.topology import Topology
from semanticfl_jax.tuning.choose import Choice, default_chunk
from semanticfl_jax.types import PyTree, Say


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program for a topology.

    Attributes:
      program: of `programs.PROGRAMS`.
      conv: lowering of the convolutions.
      clients_per_chunk: clients side by side on each device; 1 where no clients are.
      failed: why it does not compile; None: it does.
      compile_seconds: that it took here.
      memory: bytes on each device.
      collectives: exchanges between devices.
      host_transfers: lines in which something crosses to the host.
      unread: why the compiled program's text, which tells of both, cannot be read; None: it was.
      untiled: why it was compiled without Triton's matrix products, for a GPU; None: it was not.
    """

    program: str
    conv: str
    clients_per_chunk: int
    failed: str | None = None
    compile_seconds: float = 0.0
    memory: hlo.Memory | None = None
    collectives: tuple[hlo.Collective, ...] = ()
    host_transfers: tuple[str, ...] = ()
    unread: str | None = None
    untiled: str | None = None

    def counted(self) -> dict[str, int]:
        """Return how many collectives there are of each kind; those in loops are "... in loops"."""
        names = [f"{c.kind} in loops" if c.in_loop else c.kind for c in self.collectives]
        return dict(Counter(names))

    def fits(self, room: float | None) -> bool | None:
        """Return whether it fits a device with `room` bytes; None if that is not known."""
        if self.failed is not None:
            return False
        return None if room is None or self.memory is None else self.memory.total <= room


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was found of a run on a topology.

    Attributes:
      topology: its name.
      devices: how many the run takes.
      idle: how many it leaves: more than clients of a round, or than `runtime.num_devices`.
      device_memory: bytes of HBM of each; None on CPU.
      room: bytes of each that JAX takes for programs; None on CPU.
      checkpoint_copy: bytes on each device of the copy of the clients' states that is made for a
        checkpoint, beside a round.
      chip: what kind they are.
      images_per_client: of every client.
      config: of the run.
      floors: what a round cannot be faster than.
      traffic: what clients send and receive.
      starts_from_student: whether the clients' network does; None without a student.
      programs: as compiled, in the order asked for.
    """

    topology: str
    devices: int
    idle: int
    device_memory: float | None
    room: float | None
    checkpoint_copy: int
    chip: str
    images_per_client: int
    config: ExperimentConfig
    floors: Floors
    traffic: Traffic
    starts_from_student: bool | None
    programs: tuple[Compiled, ...]

    def fits(self, program: Compiled) -> bool | None:
        """Return whether a program fits beside what else is there; None if that is not known."""
        if self.room is None or program.program not in OF_CLIENTS:
            return program.fits(self.room)
        return program.fits(self.room - self.checkpoint_copy)

    def largest_chunk(self) -> int | None:
        """Return the most clients side by side of a round that fits, of those compiled."""
        chunks = [
            each.clients_per_chunk
            for each in self.programs
            if each.program == "round" and self.fits(each)
        ]
        return max(chunks, default=None)


def make_plan(
    config: ExperimentConfig,
    topology: Topology,
    images: Images,
    each: int,
    *,
    chunks: Sequence[int] = (),
    programs: Sequence[str] = (),
    say: Say = print,
) -> Plan:
    """Compile a run's programs for a topology.

    Args:
      config: of the run.
      topology: of `make_topology`.
      images: how many of what size.
      each: images of every client.
      chunks: clients side by side to compile rounds for; by default what a run would take.
      programs: some of `programs.PROGRAMS`; by default `default_programs`.
      say: takes a line before each compilation.

    Raises:
      SemanticFLError: for a configuration that cannot be planned.
    """
    if config.runtime.client_state_memory != "device":
        raise SemanticFLError(
            "runtime.client_state_memory must be device to be planned: from host memory, a round "
            "is two programs"
        )
    platform = topology.platform
    every = list(topology.mesh.devices.flat)
    taken = devices_of_run(every, config.runtime.num_devices, config.clients_per_round)
    mesh = device_mesh(taken, CLIENTS)
    largest = -(-config.clients_per_round // len(taken))
    sizes = sorted({min(chunk, largest) for chunk in chunks or [_chunk(config, platform)]})
    parts = make_shapes(_with_lowering(config, platform, vmapped=False), images, platform)
    programs = programs or default_programs(config)
    check_programs(programs, parts)
    arguments = make_arguments(parts, images, each, mesh)
    target, done = Target(parts, topology, mesh, arguments, each), []
    for program in programs:
        for chunk in sizes if program in OF_CLIENTS else [1]:
            conv = config.runtime.conv
            if program == "features":
                conv = "native"
            elif conv == "auto" or program in OF_STUDENT:
                conv = choose_lowering(platform, vmapped=chunk > 1)
            choice = Choice(conv, chunk, "to be planned")
            how = choice if program in OF_CLIENTS else f"convolution: {conv}"
            say(f"{topology.name}: compiling the {program}, {how}")
            done.append(_compile(program, target, choice))
    floors = find_floors(parts, each, topology.chip, len(taken))
    chip = "CPU" if topology.chip is None else topology.chip.name
    data = dataclasses.replace(arguments.data, sizes=np.full(config.num_clients, each))
    traffic = make_traffic(parts.algorithm, arguments.state, data)
    return Plan(
        topology=topology.name,
        devices=len(taken),
        idle=len(every) - len(taken),
        device_memory=topology.memory,
        room=topology.room,
        checkpoint_copy=_on_each_device(arguments.state.clients),
        chip=chip,
        images_per_client=each,
        config=config,
        floors=floors,
        traffic=traffic,
        starts_from_student=None if parts.student is None else parts.starts_from_student,
        programs=tuple(done),
    )


def _on_each_device(tree: PyTree) -> int:
    """Return the bytes that each device holds of arrays whose shapes have a sharding."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def _chunk(config: ExperimentConfig, platform: str) -> int:
    chunk = config.runtime.clients_per_chunk
    return default_chunk(platform) if chunk == "auto" else chunk


def _with_lowering(config: ExperimentConfig, platform: str, *, vmapped: bool) -> ExperimentConfig:
    """Return the configuration with a lowering for `platform`: "auto" would ask this machine."""
    if config.runtime.conv != "auto":
        return config
    conv = choose_lowering(platform, vmapped=vmapped)
    return config.with_runtime(conv=conv)


def _compile(program: str, target: Target, choice: Choice) -> Compiled:
    found = Compiled(program, choice.conv, choice.clients_per_chunk)
    began = time.perf_counter()
    untiled = None
    try:
        lowered = lower(program, target, choice)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if target.topology.platform != "gpu":
                raise
            # XLA takes Triton's matrix products or cuBLAS's by timing both. With no GPU to time
            # them on it takes Triton's, also where no tiles are found for them.
            compiled = lowered.compile({"xla_gpu_enable_triton_gemm": False})
            untiled = reason(str(error))
    except jax.errors.JaxRuntimeError as error:
        return dataclasses.replace(found, failed=reason(str(error)))
    seconds = time.perf_counter() - began
    found = dataclasses.replace(
        found, compile_seconds=seconds, memory=hlo.memory_of(compiled), untiled=untiled
    )
    text, unread = read_text(compiled)
    return dataclasses.replace(
        found,
        unread=unread,
        collectives=tuple(hlo.collectives_of(text)),
        host_transfers=tuple(hlo.host_transfers(text)),
    )


def read_text(compiled: jax.stages.Compiled) -> tuple[str, str | None]:
    """Return a compiled program's text, and why it cannot be read, then ""; None: it was."""
    try:
        return compiled.as_text(), None
    except jax.errors.JaxRuntimeError as error:  # jaxlib may be older than libtpu
        return "", reason(str(error))


def reason(message: str) -> str:
    """Return the line of a compiler's message that tells most."""
    lines = message.splitlines()
    told = [line for line in lines if "exceed" in line.lower() or "used" in line.lower()]
    return (told or lines)[0].strip()[:300]
