"""Energy that a machine took, where it tells: processors by RAPL, NVIDIA GPUs by NVML.

Counters are of whole packages and whole GPUs, whoever used them; memory, disks and power supplies
are not in them. RAPL's are readable by root alone on most systems.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

#: Where Linux has RAPL's counters, Intel's and AMD's.
POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"
#: Seconds between two readings: at 1 kW a counter of RAPL turns over after some four minutes.
_EVERY = 20.0


class Counter(Protocol):
    """What counts energy from an unknown beginning."""

    def read(self) -> int:
        """Return the count, in units of its own; raise `OSError` if that fails."""

    @property
    def joules(self) -> float:
        """Of a unit."""

    @property
    def turn(self) -> int | None:
        """The count at which it begins anew; None: it does not."""


class _Package:
    """A processor package's counter, in microjoules."""

    joules = 1e-6

    def __init__(self, domain: Path):
        self._path = domain / "energy_uj"
        self.turn = int((domain / "max_energy_range_uj").read_text())

    def read(self) -> int:
        return int(self._path.read_text())


class _GPU:
    """A GPU's counter, in millijoules; GPUs from Volta on have one."""

    joules = 1e-3
    turn = None

    def __init__(self, library: Any, index: int):
        self._library, self._device = library, ctypes.c_void_p()
        _succeed(library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(self._device)))

    def read(self) -> int:
        count = ctypes.c_ulonglong()
        _succeed(
            self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(count))
        )
        return count.value


def _succeed(code: int) -> None:
    if code != 0:
        raise OSError(f"NVML answers with error {code}")


def counters(powercap: Path = POWERCAP, nvml: Any = None) -> dict[str, list[Counter]]:
    """Return the counters that this machine lets us read, by kind: "processors", "GPUs".

    Args:
      powercap: the folder of RAPL's domains.
      nvml: NVIDIA's library; None: the installed one, if there is one.
    """
    packages: list[Counter] = []
    for domain in sorted(powercap.glob("intel-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            # Cores and memory are domains within a package's, "psys" is around all.
            if (domain / "name").read_text().startswith("package"):
                package = _Package(domain)
                package.read()
                packages.append(package)
    gpus: list[Counter] = []
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_NVML) if nvml is None else nvml
        _succeed(library.nvmlInit_v2())
        count = ctypes.c_uint()
        _succeed(library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        # All or none: the energy of some would be taken for that of all.
        all_gpus = [_GPU(library, index) for index in range(count.value)]
        for gpu in all_gpus:
            gpu.read()
        gpus += all_gpus
    found = {"processors": packages, "GPUs": gpus}
    return {kind: those for kind, those in found.items() if those}


class Meter:
    """Adds up what counters count, in a thread of its own, from its making to `stop`.

    Args:
      found: counters by kind; None: those of this machine.
      every: seconds between two readings.
    """

    def __init__(self, found: Mapping[str, list[Counter]] | None = None, every: float = _EVERY):
        self._counters = dict(counters() if found is None else found)
        self._last = {kind: [each.read() for each in c] for kind, c in self._counters.items()}
        self._joules = dict.fromkeys(self._counters, 0.0)
        self._every, self._done = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self._counters:
            self._thread.start()

    def stop(self) -> dict[str, float] | None:
        """Return the energy by kind, in joules; None if this machine does not tell."""
        self._done.set()
        if self._counters:
            self._thread.join()
            self._add()
        return self._joules or None

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self._add()

    def _add(self) -> None:
        """Add what was counted since the last reading; a kind that cannot be read is given up."""
        for kind, those in list(self._counters.items()):
            try:
                now = [each.read() for each in those]
            except OSError:
                del self._counters[kind], self._joules[kind]
                continue
            for each, before, after in zip(those, self._last[kind], now, strict=True):
                gone = after - before
                if gone < 0 and each.turn is not None:
                    gone += each.turn
                self._joules[kind] += each.joules * max(gone, 0)
            self._last[kind] = now
