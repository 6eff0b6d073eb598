"""Compares finished runs.

Prints a table with one line a method, mean ± standard deviation over its seeds:

    python -m launch.report runs/demo/*/ --out=runs/demo --html=runs/demo/report.html

With --out it also writes there the table (comparison.md, comparison.csv, comparison.tex; every seed
in comparison_seeds.csv) and plots: curves, bars, and a panel a method if there are many. For a
paper: --format=pdf --size=column --font=serif.

With --html it writes one page that needs nothing else: gains with tests over seeds, curves,
classes, clients, calibration, traffic, time, privacy, partition, anchors, configuration.
"""

from collections.abc import Sequence

from absl import flags, logging

from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting.html.page import write_page
from semanticfl_jax.reporting.plots.paper import FONTS, FORMATS, SIZES, Paper
from semanticfl_jax.reporting.report import compare

from .flags import define_common, define_path, fail, run_plain

_OUT = define_path("out", "Directory for tables and plots.")
_HTML = define_path("html", "File for the report as one web page.")
_FORMAT = flags.DEFINE_list("format", ["png"], f"Formats of the plots: {', '.join(FORMATS)}.")
_SIZE = flags.DEFINE_string(
    "size", "screen", f"Size of the plots, {', '.join(SIZES)}; of a two-column paper the last two."
)
_FONT = flags.DEFINE_string("font", "sans", f"Font of the plots, {' or '.join(FONTS)}.")
_FONT_SIZE = flags.DEFINE_float("font_size", None, "In points; by default as --size has it.")
define_common()


def main(arguments: Sequence[str]) -> None:
    """Print the table, and the paths written."""
    directories = arguments[1:]
    if not directories:
        fail("give the directories of finished runs: python -m launch.report DIR DIR ...")
    logging.set_verbosity(logging.WARNING)  # else writing PDF tells of every glyph
    runs = [local_path(each, "a directory") for each in directories]
    paper = Paper(tuple(_FORMAT.value), _SIZE.value, _FONT.value, _FONT_SIZE.value)
    print(compare(runs, _OUT.value, paper))
    if _HTML.value is not None:
        print(f"wrote {write_page(runs, _HTML.value)}")


if __name__ == "__main__":
    run_plain(main)
