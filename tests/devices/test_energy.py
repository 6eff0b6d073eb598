"""Energy: counters that count and turn over, as Linux and NVIDIA's library show them."""

import ctypes
import time

import pytest

from semanticfl_jax.devices.energy import Meter, counters


def domain(folder, name, energy, turn=1_000_000):
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{turn}\n")
    return folder


class FakeLibrary:
    """NVIDIA's, of `count` GPUs, of which those in `silent` have no counter."""

    def __init__(self, count=1, silent=()):
        self.count, self.silent = count, silent
        self.millijoules = 5_000

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = self.count
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):
        device._obj.value = 100 + index
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device, count):
        if device.value - 100 in self.silent:
            return 3  # not supported
        assert isinstance(count._obj, ctypes.c_ulonglong)
        count._obj.value = self.millijoules
        return 0


def test_packages_and_gpus_are_counted_and_what_is_within_them_is_not(tmp_path):
    packages = [domain(tmp_path / f"intel-rapl:{i}", f"package-{i}", 100) for i in range(2)]
    domain(tmp_path / "intel-rapl:0:0", "core", 7)
    domain(tmp_path / "intel-rapl:2", "psys", 7)
    library = FakeLibrary()
    found = counters(tmp_path, library)
    assert {kind: len(those) for kind, those in found.items()} == {"processors": 2, "GPUs": 1}
    meter = Meter(found)
    (packages[0] / "energy_uj").write_text("400100")  # 0.4 J
    (packages[1] / "energy_uj").write_text("50")  # turned over: 1 J, less 50 microjoules
    library.millijoules += 2_500
    assert meter.stop() == pytest.approx({"processors": 1.39995, "GPUs": 2.5})


def test_gpus_are_given_up_if_one_does_not_answer(tmp_path):
    assert len(counters(tmp_path, FakeLibrary(3))["GPUs"]) == 3
    assert "GPUs" not in counters(tmp_path, FakeLibrary(3, silent=[1]))


def test_a_counter_that_turns_over_twice_is_read_in_between(tmp_path):
    package = domain(tmp_path / "intel-rapl:0", "package-0", 900_000)
    found = counters(tmp_path, object())
    meter = Meter(found, every=0.01)
    for value in (100_000, 800_000, 300_000):  # 0.2, 0.7, 0.5 J
        (package / "next").write_text(str(value))
        (package / "next").replace(package / "energy_uj")  # at once, as the kernel's are
        deadline = time.monotonic() + 10
        while meter._last["processors"] != [value] and time.monotonic() < deadline:
            time.sleep(0.005)
    assert meter.stop() == pytest.approx({"processors": 1.4})


def test_a_machine_that_does_not_tell(tmp_path):
    package = domain(tmp_path / "intel-rapl:0", "package-0", 1)
    (package / "energy_uj").unlink()
    assert counters(tmp_path, object()) == {}
    assert Meter({}).stop() is None
    gone = domain(tmp_path / "intel-rapl:1", "package-1", 1)
    meter = Meter(counters(tmp_path, object()))
    (gone / "energy_uj").unlink()
    assert meter.stop() is None
