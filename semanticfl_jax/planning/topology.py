"""Meshes of devices that need not be there, by name: "v5e:4x4", "h100:8", or "cpu:8" of here."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from semanticfl_jax.devices.mesh import CLIENTS, device_mesh
from semanticfl_jax.errors import MissingDependencyError, SemanticFLError
from semanticfl_jax.optional import missing, optional_imports
from semanticfl_jax.planning.chips import CHIPS, Chip
from semanticfl_jax.planning.gpus import GPUS, target_config

# libtpu reads these when it is loaded. It would look for a TPU host's metadata, minutes long where
# there is none, and let one process at a time load it, for the sake of a TPU that is not used here.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

# Of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPU_SHARE = 0.75
# The part of a slice of several hosts that each of them has.
_HOSTS = {"v4": "2x2x1", "v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}


class Topology(NamedTuple):
    """Devices to plan for.

    Attributes:
      name: as it was given.
      mesh: all of them along the axis "clients".
      chip: of what kind; None for CPU devices.
    """

    name: str
    mesh: Mesh
    chip: Chip | None

    @property
    def platform(self) -> str:
        """What JAX calls their kind: cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    def of_one_host(self) -> list[jax.Device]:
        """Return the devices of a host by itself: of part of a slice, XLA may compile nothing."""
        every = list(self.mesh.devices.flat)
        if len({each.process_index for each in every}) == 1:
            return every
        kind, shape = _parse(self.name)
        host = str(shape[-1]) if kind in GPUS else _HOSTS[kind]
        return list(make_topology(f"{kind}:{host}").mesh.devices.flat)

    @property
    def memory(self) -> float | None:
        """Bytes of HBM of each device; None on CPU."""
        return None if self.chip is None else self.chip.memory

    @property
    def room(self) -> float | None:
        """Bytes of each device that JAX takes for programs by default; None on CPU."""
        if self.memory is None:
            return None
        return self.memory * (_GPU_SHARE if self.platform == "gpu" else 1)


def cpu_devices(name: str) -> int | None:
    """Return N of "cpu:N"; None for another topology.

    Raises:
      SemanticFLError: for a name that is no topology.
    """
    kind, shape = _parse(name)
    return math.prod(shape) if kind == "cpu" else None


def make_topology(name: str) -> Topology:
    """Return the devices that a name means.

    Args:
      name: a TPU of `CHIPS` and the slice's shape, as in "v5e:4x4" or "v4:2x2x1"; a GPU and how
        many, as in "h100:8", or "h100:4x8" for 4 hosts of 8; or "cpu:N" for N CPU devices of this
        process.

    Raises:
      SemanticFLError: for a name that is no topology, or for more CPU devices than there are.
      MissingDependencyError: without what compiles for it, libtpu or JAX's plug-in for CUDA.
    """
    kind, shape = _parse(name)
    count = math.prod(shape)
    if kind == "cpu":
        devices = jax.devices("cpu")
        if count > len(devices):
            raise SemanticFLError(
                f"--topology={name}: JAX has {len(devices)} CPU devices here; set "
                f"JAX_NUM_CPU_DEVICES={count} before it starts"
            )
        return Topology(name, device_mesh(devices[:count], CLIENTS), None)
    _check_compiler(name, kind)
    options: dict[str, Any] = {"platform": "tpu", "topology_name": name}
    if kind == "v4":
        # A chip's two cores are one device, as they are on TPU v4 itself.
        options["chip_config_name"] = "megacore"
    if kind in GPUS:
        hosts, each = shape if len(shape) == 2 else (1, *shape)
        options = {
            "platform": "cuda",
            "topology_name": kind,
            "topology": f"1x{hosts}x{each}",  # of one slice
            "target_config": target_config(kind),
        }
    try:
        described = topologies.get_topology_desc(**options)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SemanticFLError(f"--topology={name} cannot be had from JAX: {reason}") from error
    return Topology(name, device_mesh(described.devices, CLIENTS), CHIPS[kind])


def _check_compiler(name: str, kind: str) -> None:
    """Raise `MissingDependencyError` without what compiles for a topology; make libtpu ready."""
    purpose = f"--topology={name}"
    if kind in GPUS:
        if not has_cuda_plugin():
            raise MissingDependencyError(
                missing("plan-gpu", purpose, "JAX has no plug-in for CUDA here")
            )
        return
    with optional_imports("plan", purpose):
        import libtpu  # noqa: F401
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def has_cuda_plugin() -> bool:
    """Return whether JAX's plug-in for CUDA 12 or 13 is installed; it compiles without a GPU."""
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))


def _parse(name: str) -> tuple[str, tuple[int, ...]]:
    """Return the kind and the shape that a topology's name tells."""
    kind, colon, text = name.partition(":")
    if not colon or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise SemanticFLError(
            '--topology must be a chip and a shape, as "v5e:4x4", "h100:8" or "cpu:8", got '
            f"{name!r}"
        )
    if kind != "cpu" and kind not in CHIPS:
        known = ", ".join([*CHIPS, "cpu"])
        raise SemanticFLError(f"--topology={name}: the chip must be one of {known}, got {kind!r}")
    shape = tuple(int(length) for length in text.split("x"))
    if kind in GPUS and len(shape) > 2:
        raise SemanticFLError(
            f"--topology={name}: GPUs are so many, or HOSTSxEACH, as {kind}:8 or {kind}:4x8"
        )
    return kind, shape
