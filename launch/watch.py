"""Shows how far runs are, side by side, until none goes on.

    python -m launch.watch runs/demo

Takes directories of runs, or directories that hold them, and reads config.json and metrics.jsonl
alone: it can be started and stopped at any time, on another machine too. A run that ended before
its last round is called stopped; one that has written nothing for long, silent: it was probably
killed.
"""

import math
from collections.abc import Sequence

from absl import flags

from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting.watch import watch

from .flags import define_common, fail, run_plain

_EVERY = flags.DEFINE_float("every", 2.0, "Seconds between two looks.", lower_bound=0.1)
flags.register_validator("every", math.isfinite, "must be a number of seconds")
_ONCE = flags.DEFINE_bool("once", False, "Look once, print the table, and end.")
define_common()


def main(arguments: Sequence[str]) -> None:
    """Show the table."""
    if not arguments[1:]:
        fail("give directories of runs: python -m launch.watch DIR ...")
    runs = [local_path(each, "a directory") for each in arguments[1:]]
    watch(runs, every=_EVERY.value, once=_ONCE.value)


if __name__ == "__main__":
    run_plain(main)
