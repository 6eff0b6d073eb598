"""The progress bar on a terminal and in a log file."""

import io
import re

import pytest

from semanticfl_jax.reporting.writers import progress


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self):
        return True


def test_a_log_gets_few_whole_lines_and_the_last_round():
    log = io.StringIO()
    with progress.RoundProgress(500, stream=log, log_seconds=3600) as bar:
        for number in range(1, 501):
            bar.update(number, accuracy=number / 1000, images_per_second=1234.4)
    (line,) = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert "500/500" in line and "accuracy 50.00%" in line and "1,234 images/s" in line


def test_a_log_line_shows_time_left_from_the_new_rounds_alone(monkeypatch):
    clock = iter([0.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = io.StringIO()
    bar = progress.RoundProgress(100, done=80, stream=log)
    bar.update(84, accuracy=0.5)
    # 4 rounds took 40 s, so the 16 left take 160 s.
    assert "84/100" in log.getvalue() and re.search(r"00:40<02:40", log.getvalue())


def test_a_terminal_shows_the_resumed_round_and_keeps_the_last_accuracy():
    terminal = Terminal()
    with progress.RoundProgress(10, done=6, stream=terminal) as bar:
        bar.update(7, accuracy=0.4321, images_per_second=99.0)
        bar.update(8, images_per_second=55.0, epsilon=1.234)
    assert "6/10" in terminal.getvalue()
    last = terminal.getvalue().split("\r")[-1]
    assert "8/10" in last and "accuracy 43.21%" in last and "55 images/s" in last
    assert "epsilon 1.23" in last and "epsilon" not in terminal.getvalue().split("\r")[-2]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_closing_early_is_quiet(stream):
    with progress.RoundProgress(10, stream=stream) as bar:
        bar.update(1)
    assert "accuracy" not in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_line_for_the_user_stands_alone(stream):
    with progress.RoundProgress(10, stream=stream) as bar:
        bar.update(1)
        bar.say("stopping after this round")
    lines = [part.strip() for part in re.split(r"[\r\n]", stream.getvalue())]
    assert "stopping after this round" in lines


def test_a_quiet_one_shows_nothing_but_what_it_is_told():
    terminal = Terminal()
    with progress.RoundProgress(2, stream=terminal, quiet=True) as bar:
        bar.update(1, accuracy=0.5)
        bar.update(2, accuracy=0.5)
        assert terminal.getvalue() == ""
        bar.say("stopping")
    assert "stopping" in terminal.getvalue()
