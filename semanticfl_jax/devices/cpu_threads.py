"""How many threads XLA needs on CPU: with fewer it computes wrong numbers, or waits for ever.

Devices run their programs on one pool of threads, which also does the pieces that operations are
cut into. A device can hold two threads: one waits for the program to end, another runs the piece at
hand and waits in it for the other devices, where numbers are exchanged. With fewer than two threads
a device, all may wait while a device still needs one; XLA ends the process after 40 seconds (seen
with jax 0.10.2 within some thousand programs; tests/devices/test_cpu_threads.py runs as many).

With as many devices as threads, convolutions are wrong without any message, once a program has run
for a second or so: in their first pixels, half of a sum is taken over the next pixels' operands
(seen with jax 0.10.2 and 0.12.0 on two devices; the same test file does it again). What probably
happens: pieces that turn out to be unneeded wait for an idle thread to clear them away, and none is
ever idle. Once a queue is full, after about a thousand, further pieces are run at once, inside
others, and Eigen's parallel convolution overwrites operands it still needs.
"""

import os
import re
import sys
from collections.abc import Mapping

from semanticfl_jax.errors import SemanticFLError


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_for(devices: int) -> int:
    """Return the `PJRT_NPROC` for so many CPU devices: two a device, and more than cores."""
    return max(least_threads(devices), available_cores() + 1)


def least_threads(devices: int) -> int:
    """Return the least `PJRT_NPROC` with which so many CPU devices work."""
    return 2 * devices


def forced_devices(environment: Mapping[str, str]) -> int | None:
    """Return the number of CPU devices that XLA_FLAGS asks for; None: it does not."""
    flags = environment.get("XLA_FLAGS", "")
    found = re.search(r"xla_force_host_platform_device_count=(\d+)", flags)
    return int(found[1]) if found else None


def use_all_cores() -> bool:
    """Make every processor core a device, if JAX runs on the CPU; call it before JAX starts.

    One client on each core is faster than all cores on one client: 1.6 times the images a second on
    two cores (`launch.benchmark`, ResNet-10 of width 16), because XLA runs narrow convolutions on
    one thread. XLA also gets the threads that it then needs. `JAX_NUM_CPU_DEVICES`, and the number
    in `XLA_FLAGS`, are respected where they are set.

    Returns:
      Whether it came in time; if not, it says so on standard error and changes nothing.

    Raises:
      SemanticFLError: if JAX_NUM_CPU_DEVICES is no whole number.
    """
    forced = forced_devices(os.environ)
    given = os.environ.get("JAX_NUM_CPU_DEVICES", str(available_cores()))
    if not given.isdecimal():
        raise SemanticFLError(f"JAX_NUM_CPU_DEVICES must be a whole number, got {given!r}")
    devices = forced or int(given)
    jax = sys.modules.get("jax")
    if jax is not None and not forced:
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError:
            print(
                "semanticfl_jax.use_all_cores: JAX has started already, with "
                f"{jax.local_device_count()} device(s); call it before anything uses JAX",
                file=sys.stderr,
            )
            return False
    if not forced:
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", given)
    os.environ.setdefault("PJRT_NPROC", str(threads_for(devices)))
    return True


def check(devices: int, local_devices: int) -> None:
    """Make sure that XLA's CPU backend computes what it is asked to.

    Args:
      devices: CPU devices of this process that take part.
      local_devices: that this process has.

    Raises:
      SemanticFLError: if there are fewer than two threads a device.
    """
    threads, least = max(_pool_size(), local_devices), least_threads(devices)
    # A single thread never cuts an operation into pieces, nor does one device wait for others.
    if 1 < threads < least:
        raise SemanticFLError(
            f"PJRT_NPROC must be at least {least} for {devices} CPU devices, set before JAX "
            f"starts, got {threads}: with fewer than two threads a device XLA computes wrong "
            "numbers or waits for ever"
        )


def _pool_size() -> int:
    """Return the environment's number of threads, read as XLA does."""
    for name in ("PJRT_NPROC", "NPROC"):
        try:
            return int(os.environ[name])
        except (KeyError, ValueError):
            continue
    return available_cores()
