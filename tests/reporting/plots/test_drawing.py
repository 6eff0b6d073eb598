"""Text in plots is text, whatever it holds; matplotlib is left as it was."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.accuracy_maps import plot_accuracy_maps
from semanticfl_jax.reporting.plots.partition import plot_partition

ROOT = Path(__file__).parents[3]
NAMES = ("$^$", r"\frac{", "a_b^c", "猫", "été", "bad\udcff\x00\n", "x" * 300, "")


def test_class_names_of_any_kind_are_drawn(tmp_path):
    """Warnings are errors in tests: of missing glyphs, too."""
    counts = np.arange(3 * len(NAMES)).reshape(3, len(NAMES))
    plot_partition(counts, NAMES, tmp_path / "partition.png")
    rows = [{"round": 1, "class_accuracy": [0.5] * len(NAMES)}]
    plot_accuracy_maps(rows, NAMES, counts, tmp_path / "maps.png")
    assert (tmp_path / "partition.png").stat().st_size > 1000
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_names_without_glyphs_are_written_in_latin_or_numbered(monkeypatch):
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", [])
    with matplotlib.rc_context():
        found = drawing.names(["cat", "猫", "ﬁn", "𝐜𝐚𝐭 猫", "y" * 60, "a\nb"])
    assert found == ["cat", "class 1", "ﬁn", "cat", f"{'y' * 37}...", "a?b"]


def test_a_font_that_has_the_glyphs_is_used(monkeypatch):
    class Font:
        name, fname = "Cats", "/fonts/cats.ttf"

    own = drawing._glyphs
    cats = frozenset(map(ord, "猫"))
    monkeypatch.setattr(drawing, "_glyphs", lambda path: cats if "cats" in path else own(path))
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", [Font])
    with matplotlib.rc_context():
        assert drawing.names(["猫", "犬"]) == ["猫", "class 1"]
        assert matplotlib.rcParams["font.family"][-1] == "Cats"


def test_the_users_settings_neither_disturb_nor_are_disturbed(tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "axes.titlesize": 40.0}):
        before = dict(matplotlib.rcParams)
        plot_partition(np.ones((2, 2), int), ("a", "b"), tmp_path / "p.png")
        assert dict(matplotlib.rcParams) == before


PLOT = """
import os, sys, numpy as np
from semanticfl_jax.reporting.plots.partition import plot_partition
plot_partition(np.ones((2, 2), int), ("a", "b"), sys.argv[1])
import matplotlib
print(os.environ["MPLBACKEND"], matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize("backend", ["module://not.installed", "nonsense", "TkAgg"])
def test_a_backend_that_is_not_there_is_not_needed(tmp_path, backend):
    done = subprocess.run(
        [sys.executable, "-c", PLOT, str(tmp_path / "p.png")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    given, used = done.stdout.strip().split(maxsplit=1)
    assert given == backend
    assert used.lower() == backend.lower() or backend == "nonsense"
    assert (tmp_path / "p.png").exists()


def test_a_failure_is_one_line(tmp_path):
    lines = []

    def draw():
        raise ValueError("two\nlines")

    drawing.attempt(tmp_path / "x.png", draw, lines.append)
    assert lines == [f"warning: {tmp_path / 'x.png'} was not drawn (ValueError: two lines)"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("fedavg + top_k (share=0.1)", ["fedavg +", "top_k", "(share=0.1)"]),
        ("a noise_multiplier=0.5 b", ["a noise_", "multiplier=", "0.5 b"]),
        ("x" * 25 + "__=_", ["x" * 11, "x" * 11, "xxx__=_"]),
        ("", [""]),
    ],
)
def test_text_is_broken_at_spaces_and_long_words_behind_signs(text, lines):
    assert drawing.wrap(text, 11).split("\n") == lines
