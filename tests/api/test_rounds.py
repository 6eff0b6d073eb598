"""A run round by round: iterating, callbacks, threads."""

import threading

import pytest

import semanticfl_jax as sfl
from tests.api.runs import CONFIG, same, tiny
from tests.results import without_times


def test_iterating_is_the_same_run_and_can_be_left_and_taken_up(whole):
    simulation = sfl.Simulation(CONFIG, **tiny())
    for step in simulation:
        assert int(simulation.state.round) == step.round == simulation.round
        if step.round == 1:
            break
    result = simulation.run(1)
    assert simulation.round == 2 and len(result.history) == 2
    assert [step.round for step in simulation] == [3]
    assert list(simulation) == []
    same(simulation.result().params, whole.params)
    assert without_times(simulation.history) == without_times(whole.history)


def test_callbacks_hear_of_everything_in_order():
    heard = []

    class Listen(sfl.Callback):
        def on_start(self, simulation):
            heard.append("start")

        def on_round(self, simulation, step):
            heard.append((step.round, step.evaluated))

        def on_evaluation(self, simulation, step):
            heard.append(f"accuracy {step.round}")
            assert 0 <= step.metrics["test_accuracy"] <= 1

        def on_end(self, simulation):
            heard.append("end")

        def close(self):
            heard.append("close")

    config = sfl.ExperimentConfig(**{**vars(CONFIG), "eval_every": 2})
    sfl.run(config, callbacks=[Listen()], **tiny())
    rounds = [(1, False), (2, True), "accuracy 2", (3, True), "accuracy 3"]
    assert heard == ["start", *rounds, "end", "close"]


def test_a_callback_that_fails_is_the_runs_failure_and_others_are_closed():
    closed = []

    class Fail(sfl.Callback):
        def on_round(self, simulation, step):
            raise ZeroDivisionError

        def close(self):
            closed.append(True)

    with pytest.raises(ZeroDivisionError):
        sfl.run(CONFIG, callbacks=[Fail()], **tiny())
    assert closed == [True]


def test_a_run_in_a_thread_beside_another_is_the_same(whole):
    results = []

    def train():
        results.append(sfl.run(CONFIG, **tiny()))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    same(results[0].params, whole.params)
