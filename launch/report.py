"""Compares finished runs.

Prints a table with one line a method, mean ± standard deviation over its seeds:

    python -m launch.report runs/demo/*/ --out=runs/demo

With --out it also writes comparison.md, comparison.csv and comparison.png there.
"""

from collections.abc import Sequence

from absl import app, flags

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.plugins import load_plugins
from semanticfl_jax.reporting.report import compare

from .flags import fail

_OUT = flags.DEFINE_string("out", None, "Directory for comparison.md, .csv and .png.")
_PLUGIN = flags.DEFINE_multi_string("plugin", [], "Module that registers entries of your own.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of every error.")


def main(arguments: Sequence[str]) -> None:
    """Prints the table, and with --out the paths written."""
    directories = arguments[1:]
    if not directories:
        fail("give the directories of finished runs: python -m launch.report DIR DIR ...")
    try:
        load_plugins(_PLUGIN.value)
        print(compare(directories, _OUT.value))
    except (SemanticFLError, OSError) as error:
        fail(error, _DEBUG.value)


if __name__ == "__main__":
    app.run(main)
