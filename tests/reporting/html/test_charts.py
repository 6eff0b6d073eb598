"""Curves as SVG: axes, bands, gaps, and that they are where the numbers are."""

import json
import re

import numpy as np
import pytest

from semanticfl_jax.reporting.html.charts import Line, chart, ticks


def test_axes_have_round_numbers():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3, 47) == [10, 20, 30, 40]
    assert ticks(-1e-3, 1e-3) == [-0.001, -0.0005, 0, 0.0005, 0.001]
    assert ticks(1, 4, whole=True) == [1, 2, 3, 4]


def axis_numbers(text, place):
    """Numbers of a chart's axis: "end" stand at the left, "middle" below."""
    found = re.findall(rf'<text x="[^"]*" y="[^"]*" class="{place}">([^<]*)</text>', text)
    return [float(each) for each in found if re.fullmatch(r"-?[\d.e-]+", each)]


def test_rounds_are_whole_and_what_is_never_negative_has_no_axis_below_zero():
    rounds, nothing = np.array([1.0, 2, 3]), np.zeros(3)
    text = chart("t", "Round", "y", [Line(0, "a", rounds, nothing, np.full(3, 5.0))])
    assert axis_numbers(text, "middle") == [1, 2, 3]
    assert min(axis_numbers(text, "end")) == 0
    bottom = json.loads(re.search(r'data-axes="([^"]*)"', text)[1])[6]
    band = re.search(r'class="band" d="M([^"]*)Z"', text)[1]
    assert max(float(pair.split()[1]) for pair in band.split("L")) == bottom
    text = chart("t", "MB", "y", [Line(0, "a", rounds / 4, -nothing - 1, None)])
    assert min(axis_numbers(text, "end")) < 0
    assert any(each % 1 for each in axis_numbers(text, "middle"))


def test_no_band_reaches_above_what_there_can_be_and_lone_points_are_dots():
    x = np.arange(1.0, 7)
    line = Line(0, "a", x, np.array([90.0, np.nan, 95, np.nan, 92, 96]), np.full(6, 20.0))
    text = chart("t", "Round", "y", [line], 100)
    axes = json.loads(re.search(r'data-axes="([^"]*)"', text)[1])
    assert axes[3] == 100
    band = re.search(r'class="band" d="M([^"]*)Z"', text)[1]
    assert min(float(pair.split()[1]) for pair in band.split("L")) == axes[7]
    assert text.count("<circle") == 2


def test_a_curve_is_drawn_where_the_numbers_are():
    line = Line(0, "a", np.array([0.0, 5, 10]), np.array([0.0, np.nan, 1.0]), None)
    text = chart("t", "x", "y", [line])
    x0, x1, y0, y1, left, right, bottom, top = json.loads(
        re.search(r'data-axes="([^"]*)"', text)[1]
    )
    pen = re.search(r'class="line" d="([^"]*)"', text)[1]
    moves = [tuple(map(float, pair.split())) for pair in pen.split("M")[1:]]
    assert "L" not in pen and len(moves) == 2  # a gap is no line
    for (x, y), (px, py) in zip([(0, 0), (10, 1)], moves, strict=True):
        assert px == pytest.approx(left + (x - x0) / (x1 - x0) * (right - left), abs=0.06)
        assert py == pytest.approx(bottom - (y - y0) / (y1 - y0) * (bottom - top), abs=0.06)
    assert chart("t", "x", "y", [Line(0, "a", np.array([]), np.array([]))]) == ""
