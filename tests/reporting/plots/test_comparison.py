"""Plots of methods beside one another: what is drawn, where the legend is, that no text is cut."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.plots import comparison as plots
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.paper import Paper
from semanticfl_jax.reporting.series import Curve, bytes_of, cost_curve, mean_curve
from tests.reporting.made_up import ACCURACIES, made_up_rows

LONG = "fedavg (server_learning_rate=0.25) + top_k (share=0.1, feedback=false)"


def curves_of(count, seeds=2):
    rng = np.random.default_rng(0)
    names = [f"method{i}" for i in range(count - 1)] + [LONG]
    return {
        name: mean_curve(
            [made_up_rows(rng.uniform(0.5, 0.9, 4)) for _ in range(seeds)], ACCURACY.name
        )
        for name in names
    }


def test_comparison_draws_mean_and_sample_deviation_over_common_rounds(tmp_path, drawn):
    seeds = [made_up_rows([0.1, 0.5]), made_up_rows([0.3, 0.9, 0.95])]
    runs = {"fedavg": seeds, "semanticfl": [made_up_rows([0.4, 0.6])]}
    plots.plot_comparison(runs, tmp_path / "comparison.png")
    (axes,) = drawn[0].axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [20, 70])
    band = axes.collections[0].get_paths()[0].vertices
    half = 40 / np.sqrt(2)
    np.testing.assert_allclose(
        [band[:, 1].min(), band[:, 1].max()], [20 - 20 / np.sqrt(2), 70 + half]
    )
    assert len(axes.collections) == 1
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["fedavg (2 seeds)", "semanticfl (1 seed)"]


def test_the_metric_is_drawn_over_what_was_sent_until_then():
    def rows(accuracies, up):
        found = made_up_rows(accuracies, every=2)
        return [{**row, "bytes_up": up, "bytes_down": 3e6} for row in found]

    def sent_of(*seeds):
        return cost_curve(list(seeds), ACCURACY.name, lambda row: bytes_of(row) / 1e6)

    sent = {
        "fedavg": sent_of(rows([0.1, 0.5], 5e6), rows([0.3, 0.7], 7e6)),
        "top_k": sent_of(rows([0.2, 0.4, 0.6], 1e6)),
    }
    with Paper().style():
        axes = plots.draw_traffic(sent, ACCURACY, "digits", Paper()).axes[0]
        np.testing.assert_allclose(axes.lines[0].get_xdata(), [18, 36])  # 2 rounds of 9, mean
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [20, 60])
        np.testing.assert_allclose(axes.lines[1].get_xdata(), [8, 16, 24])
        assert axes.get_xscale() == "linear" and axes.get_xlabel() == "MB sent, up and down"
        sent["more"] = sent_of(rows([0.5], 500e6))
        assert plots.draw_traffic(sent, ACCURACY, "digits", Paper()).axes[0].get_xscale() == "log"


def level(values, seeds=1, spread=0.0):
    values = np.array(values, float)
    return Curve(np.arange(1, len(values) + 1), values, np.full(len(values), spread), seeds)


def test_a_logarithmic_axis_has_plain_numbers_and_those_who_send_nothing_a_level_line():
    sent = {
        "fedavg": (np.array([10.0, 100.0]), level([0.2, 0.6])),
        "top_k": (np.array([0.5, 5.0]), level([0.1, 0.5])),
        "local": (np.zeros(2), level([0.3, 0.4])),
    }
    with drawing._settings(), Paper().style():
        figure = plots.draw_traffic(sent, ACCURACY, "digits", Paper())
        texts, _ = seen_in(figure)
        (axes,) = figure.axes
        ticks = [text.get_text() for text in axes.get_xticklabels() if text.get_text()]
        assert {"1", "10", "100"} <= set(ticks) and "$" not in "".join(texts)
    np.testing.assert_allclose(axes.lines[2].get_data(), ([0.5, 100], [40, 40]))
    assert "local (sends nothing)" in texts and "fedavg" in texts


def test_no_band_of_an_accuracy_leaves_what_there_can_be():
    wide = level([0.05, 0.95], seeds=2, spread=0.2)
    errors = Metric("test_mse", higher=False)
    for draw in (plots.draw_curves, plots.draw_panels):
        low, high = (
            plots_of(draw({"a": wide}, metric, "", Paper())) for metric in (ACCURACY, errors)
        )
        assert low == (0, 100) and high == pytest.approx((-0.15, 1.15))


def plots_of(figure):
    """The least and the greatest height of the band of a figure."""
    heights = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    return heights.min(), heights.max()


def test_a_point_between_gaps_is_marked():
    curve = level([0.1, np.nan, 0.3, np.nan, 0.5, 0.6])
    for draw in (plots.draw_curves, plots.draw_panels):
        line = draw({"a": curve}, ACCURACY, "", Paper()).axes[0].lines[-1]
        assert line.get_marker() == "o" and line.get_markevery() == [0, 2]
        whole = draw({"a": level([0.1, 0.2])}, ACCURACY, "", Paper()).axes[0].lines[-1]
        assert whole.get_marker() == "None"


def test_labels_of_bars_do_not_meet(tmp_path):
    finals = {"fedavg": [80.0], f"{LONG} + {LONG}": [70.0], f"{LONG} + {LONG} 2": [60.0], "b": []}
    for size in ("screen", "column"):
        with Paper(size=size).style():
            figure = plots.draw_bars(finals, ACCURACY, "digits", Paper(size=size))
            seen_in(figure)
            labels = figure.axes[0].get_yticklabels()
            assert max(text.get_text().count("\n") for text in labels) >= 3
            boxes = [text.get_window_extent() for text in labels]
        for above, below in itertools.pairwise(boxes):
            assert below.y1 < above.y0


def test_bars_say_of_how_many_seeds_and_evaluations_they_are():
    finals, counts = {"a": [20.0, 40.0], "b": [30.0, 30.0]}, {"a": 3, "b": 2}
    texts, _ = seen_in(plots.draw_bars(finals, ACCURACY, "digits", Paper(), counts, 3))
    assert "30.00 ± 14.14 (2 of 3)" in texts and "30.00 ± 0.00" in texts
    assert "Mean of the 3 evaluations, digits" in texts
    texts, _ = seen_in(plots.draw_bars(finals, ACCURACY, "", Paper(), counts, 1))
    assert "The only evaluation" in texts


def test_plotting_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.plot_comparison({"fedavg": [made_up_rows([0.1])]}, tmp_path / "comparison.png")
    assert dict(matplotlib.rcParams) == before


def seen_in(figure):
    """Every text of a figure, and the box in inches that all it draws fills."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text.get_text() for text in found], figure.get_tightbbox(canvas.get_renderer())


@pytest.mark.parametrize("size", ["screen", "column", "page"])
@pytest.mark.parametrize("draw", ["curves", "panels", "bars"])
def test_no_text_is_cut_with_many_methods_and_long_names(size, draw):
    curves, paper = curves_of(14), Paper(size=size)
    with paper.style():
        if draw == "curves":
            figure = plots.draw_curves(curves, ACCURACY, "cifar100, nid1 0.05", paper)
        elif draw == "panels":
            figure = plots.draw_panels(curves, ACCURACY, "cifar100, nid1 0.05", paper, "method0")
        else:
            finals = {name: [70.0 + i, 72.0 + i] for i, name in enumerate(curves)}
            figure = plots.draw_bars(finals, ACCURACY, "cifar100, nid1 0.05", paper)
        texts, box = seen_in(figure)
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01 and box.x1 <= width + 0.01
    assert box.y0 >= -0.01 and box.y1 <= height + 0.01
    seen = "".join(" ".join(texts).split())
    assert "cifar100,nid10.05" in seen and "method12" in seen
    assert LONG.replace(" ", "") in seen


def test_the_legend_is_outside_and_ordered_by_the_ends_above_six_curves():
    paper = Paper()
    with paper.style():
        few = plots.draw_curves(curves_of(6), ACCURACY, "", paper)
        many_curves = curves_of(7)
        many = plots.draw_curves(many_curves, ACCURACY, "", paper)
        FigureCanvasAgg(many).draw()
    assert few.axes[0].get_legend() is not None and not few.legends
    (legend,) = many.legends
    assert many.axes[0].get_legend() is None
    assert legend.get_window_extent().x0 >= many.axes[0].get_window_extent().x1
    ends = {name: curve.mean[-1] for name, curve in many_curves.items()}
    order = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert [name[:20] for name in order] == [
        name[:20] for name in sorted(ends, key=ends.get, reverse=True)
    ]


@pytest.mark.parametrize("size", ["screen", "column", "page"])
def test_titles_of_panels_do_not_meet(size):
    names = ["fedavg + majority_sign", "fedavg + random_k", "fedavg + powersgd", LONG]
    names = [f"{name}{'+' * i}" for i in range(3) for name in names]
    curves = dict(zip(names, curves_of(len(names)).values(), strict=True))
    paper = Paper(size=size)
    with paper.style():
        figure = plots.draw_panels(curves, ACCURACY, "", paper)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = [axes._left_title.get_window_extent(canvas.get_renderer()) for axes in figure.axes]
        ends = [axes.get_window_extent().x0 for axes in figure.axes] + [0.0]
    for box, following in zip(boxes, ends[1:], strict=True):
        last = following < box.x0  # of its row
        assert box.x1 <= (figure.bbox.x1 if last else following)


def test_a_long_legend_of_few_curves_covers_none_of_them():
    for size, below in (("screen", False), ("column", True)):
        paper = Paper(size=size)
        curves = {
            f"{LONG} {'more ' * 4}{i}": curve for i, curve in enumerate(curves_of(4).values())
        }
        with paper.style():
            figure = plots.draw_curves(curves, ACCURACY, "", paper)
            FigureCanvasAgg(figure).draw()
        (legend,), (axes,) = figure.legends, figure.axes
        box, picture = legend.get_window_extent(), axes.get_window_extent()
        assert box.y1 <= picture.y0 if below else box.x0 >= picture.x1


def test_a_panel_shows_one_method_before_all_and_the_reference_dashed():
    curves, paper = curves_of(7), Paper()
    figure = plots.draw_panels(curves, ACCURACY, "", paper, "method0")
    assert len(figure.axes) == 7
    panel = figure.axes[2]
    own = panel.lines[-1]
    np.testing.assert_allclose(own.get_ydata(), 100 * curves["method2"].mean)
    dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[0].get_ydata(), 100 * curves["method0"].mean)
    assert len(panel.lines) == 8


def test_bars_are_means_with_sample_deviations_the_best_first():
    finals = {"a": [0.2, 0.4], "b": [0.1, 0.1], "c": []}
    figure = plots.draw_bars(finals, Metric("test_mse", higher=False), "", Paper())
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.1, 0.3])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "a", "c"]
    (low, high) = axes.collections[1].get_segments()[0][:, 0]
    assert (high - low) / 2 == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert axes.get_xlim()[0] == 0


def test_the_bars_of_a_comparison_are_means_of_the_last_evaluations(tmp_path, drawn, six_runs):
    plots.plot_all(Comparison.load(six_runs), tmp_path, Paper(), print)
    (axes,) = drawn[-1].axes
    means = {
        name: np.mean([ACCURACIES[name, seed] for seed in range(3)])
        for name in ("semanticfl", "fedavg")
    }
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(means)
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([100 * mean for mean in means.values()])


def test_pictures_are_written_in_each_format_with_the_size_of_a_column(tmp_path, six_runs):
    from semanticfl_jax.reporting.report import compare

    paper = Paper(("png", "pdf", "svg"), "column", "serif")
    compare(six_runs, tmp_path, paper)
    with Image.open(tmp_path / "comparison.png") as image:
        assert image.width == pytest.approx(3.33 * 150, abs=1)
    pdf = (tmp_path / "comparison.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf and b"CreationDate" not in pdf
    svg = (tmp_path / "comparison.svg").read_text()
    assert ">fedavg</text>" in svg and "digits" in svg
    compare(six_runs, tmp_path / "again", paper)
    for path in tmp_path.glob("comparison*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path


@pytest.mark.parametrize(
    "fields", [{"formats": ("gif",)}, {"formats": ()}, {"size": "a4"}, {"font": "comic"}]
)
def test_what_cannot_be_drawn_is_refused(fields):
    with pytest.raises(SemanticFLError, match="of plots must be of"):
        Paper(**fields)
    with pytest.raises(SemanticFLError, match="4 to 30 points, got 2"):
        Paper(font_size=2)
