"""XLA on CPU has the thread to spare without which its convolutions are wrong."""

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


def test_a_convolution_repeats_exactly_on_two_devices_of_a_command():
    settings = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    given = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PJRT_NPROC", "NPROC")}
    process = subprocess.run(
        [sys.executable, "-c", REPEAT_A_CONVOLUTION],
        env=given | settings,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert process.stdout == "steps that differ: 0\n", process.stderr


def test_devices_without_a_thread_to_spare_are_refused(monkeypatch):
    monkeypatch.setattr(cpu_threads, "available_cores", lambda: 4)
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    cpu_threads.check(devices=3, local_devices=4)
    with pytest.raises(ValueError, match="PJRT_NPROC must be at least 5 for 4 CPU devices"):
        cpu_threads.check(devices=4, local_devices=4)
    monkeypatch.setenv("NPROC", "2")  # XLA takes no fewer threads than there are devices
    cpu_threads.check(devices=3, local_devices=4)
    with pytest.raises(ValueError, match="got 4"):
        cpu_threads.check(devices=4, local_devices=4)
    monkeypatch.setenv("PJRT_NPROC", str(cpu_threads.threads_for(4)))
    cpu_threads.check(devices=4, local_devices=4)
    assert cpu_threads.threads_for(4) == 5
    assert cpu_threads.threads_for(2) == 5  # a thread for each core, and one to spare
    monkeypatch.setenv("PJRT_NPROC", "1")
    cpu_threads.check(devices=1, local_devices=1)


@pytest.mark.parametrize(
    "make",
    (make_mesh, image_mesh, placements),
    ids=("clients", "images", "rows of a batch"),
)
def test_a_mesh_is_refused_without_a_thread_to_spare(make, monkeypatch):
    devices = jax.local_device_count()
    monkeypatch.setenv("PJRT_NPROC", str(devices))
    make(devices - 1)
    with pytest.raises(ValueError, match="with no thread to spare XLA computes wrong numbers"):
        make(devices)
