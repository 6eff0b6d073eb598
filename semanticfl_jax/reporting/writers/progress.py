"""The progress of a run on standard error: a bar on a terminal, sparse lines in a log file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm


class RoundProgress:
    """Shows round, accuracy, images per second and time left.

    Args:
      rounds: rounds of the whole run.
      done: rounds trained before, when the run resumes; time left is judged by the new ones only.
      stream: where to write; standard error by default.
      log_seconds: least time between two lines when `stream` is not a terminal.
      quiet: shows nothing of this, only what `say` is given.
      metric: what stands in the place of the accuracy, as in "test_mse".
    """

    def __init__(
        self,
        rounds: int,
        done: int = 0,
        stream: TextIO | None = None,
        log_seconds: float = 30.0,
        quiet: bool = False,
        metric: str = "test_accuracy",
    ):
        self._metric = metric
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty() and not quiet
        self._quiet = quiet
        self._rounds, self._first, self._round = rounds, done, done
        self._log_seconds = log_seconds
        self._start = time.monotonic()
        self._last_line = self._start
        self._accuracy = self._rate = self._epsilon = None
        self._bar = tqdm(
            total=rounds,
            initial=done,
            unit="round",
            desc="round",
            file=self._stream,
            dynamic_ncols=True,
            disable=not self._terminal,
        )

    def update(
        self,
        round: int,
        accuracy: float | None = None,
        images_per_second: float | None = None,
        epsilon: float | None = None,
    ) -> None:
        """Report that `round` (from 1) is done.

        Args:
          round: the round just finished.
          accuracy: test accuracy, a fraction, or the value of `metric`; None keeps showing the
            last one evaluated.
          images_per_second: training images a second; None keeps the last one.
          epsilon: of differential privacy, spent so far; None: none is told.
        """
        self._accuracy = self._accuracy if accuracy is None else accuracy
        self._rate = self._rate if images_per_second is None else images_per_second
        self._epsilon = epsilon
        step, self._round = round - self._round, round
        if self._terminal:
            self._bar.set_postfix_str(self._status(), refresh=False)
            self._bar.update(step)
            return
        if self._quiet:
            return
        now = time.monotonic()
        if now - self._last_line >= self._log_seconds or round == self._rounds:
            self._last_line = now
            line = tqdm.format_meter(
                n=self._round,
                total=self._rounds,
                initial=self._first,
                elapsed=now - self._start,
                ncols=0,
                prefix="round",
                unit="round",
                postfix=self._status(),
            )
            print(line, file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Write a line for the user, above the bar."""
        tqdm.write(text, file=self._stream)

    def close(self) -> None:
        """Leave the bar as it is and move to the next line."""
        self._bar.close()

    def __enter__(self) -> RoundProgress:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _status(self) -> str:
        parts = []
        if self._accuracy is not None and self._metric == "test_accuracy":
            parts.append(f"accuracy {100 * self._accuracy:.2f}%")
        elif self._accuracy is not None:
            name = self._metric.removeprefix("test_").replace("_", " ")
            parts.append(f"{name} {self._accuracy:.4g}")
        if self._epsilon is not None:
            parts.append(f"epsilon {self._epsilon:.3g}")
        if self._rate is not None:
            parts.append(f"{self._rate:,.0f} images/s")
        return ", ".join(parts)
