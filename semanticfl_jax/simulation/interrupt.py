"""Stopping between rounds: the first signal asks, the second insists."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_between_rounds(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a request that the loop reads between rounds.

    Yields:
      A function that tells whether a stop was asked for. A second signal stops at once, in the
      midst of a round, for whose end Python would wait after its own handler of SIGINT.
    """
    asked = False
    previous = {}

    def ask(number, frame):
        del frame
        nonlocal asked
        asked = True
        insists = previous[number]
        # Commands that a script starts in the background come with SIGINT ignored.
        if insists in (signal.default_int_handler, signal.SIG_IGN):
            insists = signal.SIG_DFL
        signal.signal(number, insists)
        say("stopping after the rounds under way; once more to stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
