"""XLA on CPU has the threads without which it computes wrong numbers, or waits for ever."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from semanticfl_jax.devices import cpu_threads
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.diffusion.batches import image_mesh
from semanticfl_jax.pretraining.loop import placements

ROOT = Path(__file__).parents[2]
# The same convolution in every step of a loop on two devices, between operations that XLA cuts into
# pieces. With a thread a device and no more, its first pixels are wrong from about step 110 on.
REPEAT_A_CONVOLUTION = """
import os
import numpy as np
if hasattr(os, "sched_setaffinity"):  # more cores would be more threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from semanticfl_jax import use_all_cores
use_all_cores()
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P

images = jax.random.normal(jax.random.key(0), (10, 28, 28, 64))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 64, 32))
pads, form = ((2, 2), (2, 2)), ("NHWC", "HWIO", "NHWC")

def repeat(ids, images, kernel):
    images, kernel, zero = *jax.lax.pcast((images, kernel), "clients", to="varying"), 0.0 * ids[0]

    def step(carry, _):
        others, one = carry
        y = jax.lax.conv_general_dilated(images * one, kernel, (1, 1), pads, dimension_numbers=form)
        return ([jnp.tanh(x) + one for x in others], one + 0 * y[0, 0, 0, 0]), y[0, 0, 0]

    others = [jnp.zeros(100_000) + zero] * 16
    (others, _), pixels = jax.lax.scan(step, (others, 1 + zero), length=250)
    return pixels[None], sum(x[0] for x in others)[None]

mesh = jax.make_mesh((2,), ("clients",), (AxisType.Auto,))
spread = P("clients")
repeat = jax.jit(
    jax.shard_map(repeat, mesh=mesh, in_specs=(spread, P(), P()), out_specs=spread)
)
pixels = np.asarray(repeat(jnp.arange(2.0), images, kernel)[0])
print("steps that differ:", (pixels != pixels[:, :1]).any((0, 2)).sum())
"""
# Devices exchange numbers again and again, in programs that follow one another. With a thread a
# device and one more, all threads wait before long; the first to wait for 20 seconds ends XLA.
EXCHANGE = """
import os
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=10 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=20"
)
from semanticfl_jax import use_all_cores
use_all_cores()
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P

ring = [(device, (device + 1) % 4) for device in range(4)]

def exchange(rows, x):
    rows = jax.lax.fori_loop(0, 3, lambda _, x: 1.01 * jax.lax.ppermute(x, "clients", ring), rows)
    for _ in range(6):
        x = x / (1 + jax.lax.psum(jnp.sin(x), "clients") ** 2)
    return rows, x

mesh = jax.make_mesh((4,), ("clients",), (AxisType.Auto,))
spread = P("clients")
exchange = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=spread, out_specs=spread))
values = jnp.ones((4, 1000)), jnp.ones((4, 1000))
for _ in range(1000):
    values = exchange(*values)
jax.block_until_ready(values)
print("done")
"""


def on_devices(count, code):
    """What a script prints on so many CPU devices, and its errors."""
    settings = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}
    given = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PJRT_NPROC", "NPROC")}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=given | settings,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return process.stdout, process.stderr


def test_a_convolution_repeats_exactly_on_two_devices_of_a_command():
    said, errors = on_devices(2, REPEAT_A_CONVOLUTION)
    assert said == "steps that differ: 0\n", errors


def test_devices_that_exchange_numbers_do_not_wait_for_ever():
    said, errors = on_devices(4, EXCHANGE)
    assert said == "done\n", errors


def test_devices_without_two_threads_each_are_refused(monkeypatch):
    monkeypatch.setattr(cpu_threads, "available_cores", lambda: 4)
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    cpu_threads.check(devices=2, local_devices=4)
    with pytest.raises(ValueError, match="PJRT_NPROC must be at least 6 for 3 CPU devices"):
        cpu_threads.check(devices=3, local_devices=4)
    monkeypatch.setenv("NPROC", "2")  # XLA takes no fewer threads than there are devices
    cpu_threads.check(devices=2, local_devices=4)
    with pytest.raises(ValueError, match="got 4"):
        cpu_threads.check(devices=3, local_devices=4)
    monkeypatch.setenv("PJRT_NPROC", str(cpu_threads.threads_for(4)))
    cpu_threads.check(devices=4, local_devices=4)
    assert cpu_threads.threads_for(4) == 8
    assert cpu_threads.threads_for(2) == 5  # a thread for each core, and one to spare
    monkeypatch.setenv("PJRT_NPROC", "1")
    cpu_threads.check(devices=1, local_devices=1)


@pytest.mark.parametrize(
    "make",
    (make_mesh, image_mesh, placements),
    ids=("clients", "images", "rows of a batch"),
)
def test_a_mesh_is_refused_without_two_threads_a_device(make, monkeypatch):
    devices = jax.local_device_count()
    monkeypatch.setenv("PJRT_NPROC", str(2 * devices - 2))
    make(devices - 1)
    with pytest.raises(ValueError, match="with fewer than two threads a device XLA computes wrong"):
        make(devices)
