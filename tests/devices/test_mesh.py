"""Which devices a run takes, in one process and in several (tests/launch/test_distributed.py)."""

from types import SimpleNamespace

import jax
import pytest

from semanticfl_jax.devices.mesh import describe, devices_of_run, make_mesh


def numbers(mesh):
    return sorted(device.id for device in mesh.devices.flat)


def test_one_process_takes_the_first_devices():
    assert numbers(make_mesh()) == list(range(8))
    assert numbers(make_mesh(3)) == [0, 1, 2]
    assert numbers(make_mesh(0, useful=5)) == [0, 1, 2, 3, 4]
    assert numbers(make_mesh(0, useful=20)) == list(range(8))
    assert describe(make_mesh(3)) == "3 x cpu"


def fakes(platform, processes, each):
    """Devices of several processes, in no order of theirs."""
    return [
        SimpleNamespace(platform=platform, process_index=number % processes, id=number)
        for number in range(processes * each)
    ]


def test_several_processes_take_equally_many_each(monkeypatch):
    devices = fakes("gpu", 2, 4)

    def taken(*arguments):
        return [device.id for device in devices_of_run(devices, *arguments)]

    assert taken() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert taken(4) == [0, 2, 1, 3]
    # Five clients: a sixth device would train nobody.
    assert taken(0, 5) == [0, 2, 1, 3]
    assert taken(0, 2) == [0, 1]
    with pytest.raises(ValueError, match="num_devices must be a multiple of the 2 processes"):
        taken(3)
    with pytest.raises(ValueError, match="clients_per_round must be at least the number of proc"):
        taken(0, 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert describe(make_mesh(4)) == "4 x cpu in 2 processes"


def test_a_slice_of_tpus_is_taken_whole_unless_a_number_is_given():
    devices = fakes("tpu", 4, 4)
    assert len(devices_of_run(devices, 0, 5)) == len(devices_of_run(devices, 0, 1)) == 16
    assert [device.id for device in devices_of_run(devices, 4, 5)] == [0, 1, 2, 3]
