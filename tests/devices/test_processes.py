"""Several processes as one: here of the rules alone, each process a thread without devices."""

import threading

import jax
import numpy as np
import pytest

from semanticfl_jax.devices import processes
from semanticfl_jax.errors import SemanticFLError


@pytest.fixture
def together(monkeypatch):
    """Runs a function in two threads that take themselves for processes 0 and 1."""
    count, here = 2, threading.local()
    barrier = threading.Barrier(count, timeout=20)
    slots = [None] * count

    def gather(value):
        slots[here.index] = np.asarray(value)
        barrier.wait()
        gathered = np.stack(slots)
        barrier.wait()
        return gathered

    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(jax, "process_index", lambda: here.index)
    monkeypatch.setattr(processes, "process_allgather", gather)
    monkeypatch.setattr(
        processes.ocp.multihost, "get_barrier_sync_fn", lambda: lambda **_: barrier.wait()
    )

    def run(function):
        results = [None] * count

        def one(index):
            here.index = index
            try:
                results[index] = function(index)
            except Exception as error:
                results[index] = error

        threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results

    return run


def test_the_main_process_goes_first(together):
    order = []

    def work(index):
        with processes.main_first():
            order.append(index)
            return index

    assert together(work) == [0, 1]
    assert order == [0, 1]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_process_is_an_error_in_all(together, failing):
    reached = []

    def work(index):
        with processes.main_first():
            reached.append(index)
            if index == failing:
                raise OSError("no such file: ü")

    results = together(work)
    own, told = results[failing], results[1 - failing]
    assert type(own) is OSError and str(own) == "no such file: ü"
    assert type(told) is SemanticFLError and str(told) == f"process {failing}: no such file: ü"
    # Who waits for a process that failed does not begin.
    assert reached == list(range(failing + 1))


def test_a_flag_in_any_process_counts(together):
    assert together(lambda index: processes.anywhere(index == 1)) == [True, True]
    assert together(lambda index: processes.anywhere(False)) == [False, False]


def test_the_main_process_decides(together):
    assert together(lambda index: processes.of_main(5 + index)) == [5, 5]


def test_what_differs_between_processes_is_refused_in_all(together):
    images = np.arange(12).reshape(3, 4)

    def agree(index):
        processes.require_equal("images", images, images[:, ::2])

    def differ(index):
        processes.require_equal("images", images, np.full(2, index))

    assert together(agree) == [None, None]
    assert all("images must be the same" in str(error) for error in together(differ))


def test_one_process_has_nobody_to_ask():
    assert processes.is_main()
    assert processes.anywhere(True) is True
    assert processes.of_main(3) == 3
    processes.require_equal("images", np.zeros(3))
    with pytest.raises(OSError, match="mine"), processes.main_first():
        raise OSError("mine")
