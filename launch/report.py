"""Compares finished runs.

Prints a table with one line a method, mean ± standard deviation over its seeds:

    python -m launch.report runs/demo/*/ --out=runs/demo

With --out it also writes comparison.md, comparison.csv and comparison.png there.
"""

from collections.abc import Sequence

from absl import flags

from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting.report import compare

from .flags import fail, run_plain

_OUT = flags.DEFINE_string("out", None, "Directory for comparison.md, .csv and .png.")
flags.DEFINE_multi_string("plugin", [], "Module that registers entries of your own.")
flags.DEFINE_bool("debug", False, "Show the traceback of every error.")


def main(arguments: Sequence[str]) -> None:
    """Prints the table, and with --out the paths written."""
    directories = arguments[1:]
    if not directories:
        fail("give the directories of finished runs: python -m launch.report DIR DIR ...")
    out = None if _OUT.value is None else local_path(_OUT.value, "--out")
    print(compare([local_path(each, "a directory") for each in directories], out))


if __name__ == "__main__":
    run_plain(main)
