"""What the clients' states take: told before a run starts, refused where it cannot fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated import memory
from semanticfl_jax.federated.memory import check_client_memory
from tests.federation import algorithm_of

# One million parameters and a thousand running statistics: 4 MB and 4 kB.
MODEL = Model(
    {"model": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)},
    jax.ShapeDtypeStruct((1000,), jnp.float32),
)


def check(name, num_clients=10, devices=2, where="device"):
    config = ExperimentConfig(algorithm=AlgorithmConfig(name=name), num_clients=num_clients)
    return check_client_memory(algorithm_of(config), MODEL, num_clients, make_mesh(devices), where)


def test_the_memory_of_each_algorithm_is_stated(monkeypatch):
    monkeypatch.setattr(memory, "free_host_memory", lambda: 10**9)
    for name in ("fedavg", "fedprox", "feddisco", "fednova", "fedadam"):
        assert check(name) is None
    assert check("scaffold") == (
        "client states: 40.0 MB, 4.0 MB for each of 10 clients, spread over 2 devices"
    )
    assert "client states: 40.0 MB" in check("feddyn")
    assert "client states: 40.0 MB" in check("moon")
    # Three models of every client, running statistics included.
    assert "client states: 120.1 MB, 12.0 MB for each of 10" in check("fedcda", where="host")
    assert check("scaffold", 10, 3).endswith("whole on each of 3 devices")


def test_what_cannot_fit_is_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(memory, "free_host_memory", lambda: 200 * 10**6)
    with pytest.raises(ValueError, match=r"need 240\.2 MB in host memory, and 200\.0 MB are free"):
        check("fedcda", where="host")
    with pytest.raises(ValueError, match="client_state_memory=host"):
        check("fedcda")
    monkeypatch.setattr(memory, "free_host_memory", lambda: 250 * 10**6)
    assert check("fedcda")
    # An accelerator tells what it has; each holds its part.
    monkeypatch.setattr(memory, "free_device_memory", lambda device: 121 * 10**6)
    assert check("fedcda")
    monkeypatch.setattr(memory, "free_device_memory", lambda device: 119 * 10**6)
    with pytest.raises(ValueError, match=r"need 120\.1 MB on each device, and 119\.0 MB are free"):
        check("fedcda")


def test_where_an_accelerator_does_not_tell_its_memory_nothing_is_refused(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {}

    class Mesh:
        devices, local_devices = np.array([Device()]), (Device(),)

    monkeypatch.setattr(memory, "free_host_memory", lambda: 1)
    algorithm = algorithm_of(ExperimentConfig(algorithm=AlgorithmConfig(name="scaffold")))
    said = check_client_memory(algorithm, MODEL, 10, Mesh(), "device")
    assert "client states: 40.0 MB" in said


def test_each_of_several_processes_keeps_its_share_in_host_memory(monkeypatch):
    mesh = make_mesh(2)
    algorithm = algorithm_of(ExperimentConfig(algorithm=AlgorithmConfig(name="fedcda")))
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    # Four of ten clients, 12 MB each, and no copy for a checkpoint.
    monkeypatch.setattr(memory, "free_host_memory", lambda: 49 * 10**6)
    said = check_client_memory(algorithm, MODEL, 10, mesh, "host")
    assert said.endswith("10 clients, in host memory of 3 processes, a share of each")
    monkeypatch.setattr(memory, "free_host_memory", lambda: 48 * 10**6)
    with pytest.raises(ValueError, match=r"\. They need 48\.0 MB in host memory, and 48\.0 MB"):
        check_client_memory(algorithm, MODEL, 10, mesh, "host")


def test_free_memory_of_this_machine_is_plausible():
    assert 10**8 < memory.free_host_memory() < 10**14
    assert memory.free_device_memory(jax.devices()[0]) is None


def test_a_run_that_cannot_fit_does_not_start(monkeypatch, tmp_path):
    from semanticfl_jax.simulation import experiment

    monkeypatch.setattr(memory, "free_host_memory", lambda: 10**6)
    config = ExperimentConfig(dataset="digits", algorithm=AlgorithmConfig(name="fedcda"))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=8))
    with pytest.raises(SemanticFLError, match="are free"):
        experiment.run(config, tmp_path / "run", say=None)
    assert not (tmp_path / "run").exists()
