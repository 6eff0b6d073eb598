"""Signals: the first one asks, the second one is not left waiting for the rounds under way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semanticfl_jax.simulation.interrupt import stop_between_rounds

ROOT = Path(__file__).parents[2]
ENDLESS_ROUND = """
import signal
import sys
from types import SimpleNamespace
import jax
import jax.numpy as jnp
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.simulation import pipeline
from semanticfl_jax.simulation.interrupt import stop_between_rounds
from semanticfl_jax.simulation.engine import Engine

def count(state):
    return jax.lax.while_loop(lambda x: x[0, 0] >= 0, lambda x: (x @ x + 1) % 10, state)

start = jnp.ones((100, 100))
count = jax.jit(count).lower(start).compile()

def run_round(state, *_):
    state = count(state)
    print("under way", flush=True)
    return state, state

class Endless(SimpleNamespace):
    advance = Engine.advance

engine = Endless(
    state=start, run_round=run_round, run_block=None, shared=None, key=None,
    data_of=lambda done: None, rates=lambda done, count: None, round=0, longest=1,
)
number, before = int(sys.argv[1]), sys.argv[2]
usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
signal.signal(number, signal.SIG_IGN if before == "ignored" else usual)
with stop_between_rounds(lambda line: print(line, flush=True)) as asked:
    list(pipeline.finished_rounds(engine, ExperimentConfig(), 0, asked))
"""


def test_the_first_signal_asks_and_handlers_come_back():
    lines, before = [], signal.getsignal(signal.SIGTERM)
    with stop_between_rounds(lines.append) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked() and "once more to stop at once" in lines[0]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("before", ["heeded", "ignored"])
def test_the_second_signal_stops_in_the_midst_of_a_round(number, before):
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS_ROUND, str(int(number)), before],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "under way\n"
            process.send_signal(number)
            assert process.stdout.readline().startswith("stopping after the rounds under way")
            process.send_signal(number)
            assert process.wait(timeout=20) == -number
        finally:
            process.kill()
