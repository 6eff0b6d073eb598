"""Stopping between rounds: the first signal asks, the second insists."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from semanticfl_jax.types import Say


@contextlib.contextmanager
def stop_between_rounds(say: Say) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request that the loop reads between rounds.

    In a thread other than the main one, to which Python gives no signals, nothing changes.

    Yields:
      A function that tells whether a stop was asked for. A second signal stops at once, in the
      midst of a round, for whose end Python would wait after its own handler of SIGINT.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
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
