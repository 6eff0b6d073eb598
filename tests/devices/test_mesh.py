"""Which devices a run takes, in one process and in several (tests/launch/test_distributed.py)."""

import jax
import pytest

from semanticfl_jax.devices.mesh import describe, make_mesh


def numbers(mesh):
    return sorted(device.id for device in mesh.devices.flat)


def test_one_process_takes_the_first_devices():
    assert numbers(make_mesh()) == list(range(8))
    assert numbers(make_mesh(3)) == [0, 1, 2]
    assert numbers(make_mesh(0, useful=5)) == [0, 1, 2, 3, 4]
    assert numbers(make_mesh(0, useful=20)) == list(range(8))
    assert describe(make_mesh(3)) == "3 x cpu"


def test_several_processes_take_equally_many_each(monkeypatch):
    devices = jax.devices()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        jax, "local_devices", lambda process_index: devices[4 * process_index :][:4]
    )
    assert numbers(make_mesh()) == list(range(8))
    assert numbers(make_mesh(4)) == [0, 1, 4, 5]
    # Five clients: a sixth device would train nobody.
    assert numbers(make_mesh(0, useful=5)) == [0, 1, 4, 5]
    assert numbers(make_mesh(0, useful=2)) == [0, 4]
    assert describe(make_mesh(4)) == "4 x cpu in 2 processes"
    with pytest.raises(ValueError, match="num_devices must be a multiple of the 2 processes"):
        make_mesh(3)
    with pytest.raises(ValueError, match="clients_per_round must be at least the number of proc"):
        make_mesh(0, useful=1)
