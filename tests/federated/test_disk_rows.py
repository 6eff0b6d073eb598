"""States of clients in files: rows, rounds undone, and runs that are killed and resumed."""

import shutil

import jax
import numpy as np
import pytest

from semanticfl_jax.config import AlgorithmConfig, ClientTestConfig, ExperimentConfig, RuntimeConfig
from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.federated import disk_rows
from semanticfl_jax.federated.disk_rows import DiskRows
from semanticfl_jax.federated.kept_rows import make_table
from semanticfl_jax.simulation import experiment
from semanticfl_jax.simulation.callbacks import Callback
from tests.federation import CLASSES, TwoLayers, noise_images
from tests.results import metrics_without_times

ONE = {"zeros": np.zeros((2, 3), np.float32), "ones": np.ones((), np.int32)}
CLIENTS = 7


def rounds():
    """(number, ids, rows) of some rounds, clients coming back."""
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        ids = rng.permutation(CLIENTS)[:3]
        rows = {
            "zeros": rng.normal(size=(3, 2, 3)).astype(np.float32),
            "ones": rng.integers(0, 100, 3).astype(np.int32),
        }
        yield number, ids, rows


def after(last):
    """All rows after round `last`, by NumPy."""
    everyone = jax.tree.map(lambda x: np.repeat(x[None], CLIENTS, axis=0), ONE)
    for number, ids, rows in rounds():
        if number <= last:
            for name, array in everyone.items():
                array[ids] = rows[name]
    return everyone


def require_rows(found, last):
    jax.tree.map(np.testing.assert_array_equal, found.take(np.arange(CLIENTS)), after(last))


@pytest.fixture
def done(tmp_path):
    found = DiskRows(ONE, CLIENTS, tmp_path)
    require_rows(found, 0)
    for number, ids, rows in rounds():
        found.put(ids, rows, number)
    return found


def test_rows_are_kept_and_found_again(done, tmp_path):
    require_rows(done, 5)
    done.flush()
    require_rows(DiskRows(ONE, CLIENTS, tmp_path), 5)
    assert jax.tree.leaves(done) == []


@pytest.mark.parametrize("last", [5, 3, 0])
def test_rounds_are_undone(done, tmp_path, last):
    again = DiskRows(ONE, CLIENTS, tmp_path)
    again.roll_back(last)
    require_rows(again, last)
    again.roll_back(last)
    require_rows(again, last)


def test_files_that_are_not_there_are_not_taken_for_those_of_a_round(tmp_path):
    for _ in range(2):  # also once the files have been made
        with pytest.raises(SemanticFLError, match="not those of a run after round 2"):
            DiskRows(ONE, CLIENTS, tmp_path).roll_back(2)


def test_rows_that_cannot_go_back_so_far_are_refused(done):
    done.forget(3)
    for number in (0, 2):
        with pytest.raises(SemanticFLError, match=f"not those of a run after round {number}"):
            done.roll_back(number)
    require_rows(done, 5)


def test_what_is_not_needed_is_dropped(done, tmp_path):
    done.forget(3)
    # The third's own tells that the rows have come so far.
    assert sorted(path.stem for path in (tmp_path / "undo").iterdir()) == ["3", "4", "5"]
    done.roll_back(3)
    require_rows(done, 3)


def test_a_million_clients_take_no_space_until_they_take_part(tmp_path):
    one = {"control": np.zeros(1000, np.float32)}
    found = DiskRows(one, 1_000_000, tmp_path)
    assert (tmp_path / "0.npy").stat().st_size > 4e9
    assert (tmp_path / "0.npy").stat().st_blocks * 512 < 1e6
    ids = np.array([5, 999_999])
    found.put(ids, {"control": np.ones((2, 1000), np.float32)}, 1)
    np.testing.assert_array_equal(found.take(np.array([999_999, 4]))["control"][:, 0], [1, 0])
    assert (tmp_path / "0.npy").stat().st_blocks * 512 < 1e6


def test_files_of_another_run_and_a_full_disk_are_refused(tmp_path, monkeypatch):
    DiskRows(ONE, CLIENTS, tmp_path / "a")
    with pytest.raises(SemanticFLError, match=r"belongs to another run"):
        DiskRows(ONE, CLIENTS + 1, tmp_path / "a")
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(disk_rows.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SemanticFLError, match=r"the clients' states may take 0.0 GB in"):
        DiskRows(ONE, CLIENTS, tmp_path / "b")


CONFIG = ExperimentConfig(
    dataset="digits",
    num_clients=6,
    clients_per_round=3,
    rounds=6,
    local_epochs=1,
    batch_size=8,
    public_per_class=2,
    algorithm=AlgorithmConfig(name="scaffold"),
    client_test=ClientTestConfig(share=0.2),
    eval_every=3,
    checkpoint_every=2,
    runtime=RuntimeConfig(num_devices=2, eval_batch_size=16),
)


class Killed(Exception):
    """What ends a run in the midst of it."""


class Kill(Callback):
    def __init__(self, number):
        self.number = number

    def on_round(self, simulation, step):
        if step.round == self.number:
            raise Killed


@pytest.mark.parametrize("killed", [(1, 5), (4,)])
def test_a_run_goes_on_from_its_disk(killed, tmp_path):
    noise = noise_images()

    def simulate(memory, directory, *callbacks):
        config = CONFIG.with_runtime(client_state_memory=memory)
        options = {"dataset": noise, "model": TwoLayers(CLASSES), "say": None, "progress": False}
        with experiment.Simulation(
            config, workdir=directory, callbacks=callbacks, **options
        ) as simulation:
            simulation.run()
            return simulation

    whole = simulate("device", tmp_path / "device")
    for number in killed:
        with pytest.raises(Killed):
            simulate("disk", tmp_path / "disk", Kill(number))
    # The checkpoint of round 2 or 4 has no states for another memory, and that is found in time.
    with pytest.raises(ConfigError, match=r"are in the files of client_state_memory=disk in 1 pro"):
        simulate("device", tmp_path / "disk")
    ended = simulate("disk", tmp_path / "disk")
    jax.tree.map(np.testing.assert_array_equal, ended.state.params, whole.state.params)
    rows = ended.state.clients.take(np.arange(6))
    jax.tree.map(np.testing.assert_array_equal, rows, jax.device_get(whole.state.clients))
    assert metrics_without_times(tmp_path / "disk") == metrics_without_times(tmp_path / "device")
    # Nothing of it is in the checkpoints.
    assert not any("clients" in path.name for path in (tmp_path / "disk/checkpoints").rglob("*"))


@pytest.mark.parametrize(("processes", "devices"), [(1, 2), (2, 4), (3, 3), (2, 8)])
def test_every_row_of_a_cohort_has_its_place_with_its_keeper(processes, devices):
    rng = np.random.default_rng(devices)
    for _ in range(5):
        ids = np.where(rng.random(12) < 0.2, -1, rng.permutation(50)[:12]).astype(np.int32)
        table = make_table(ids, processes, devices)
        each = devices // processes * table.slots
        rows = np.full(processes * each, -1)
        for process, own in enumerate(table.kept):
            assert len(own) <= each and set(own % processes) <= {process}
            rows[process * each :][: len(own)] = own
        np.testing.assert_array_equal(np.where(ids < 0, -1, rows[table.positions]), ids)
        assert table.slots & (table.slots - 1) == 0
        assert table.slots == 1 or 2 * max(map(len, table.kept)) > each
